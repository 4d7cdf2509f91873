"""Corrections for stale data: how much a token counts whose sampler was not today's policy.

rho = pi(token) / behaviour(token). A correction turns rho into a coefficient that multiplies A log pi without a
gradient of its own; several multiply. The thresholds are each correction's fields, their defaults the papers' or
ours, as said. ``CORRECTIONS`` names them for a recipe.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

LOG_RATIO_LIMIT = 20.0  # e^20: beyond it only overflow lies


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What a correction may look at, all without gradient and 0 where a token does not count: the clamped log rho,
    today's and the sampler's log-probability, the advantage; and which tokens count."""

    log_ratio_BT: Tensor
    logp_BT: Tensor
    behaviour_BT: Tensor
    advantage_BT: Tensor
    mask_BT: Tensor


@dataclass(frozen=True, kw_only=True)
class Correction(ABC):
    """One way to weigh stale tokens. ``weighs``: its coefficient contains rho; at most one of a product may."""

    weighs: ClassVar[bool] = True

    @property
    def penalty(self) -> float:
        """Weight of (log rho)^2, which the objective adds with its gradient."""
        return 0.0

    @abstractmethod
    def coefficient(self, seen: Seen) -> Tensor:
        """Shape (B, T), without gradient."""


@dataclass(frozen=True, kw_only=True)
class Cispo(Correction):
    """min(rho, cap): no token is dropped, none weighs more than ``cap``. One-sided, as in MiniMax-M1 (2025) and
    ScaleRL (Khatri et al., 2025; caps of 4 to 8 did equally well). With weights ``per_prompt``."""

    cap: float = 5.0

    def coefficient(self, seen: Seen) -> Tensor:
        return seen.log_ratio_BT.exp().clamp_max(self.cap)


@dataclass(frozen=True, kw_only=True)
class TruncatedImportance(Cispo):
    """TIS, min(rho, 2): truncated importance sampling (Ionides, 2008; Yao et al., 2025). With the behaviour
    log-probabilities as the only "old" ones it is CISPO with a lower cap."""

    cap: float = 2.0


@dataclass(frozen=True, kw_only=True)
class PpoClip(Correction):
    """rho, but 0 where the step would go on in a direction already gone too far: rho > 1 + ``width`` with A > 0, or
    rho < 1 - ``width`` with A < 0. The gradient of PPO's min(rho A, clip(rho) A) (Schulman et al., 2017)."""

    width: float = 0.2

    def coefficient(self, seen: Seen) -> Tensor:
        ratio_BT = seen.log_ratio_BT.exp()
        away_BT = torch.where(seen.advantage_BT > 0, ratio_BT > 1 + self.width, False)
        away_BT = away_BT | torch.where(seen.advantage_BT < 0, ratio_BT < 1 - self.width, False)
        return torch.where(away_BT, 0.0, ratio_BT)


@dataclass(frozen=True, kw_only=True)
class IcePop(Correction):
    """rho inside [low, high], 0 outside, both ends kept (Ling team, "Every step evolves", 2025; there .5 and 5)."""

    low: float = 0.5
    high: float = 2.0

    def coefficient(self, seen: Seen) -> Tensor:
        ratio_BT = seen.log_ratio_BT.exp()
        return torch.where((ratio_BT >= self.low) & (ratio_BT <= self.high), ratio_BT, 0.0)


@dataclass(frozen=True, kw_only=True)
class SequenceMask(Correction):
    """1 or 0 for a whole sequence: kept when the geometric mean of its tokens' rho lies inside [low, high] (Liu et al.,
    "When speed kills stability", 2025). It does not weigh: multiply it with one that does."""

    weighs: ClassVar[bool] = False
    low: float = 0.99
    high: float = 1.01

    def coefficient(self, seen: Seen) -> Tensor:
        tokens_B1 = seen.mask_BT.sum(dim=1, keepdim=True).clamp_min(1)
        mean_B1 = (seen.log_ratio_BT.sum(dim=1, keepdim=True) / tokens_B1).exp()
        keep_B1 = (mean_B1 >= self.low) & (mean_B1 <= self.high)
        return keep_B1.to(seen.log_ratio_BT.dtype).expand_as(seen.log_ratio_BT)


@dataclass(frozen=True, kw_only=True)
class DppoTv(Correction):
    """rho, but 0 where the step would go on in a direction already gone too far: p - q > ``threshold`` with A > 0, or
    p - q < -``threshold`` with A < 0; p today's probability of the token, q the sampler's. A bound of the total
    variation by its one sampled term (DPPO, Qi et al., 2026). The objective adds ``pull`` (log rho)^2.

    Unlike a bound on rho it lets rare tokens move (.001 to .01 is a ratio of ten and a difference of .009), and stops
    likely ones.
    """

    threshold: float = 0.2
    pull: float = 1e-3

    @property
    def penalty(self) -> float:
        return self.pull

    def coefficient(self, seen: Seen) -> Tensor:
        moved_BT = seen.logp_BT.exp() - seen.behaviour_BT.exp()
        away_BT = torch.where(seen.advantage_BT > 0, moved_BT > self.threshold, False)
        away_BT = away_BT | torch.where(seen.advantage_BT < 0, moved_BT < -self.threshold, False)
        return torch.where(away_BT, 0.0, seen.log_ratio_BT.exp())


CORRECTIONS: dict[str, type[Correction]] = {
    "cispo": Cispo,
    "tis": TruncatedImportance,
    "ppo_clip": PpoClip,
    "icepop": IcePop,
    "sequence_mask": SequenceMask,
    "dppo_tv": DppoTv,
}
