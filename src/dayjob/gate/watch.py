"""After a promotion: is the new champion worse than what it replaced? Two tests, one rollback.

* ``arms``: champion against the baseline holdback. The role of a decision is drawn with known chances, so with r in
  [0, 1] and any rhat fixed beforehand, x = p (r - rhat) (1[baseline]/p_baseline - 1[champion]/p_champion) has mean
  p (E[r | baseline] - E[r | champion]) given the past, whatever users and positions do; p is the least chance the
  holdback may have, so that |x| <= 1. Inverse propensities with a good rhat waste nothing: the variance is that of the
  scarcer arm.
* ``pairs``: coin-flip pairs of the champion and the version it replaced, exactly as in a trial with the old one as the
  challenger. A pair tells far more than a decision of either arm, because both stand on one page before one person.

H0: the champion is never worse. A champion may also turn bad later (people change, the attack begins), and evidence
gathered in good times must not have to be paid back: the wealth is spread over starting points, E_t = sum_s q_s
prod_{s<=i<=t} (1 + l x_i) + sum_{s>t} q_s, a mixture of e-processes and so one itself. No decision enters both tests,
so in decision order their product is an e-process too, and sees what neither has proven alone. By Ville, and a union
over the two and their product, a champion that is never worse is rolled back with probability <= alpha in its life.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dayjob.endings import Invalid
from dayjob.gate.confidence import BETS_G, Floats, log_gain, log_mixture
from dayjob.gate.trial import Observations, TrialState, residuals

# Half of the wealth is bet from the promotion on. The rest starts later; what is left after t observations is
# half of (1 + t / HORIZON)^-1/2.
_AT_ONCE = 0.5
_HORIZON = 500.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Onset:
    """Log wealth per bet of everything started so far, and the running maximum of the log e-process."""

    count: int = 0
    log_wealth_G: tuple[float, ...] = (-math.inf,) * BETS_G.size
    log_e: float = 0.0
    peak: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Numbers only: wealth not started yet is written as None, JSON has no minus infinity."""
        wealth = [None if math.isinf(w) else w for w in self.log_wealth_G]
        return {"count": self.count, "log_wealth_G": wealth, "log_e": self.log_e, "peak": self.peak}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Onset":
        """The inverse of :meth:`to_dict`."""
        wealth = tuple(-math.inf if w is None else w for w in fields["log_wealth_G"])
        if len(wealth) != BETS_G.size:
            raise Invalid("this watch was written with another grid of bets: start it again")
        return cls(**fields | {"log_wealth_G": wealth})


def not_started(count: int | npt.NDArray[np.int64]) -> Floats:
    """The share of the wealth that starts after ``count`` observations; 1 before the first."""
    left = (1.0 - _AT_ONCE) / np.sqrt(1.0 + np.maximum(np.asarray(count) - 1, 0) / _HORIZON)
    share: Floats = np.where(np.asarray(count) == 0, 1.0, left)
    return share


