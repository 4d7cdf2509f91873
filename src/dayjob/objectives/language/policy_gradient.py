"""The policy gradient: what earned more than expected becomes more likely, corrected for who sampled it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dayjob.objectives.checks import Stats, check_rank, check_same
from dayjob.objectives.language.corrections import LOG_RATIO_LIMIT, Correction, Seen
from dayjob.objectives.language.weights import counted


def policy_gradient(
    logp_BT: Tensor,
    behaviour_BT: Tensor,
    *,
    advantage_BT: Tensor,
    weight_BT: Tensor,
    corrections: Sequence[Correction],
) -> tuple[Tensor, Stats]:
    """-sum w sg(c) A log pi + penalty sum w (log rho)^2, log rho = clamp(log pi - log behaviour, +-20).

    c is the product of the corrections' coefficients, 1 without any (Williams, 1992, for what was sampled by this very
    policy). ``advantage_BT``: one a token; spread a sequence's over its tokens with :func:`over_tokens`. A surrogate:
    its gradient means something, its value does not.

    Stats, weighted shares or means: ``ratio`` and ``ratio_squared`` (the effective sample size is the square of the
    first over the second), ``stale_kl`` (rho - 1 - log rho, an estimate of KL(behaviour || pi)), ``dropped`` (c is 0),
    ``capped`` (0 < c < rho), ``penalty``; ``tokens``.
    """
    check_rank("logp_BT", logp_BT, rank=2)
    check_same(logp_BT=logp_BT, behaviour_BT=behaviour_BT, advantage_BT=advantage_BT, weight_BT=weight_BT)
    if sum(one.weighs for one in corrections) > 1:
        names = ", ".join(type(one).__name__ for one in corrections)
        raise ValueError(f"{names} would multiply the importance ratio more than once: keep one, masks may be added")
    logp_BT = counted(logp_BT, weight_BT)
    behaviour_BT = counted(behaviour_BT.detach(), weight_BT)
    advantage_BT = counted(advantage_BT.detach(), weight_BT)
    log_ratio_BT = (logp_BT - behaviour_BT).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    seen = Seen(
        log_ratio_BT=log_ratio_BT.detach(),
        logp_BT=logp_BT.detach(),
        behaviour_BT=behaviour_BT,
        advantage_BT=advantage_BT,
        mask_BT=weight_BT != 0,
    )
    coefficient_BT = torch.ones_like(seen.log_ratio_BT)
    for one in corrections:
        coefficient_BT = coefficient_BT * one.coefficient(seen)
    surrogate = -(weight_BT * coefficient_BT * advantage_BT * logp_BT).sum()
    penalty = sum(one.penalty for one in corrections) * (weight_BT * log_ratio_BT.square()).sum()
    # Without a correction that weighs, a coefficient of 1 is no cap.
    full_BT = seen.log_ratio_BT.exp() if any(one.weighs for one in corrections) else torch.ones_like(coefficient_BT)
    stats = _stats(seen, coefficient_BT, weight_BT=weight_BT, full_BT=full_BT)
    return surrogate + penalty, stats | {"penalty": penalty.detach()}


def over_tokens(advantage_B: Tensor, mask_BT: Tensor) -> Tensor:
    """A sequence's advantage on each of its tokens, shape (B, T); 0 elsewhere."""
    check_rank("advantage_B", advantage_B, rank=1)
    return torch.where(mask_BT.bool(), advantage_B[:, None], 0.0)


def _stats(seen: Seen, coefficient_BT: Tensor, *, weight_BT: Tensor, full_BT: Tensor) -> Stats:
    ratio_BT = seen.log_ratio_BT.exp()
    dropped_BT = coefficient_BT == 0
    return {
        "ratio": (weight_BT * ratio_BT).sum(),
        "ratio_squared": (weight_BT * ratio_BT.square()).sum(),
        "stale_kl": (weight_BT * (ratio_BT - 1 - seen.log_ratio_BT)).sum(),
        "dropped": (weight_BT * dropped_BT).sum(),
        "capped": (weight_BT * (~dropped_BT & (coefficient_BT < full_BT))).sum(),
        "tokens": seen.mask_BT.sum(),
    }
