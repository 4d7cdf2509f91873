"""PL-Rank: gradients of the expected reward of a Plackett-Luce ranker from a few sampled rankings."""

from __future__ import annotations

import torch
from torch import Tensor

from dayjob.objectives.checks import Stats, check_integer, check_rank, check_same


def pl_rank_gradient(score_BK: Tensor, relevance_BK: Tensor, *, weight_K: Tensor, sampled_SBK: Tensor) -> Tensor:
    """Estimate of dE/ds, shape (B, K), where E = E_y[sum_k theta_k rho_{y_k}]; PL-Rank-2 (Oosterhuis, SIGIR 2021,
    2022).

    dE/ds_d = E_y[PR_{rank(d)+1} + sum_{k <= rank(d)} p_k(d) (theta_k rho_d - PR_k)], PR_k = sum_{m >= k} theta_m
    rho_{y_m}. ``sampled_SBK``: S rankings of all K candidates per decision, drawn from softmax(score) (argsort of score
    + Gumbel).
    """
    check_rank("sampled_SBK", sampled_SBK, rank=3)
    check_integer("sampled_SBK", sampled_SBK)
    check_same(score_BK=score_BK, relevance_BK=relevance_BK)
    score = score_BK.detach().expand_as(sampled_SBK)
    relevance = relevance_BK.expand_as(sampled_SBK)
    placed = relevance.gather(2, sampled_SBK) * weight_K
    reward = placed.flip(2).cumsum(2).flip(2)  # PR_k
    remaining = score.gather(2, sampled_SBK).flip(2).logcumsumexp(2).flip(2)  # log of the denominator at position k
    # Weighted sums over k <= rank(d) of 1/denominator, as cumulative sums along the positions.
    peak = score.amax(dim=2, keepdim=True)
    inverse = torch.exp(peak - remaining)
    by_rank_direct = (inverse * weight_K).cumsum(2)
    by_rank_reward = (inverse * reward).cumsum(2)
    rank_SBK = torch.argsort(sampled_SBK, dim=2)
    after = torch.nn.functional.pad(reward[:, :, 1:], (0, 1))
    chance = torch.exp(score - peak)
    gradient = after.gather(2, rank_SBK) + chance * (
        relevance * by_rank_direct.gather(2, rank_SBK) - by_rank_reward.gather(2, rank_SBK)
    )
    return gradient.mean(dim=0)


def pl_rank(score_BK: Tensor, relevance_BK: Tensor, *, weight_K: Tensor, sampled_SBK: Tensor) -> tuple[Tensor, Stats]:
    """A scalar whose gradient in the scores is minus the mean of :func:`pl_rank_gradient`; its value is minus E
    estimated."""
    gradient_BK = pl_rank_gradient(score_BK, relevance_BK, weight_K=weight_K, sampled_SBK=sampled_SBK)
    placed = relevance_BK.expand_as(sampled_SBK).gather(2, sampled_SBK) * weight_K
    value = placed.sum(dim=2).mean()
    surrogate = (score_BK * gradient_BK).sum(dim=1).mean()
    return surrogate.detach() - surrogate - value, {"expected_reward": value}
