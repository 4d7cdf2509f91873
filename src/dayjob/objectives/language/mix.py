"""Several objectives in one step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dayjob.objectives.checks import Stats


def mix(parts: Mapping[str, tuple[Tensor, Stats]], *, shares: Mapping[str, float]) -> tuple[Tensor, Stats]:
    """sum_i share_i loss_i, and all stats under ``part/name``, each part's own loss under ``part/loss``.

    A part's rows and denominator are its own: it was weighed (tokens, sequences, prompts) before it came here, so a
    share says how much an average token of one counts against an average token of the other, however many of either the
    step holds. A microbatch may lack a part. Every share must be named once: a typo would silently leave a part out.
    """
    unknown = sorted(set(parts) - set(shares))
    if unknown:
        raise ValueError(f"no share is given for {', '.join(unknown)}: shares are for {', '.join(sorted(shares))}")
    if not parts:
        raise ValueError("a mixture of nothing: give at least one part")
    losses = [shares[name] * loss for name, (loss, _) in parts.items()]
    stats = {f"{name}/{key}": value for name, (_, inner) in parts.items() for key, value in inner.items()}
    stats |= {f"{name}/loss": loss.detach() for name, (loss, _) in parts.items()}
    total = torch.stack(losses).sum()
    return total, stats | {"loss": total.detach()}


def add_stats(total: Stats, one: Stats) -> Stats:
    """The stats of two microbatches together: every stat is a sum over rows. A part that only one has is kept."""
    result = dict(total)
    for name, value in one.items():
        result[name] = result[name] + value if name in result else value
    return result
