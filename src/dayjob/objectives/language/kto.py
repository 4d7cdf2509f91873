"""KTO: learning from lone thumbs, an answer that was liked or disliked, without another one to compare it with."""

from __future__ import annotations

import torch
from torch import Tensor

from dayjob.objectives.checks import Stats, check_rank, check_same
from dayjob.objectives.language.weights import counted


def kto_reference_point(mismatched_B: Tensor, mismatched_reference_B: Tensor, *, weight_B: Tensor) -> Tensor:
    """z0 = max(0, sum w (log p - log ref)) over *mismatched* pairs, a detached scalar: the estimate of
    KL(policy || reference) against which a gain counts as one. Ethayarajh et al., ICML 2024, section 4.1.

    A mismatched pair is a prompt of the step with the completion of another one (of row i - 1, say). Made once for the
    whole step, like the weights. A step with one thumb has no mismatched pair: give weights of 0, and z0 is 0.
    """
    check_same(mismatched_B=mismatched_B, mismatched_reference_B=mismatched_reference_B, weight_B=weight_B)
    return (weight_B * counted(mismatched_B - mismatched_reference_B, weight_B)).sum().clamp_min(0).detach()


def kto_balance(liked_B: Tensor, *, ratio: float = 1.0) -> tuple[float, float]:
    """(lambda_D, lambda_U): the scarcer kind weighted up until n_D lambda_D = ``ratio`` n_U lambda_U.

    The paper asks for a ratio of 1 to 4/3. (1, 1) when one kind is missing. Reads numbers: call it on the host's copy,
    over all thumbs of the step.
    """
    liked = int(liked_B.sum())
    disliked = len(liked_B) - liked
    if not liked or not disliked:
        return 1.0, 1.0
    lift = ratio * disliked / liked
    return (lift, 1.0) if lift >= 1 else (1.0, 1 / lift)


def kto(
    logp_B: Tensor,
    reference_B: Tensor,
    *,
    liked_B: Tensor,
    reference_point: Tensor,
    weight_B: Tensor,
    beta: float = 0.1,
    balance: tuple[float, float] = (1.0, 1.0),
) -> tuple[Tensor, Stats]:
    """sum w lambda (1 - sigma(+-beta(r - z0))), r = log p - log ref, + for a thumb up. Ethayarajh et al., ICML 2024.

    ``reference_point``: z0 of :func:`kto_reference_point`; ``balance``: (lambda_D, lambda_U). Log-probabilities are of
    whole sequences; usual weights: ``per_row``. Stats: weighted ``liked_reward`` and ``disliked_reward`` (sums of
    beta r), and their counts.
    """
    check_rank("logp_B", logp_B, rank=1)
    check_same(logp_B=logp_B, reference_B=reference_B, liked_B=liked_B, weight_B=weight_B)
    liked_B = liked_B.bool()
    gain_B = counted(logp_B - reference_B.detach(), weight_B)
    sign_B = torch.where(liked_B, 1.0, -1.0).to(gain_B.dtype)
    desire_B = torch.where(liked_B, balance[0], balance[1]).to(gain_B.dtype)
    value_B = torch.sigmoid(beta * sign_B * (gain_B - reference_point.detach()))
    loss = (weight_B * desire_B * (1 - value_B)).sum()
    reward_B = (weight_B * beta * gain_B).detach()
    stats = {
        "liked_reward": torch.where(liked_B, reward_B, 0.0).sum(),
        "disliked_reward": torch.where(liked_B, 0.0, reward_B).sum(),
        "liked": (liked_B & (weight_B != 0)).sum(),
        "disliked": (~liked_B & (weight_B != 0)).sum(),
    }
    return loss, stats