def advance(state: Onset, x_N: Floats) -> Onset:
    """The state after N more observations in [-1, 1]; positive ones speak against the champion."""
    if x_N.size == 0:
        return state
    if not (np.abs(x_N) <= 1.0 + 1e-9).all():
        raise Invalid("observations must lie in [-1, 1]: divide by their bound first")
    count_N = state.count + np.arange(1, x_N.size + 1)
    gain_NG = np.cumsum(log_gain(np.clip(x_N, -1.0, 1.0)), axis=0)
    before_NG = np.vstack([np.zeros(BETS_G.size), gain_NG[:-1]])
    with np.errstate(divide="ignore"):
        start_N = np.log(not_started(count_N - 1) - not_started(count_N))
    entered_NG = np.vstack([np.asarray(state.log_wealth_G), start_N[:, None] - before_NG])
    wealth_NG = gain_NG + np.logaddexp.accumulate(entered_NG, axis=0)[1:]
    log_e_N = np.logaddexp(log_mixture(wealth_NG), np.log(not_started(count_N)))
    return Onset(
        count=int(count_N[-1]),
        log_wealth_G=tuple(wealth_NG[-1].tolist()),
        log_e=float(log_e_N[-1]),
        peak=max(state.peak, float(log_e_N.max())),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Arms:
    """N closed decisions of champion and holdback, in order. ``reward_N`` in [0, 1]; chances of the two roles."""

    reward_N: Floats
    baseline_N: npt.NDArray[np.bool_]
    chance_champion_N: Floats
    chance_baseline_N: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WatchState:
    """One champion's watch. ``least_chance``: a promise that the holdback's chance never falls below it."""

    least_chance: float
    arms: Onset = field(default_factory=Onset)
    reward_sum: float = 0.0
    trial: TrialState = field(default_factory=TrialState)
    pairs: Onset = field(default_factory=Onset)

    def __post_init__(self) -> None:
        if not 0.0 < self.least_chance <= 0.5:
            raise Invalid("the holdback's least chance must lie in (0, 0.5]")

    def to_dict(self) -> dict[str, Any]:
        """Numbers and lists of numbers only."""
        plain = {"least_chance": self.least_chance, "reward_sum": self.reward_sum, "trial": self.trial.to_dict()}
        return plain | {"arms": self.arms.to_dict(), "pairs": self.pairs.to_dict()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "WatchState":
        """The inverse of :meth:`to_dict`."""
        return cls(
            least_chance=fields["least_chance"],
            reward_sum=fields["reward_sum"],
            trial=TrialState.from_dict(fields["trial"]),
            arms=Onset.from_dict(fields["arms"]),
            pairs=Onset.from_dict(fields["pairs"]),
        )


def observe_arms(state: WatchState, batch: Arms) -> WatchState:
    """The watch after more decisions served by champion or holdback alone."""
    reward, base = batch.reward_N, batch.baseline_N
    if not ((reward >= 0) & (reward <= 1)).all():
        raise Invalid("scale rewards to [0, 1] by the policy's reward_range first")
    chance = np.where(base, batch.chance_baseline_N, batch.chance_champion_N)
    if reward.size and chance.min() < state.least_chance - 1e-12:
        raise Invalid("a role was drawn with less than the promised least chance: the watch's bets would be unsafe")
    past_sum = state.reward_sum + np.concatenate([[0.0], np.cumsum(reward)[:-1]])[: reward.size]
    past_count = state.arms.count + np.arange(reward.size)
    guess = (past_sum + 0.5) / (past_count + 1.0)
    x = state.least_chance * (reward - guess) * np.where(base, 1.0, -1.0) / chance
    return WatchState(
        least_chance=state.least_chance,
        arms=advance(state.arms, x),
        reward_sum=state.reward_sum + float(reward.sum()),
        trial=state.trial,
        pairs=state.pairs,
    )


def observe_pairs(state: WatchState, batch: Observations) -> WatchState:
    """The watch after more pairs; the *replaced* version is the challenger (+1), the champion is -1."""
    trial, seen = residuals(state.trial, batch)
    return WatchState(
        least_chance=state.least_chance,
        arms=state.arms,
        reward_sum=state.reward_sum,
        trial=trial,
        pairs=advance(state.pairs, seen.weight_N * seen.low_N),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """Whether to roll back, why, and the evidence of both tests and of their product against 3 / alpha."""

    rollback: bool
    reason: str
    e_arms: float
    e_pairs: float
    e_both: float
    e_needed: float


def finding(state: WatchState, *, alpha: float) -> Alarm:
    """Roll back when a test, or both together, have proven the champion worse; each of the three has alpha / 3.

    Ask when both tests have seen the same decisions: their product is taken as it stands now.
    """
    limit = math.log(3.0 / alpha)
    both = state.arms.log_e + state.pairs.log_e
    if state.pairs.peak >= limit:
        reason = f"Proven worse than the version it replaced, by {state.pairs.count:,} pairs"
    elif state.arms.peak >= limit:
        reason = f"Proven worse than the baseline holdback, by the rewards of {state.arms.count:,} decisions"
    elif both >= limit:
        reason = (
            f"Proven worse than what it replaced, by {state.pairs.count:,} pairs and the rewards of "
            f"{state.arms.count:,} decisions together"
        )
    else:
        reason = "Not shown to be worse than what it replaced"
    e_arms, e_pairs, e_both = (math.exp(min(e, 700.0)) for e in (state.arms.peak, state.pairs.peak, both))
    told = f"evidence {e_pairs:.3g} from pairs, {e_arms:.3g} from the holdback, {e_both:.3g} from both now"
    return Alarm(
        rollback=max(state.arms.peak, state.pairs.peak, both) >= limit,
        reason=f"{reason} ({told}; {3 / alpha:.3g} needed).",
        e_arms=e_arms,
        e_pairs=e_pairs,
        e_both=e_both,
        e_needed=3.0 / alpha,
    )
