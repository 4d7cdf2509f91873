"""How far the learner has moved from those who made the attempts, and what to do about it.

Two measures. **Lag**: updates between the weights that wrote a token and those that learn from it; it says how old work
is, not how wrong. **KL(behaviour ‖ learner)**, nats a token, estimated on the very tokens: mean(rho - 1 - log rho), rho
= pi(token) / behaviour(token), unbiased and never negative (Schulman, 2020). It needs no second model: the
log-probabilities that the tokens were drawn with are in the trajectory. The correction is chosen by the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from torch import Tensor

from dayjob.learn.practice.recipe import AUTO, PLAIN
from dayjob.objectives.language.corrections import CORRECTIONS, LOG_RATIO_LIMIT, Cispo, Correction, DppoTv

# Nats a token. See docs/practice.md for where they come from: `dayjob lab stale` prints both.
FRESH_KL = 1e-3  # below it a correction changes nothing that could be measured
STALE_KL = 3e-2  # above it keeping every token costs more than dropping those that went too far


@dataclass(frozen=True, slots=True, kw_only=True)
class Staleness:
    """Of the rows of one step."""

    kl: float  # nats a token
    lag: float  # updates, on average over tokens
    most_lag: int
    sample_size: float  # (sum rho)^2 / (n sum rho^2), the effective share of the tokens: 1 when nothing is stale
    tokens: int


def measure(logp_BT: Tensor, behaviour_BT: Tensor, *, mask_BT: Tensor, lags: Sequence[int]) -> Staleness:
    """``lags``: of every token that counts, in any order. Nothing to measure is not stale."""
    keep_BT = mask_BT.bool()
    log_ratio_N = (logp_BT[keep_BT] - behaviour_BT[keep_BT]).double().clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    if not len(log_ratio_N):
        return Staleness(kl=0.0, lag=0.0, most_lag=0, sample_size=1.0, tokens=0)
    ratio_N = log_ratio_N.exp()
    return Staleness(
        kl=float((ratio_N - 1 - log_ratio_N).mean()),
        lag=fmean(lags) if lags else 0.0,
        most_lag=max(lags, default=0),
        sample_size=float(ratio_N.mean().square() / ratio_N.square().mean()),
        tokens=len(log_ratio_N),
    )


def choose(name: str, kl: float) -> tuple[str, tuple[Correction, ...]]:
    """The correction of a step, and what it is called. ``name`` of a recipe; ``auto`` goes by the measured ``kl``.

    - up to ``FRESH_KL``: none. Every ratio is 1 but for rounding.
    - up to ``STALE_KL``: CISPO. It keeps every token, with a bounded weight.
    - beyond: DPPO-TV. What has already moved too far in the wanted direction is left alone. What is no number counts
      as stale.
    """
    if name == PLAIN:
        return PLAIN, ()
    if name != AUTO:
        return name, (CORRECTIONS[name](),)
    if kl <= FRESH_KL:
        return PLAIN, ()
    if kl <= STALE_KL:
        return "cispo", (Cispo(),)
    return "dppo_tv", (DppoTv(),)
