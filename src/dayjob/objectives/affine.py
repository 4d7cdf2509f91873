"""Affine correction of clicks under trust bias, alone and doubly robust, and the loss that learns from either."""

from __future__ import annotations

import torch
from torch import Tensor

from dayjob.objectives.checks import Stats, check_rank, check_same


def affine_corrected(click_BK: Tensor, alpha_BK: Tensor, *, beta_BK: Tensor, floor: float) -> Tensor:
    """ghat = (c - beta) / max(floor, alpha), shape (B, K): unbiased for relevance where alpha >= floor.

    Vardasbi, Oosterhuis, de Rijke, CIKM 2020. ``alpha_BK`` and ``beta_BK`` are those of the position at which each
    candidate was shown, or their expectation over the logging policy (policy-aware). Inverse propensity weights alone
    cannot do it.
    """
    check_same(click_BK=click_BK, alpha_BK=alpha_BK, beta_BK=beta_BK)
    return (click_BK - beta_BK) / alpha_BK.clamp_min(floor)


def doubly_robust(
    click_BK: Tensor, model_BK: Tensor, *, alpha_BK: Tensor, beta_BK: Tensor, mean_alpha_BK: Tensor, floor: float
) -> Tensor:
    """muhat = Rhat + (c - beta - alpha Rhat) / max(tau, E alpha), shape (B, K). Oosterhuis, TOIS 2023.

    ``alpha_BK``, ``beta_BK`` at the position shown; ``mean_alpha_BK`` expected under the logging policy; ``model_BK``
    is Rhat in [0, 1]. Right in expectation when the bias is right (E alpha >= tau) or when the model is.
    """
    check_same(click_BK=click_BK, model_BK=model_BK, alpha_BK=alpha_BK, beta_BK=beta_BK, mean_alpha_BK=mean_alpha_BK)
    return model_BK + (click_BK - beta_BK - alpha_BK * model_BK) / mean_alpha_BK.clamp_min(floor)


def relevance_cross_entropy(score_BK: Tensor, relevance_BK: Tensor, *, real_BK: Tensor) -> tuple[Tensor, Stats]:
    """-mean_B sum_k relevance_k log softmax(score)_k over real candidates; relevance may be negative (it is
    unbiased)."""
    check_rank("score_BK", score_BK, rank=2)
    check_same(score_BK=score_BK, relevance_BK=relevance_BK, real_BK=real_BK)
    log_share_BK = torch.log_softmax(torch.where(real_BK, score_BK, -torch.inf), dim=1)
    loss_B = -torch.where(real_BK, relevance_BK * log_share_BK.clamp_min(-1e30), 0.0).sum(dim=1)
    return loss_B.mean(), {"relevance": torch.where(real_BK, relevance_BK, 0.0).sum(dim=1).mean().detach()}
