"""The click as a mixture: a position's pull with probability f, else the ranker's choice.

The parameters of the pull are arguments like the scores, so the caller may hold them, or estimate all jointly by
maximising this likelihood: it conditions on the list that was shown, so lists with a changed order identify it and need
no weights.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from dayjob.objectives.checks import Stats, check_integer, check_rank, check_same
from dayjob.objectives.plackett_luce import in_shown_order


def mixture_log_likelihood(
    score_BK: Tensor,
    shown_BK: Tensor,
    *,
    click_B: Tensor,
    pull_logit_B: Tensor,
    pull_at_K: Tensor,
    examined_K: Tensor,
) -> tuple[Tensor, Tensor]:
    """(log p(click | list) of shape (B,), log p(the click was a choice | click) of shape (B,)); 0 where no click.

    p(k) = f pi_k + (1 - f) softmax_k(s_{y_k} + g_k), f = sigma(pull_logit), pi = softmax(pull_at) over the positions
    that were shown, g = ``examined_K`` how much more or less a position is looked at by those who choose. With pi =
    beta and g = log alpha this is the trust-bias model (Vardasbi, Oosterhuis, de Rijke 2020) of a single click.
    """
    check_same(score_BK=score_BK, shown_BK=shown_BK)
    check_integer("click_B", click_B)
    check_rank("pull_logit_B", pull_logit_B, rank=1)
    present_BK = shown_BK >= 0
    at_B1 = click_B.clamp_min(0)[:, None]
    choice_BK = torch.log_softmax(in_shown_order(score_BK, shown_BK) + examined_K, dim=1)
    pull_BK = torch.log_softmax(torch.where(present_BK, pull_at_K, -torch.inf), dim=1)
    chosen_B = functional.logsigmoid(-pull_logit_B) + choice_BK.gather(1, at_B1)[:, 0]
    pulled_B = functional.logsigmoid(pull_logit_B) + pull_BK.gather(1, at_B1)[:, 0]
    total_B = torch.logaddexp(chosen_B, pulled_B)
    clicked_B = click_B >= 0
    return torch.where(clicked_B, total_B, 0.0), torch.where(clicked_B, chosen_B - total_B, 0.0)


def mixture(
    score_BK: Tensor,
    shown_BK: Tensor,
    *,
    click_B: Tensor,
    pull_logit_B: Tensor,
    pull_at_K: Tensor,
    examined_K: Tensor,
    weight_B: Tensor,
) -> tuple[Tensor, Stats]:
    """-sum w log p(click | list) / sum w over lists with a click; see :func:`mixture_log_likelihood`."""
    log_likelihood_B, log_choice_B = mixture_log_likelihood(
        score_BK, shown_BK, click_B=click_B, pull_logit_B=pull_logit_B, pull_at_K=pull_at_K, examined_K=examined_K
    )
    weight_B = torch.where(click_B >= 0, weight_B, 0.0)
    total = weight_B.sum().clamp_min(torch.finfo(weight_B.dtype).tiny)
    chosen = (weight_B * log_choice_B.exp()).sum() / total
    return -(weight_B * log_likelihood_B).sum() / total, {"choice_share": chosen.detach(), "weight": total.detach()}
