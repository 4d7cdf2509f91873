"""Plackett-Luce: the probability of a ranking, and its entropy's cousin, the KL between two rankers of one list."""

from __future__ import annotations

import torch
from torch import Tensor

from dayjob.objectives.checks import check_integer, check_rank, check_same

LOWEST = -1e30  # stands for minus infinity where a difference of two must stay a number


def in_shown_order(score_BK: Tensor, shown_BK: Tensor) -> Tensor:
    """Scores by position; ``LOWEST`` where the list has ended."""
    check_rank("score_BK", score_BK, rank=2)
    check_rank("shown_BK", shown_BK, rank=2)
    check_integer("shown_BK", shown_BK)
    by_position = torch.gather(score_BK, 1, shown_BK.clamp_min(0))
    return torch.where(shown_BK >= 0, by_position.clamp_min(LOWEST), LOWEST)


def log_prob_by_position(score_BK: Tensor, shown_BK: Tensor) -> Tensor:
    """log p(the item at position k | the ones above), shape (B, K); 0 past the end.

    log p_k = s_{y_k} - log sum_{j >= k} exp(s_{y_j}). (Luce 1959; Plackett 1975.) The choice at each position is among
    the items of ``shown_BK``: for the probability of a list that was cut, give all candidates with the unshown ones at
    the end.
    """
    by_position = in_shown_order(score_BK, shown_BK)
    remaining = torch.logcumsumexp(by_position.flip(1), dim=1).flip(1)
    return torch.where(shown_BK >= 0, by_position - remaining, 0.0)


def log_prob(score_BK: Tensor, shown_BK: Tensor) -> Tensor:
    """log probability of the whole ranking, shape (B,)."""
    return log_prob_by_position(score_BK, shown_BK).sum(dim=1)


def kl_along(score_BK: Tensor, other_BK: Tensor, *, shown_BK: Tensor) -> Tensor:
    """sum_k KL(p_k || q_k) of the choices along the shown ranking, shape (B,).

    The exact KL between two Plackett-Luce laws is this quantity's expectation over rankings drawn from ``score_BK``, so
    on a sampled ranking it is an unbiased estimate of low variance (the chain rule of KL).
    """
    check_same(score_BK=score_BK, other_BK=other_BK)
    p, q = in_shown_order(score_BK, shown_BK), in_shown_order(other_BK, shown_BK)
    width = p.shape[1]
    later_KK = torch.ones(width, width, dtype=torch.bool, device=p.device).triu()
    p_BKK = torch.where(later_KK, p[:, None, :], LOWEST)
    q_BKK = torch.where(later_KK, q[:, None, :], LOWEST)
    log_p, log_q = torch.log_softmax(p_BKK, dim=2), torch.log_softmax(q_BKK, dim=2)
    present_BKK = later_KK & (shown_BK >= 0)[:, None, :]
    terms = torch.where(present_BKK, log_p.exp() * (log_p - log_q), 0.0)
    return torch.where(shown_BK >= 0, terms.sum(dim=2), 0.0).sum(dim=1)
