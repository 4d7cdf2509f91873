"""After a promotion: is the new champion worse than what it replaced? Two tests, one rollback.

* ``arms``: champion against the baseline holdback. The part of a decision is drawn with known chances: h to be held
  back, and a that the champion serves it alone *and its exploration leaves its own choice where it was*: the holdback
  does not explore, and an equal champion that does would look worse. With r in [0, 1] and any rhat fixed beforehand,
  x = w h (r - rhat) (1[held]/h - 1[alone, own choice]/a) has mean w h (E[r | held] - E[r | alone, own choice]) given
  the past, whatever users and positions do. Both chances are journaled with every decision, whichever part it drew, so
  the shares may change at any time, and a decision counts or not by its chances (h > 0 and a >= h, so that |x| <= 1)
  and never by its part. w is the influence cap of trials. Inverse propensities with a good rhat waste nothing: the
  variance is that of the scarcer arm, which is the holdback, and what exploration takes from the other is not missed.
* ``pairs``: coin-flip pairs of the champion and the version it replaced, exactly as in a trial with the old one as the
  challenger. A pair tells far more than a decision of either arm, because both stand on one page before one person.

H0: the champion is never worse. A champion may also turn bad later (people change, the attack begins), and evidence
gathered in good times must not have to be paid back: the wealth is spread over starting points, E_t = sum_s q_s
prod_{s<=i<=t} (1 + l x_i) + sum_{s>t} q_s, a mixture of e-processes and so one itself. No decision enters both tests,
so in decision order their product is an e-process too, and sees what neither has proven alone. By Ville, and a union
over the two and their product, a champion that is never worse is rolled back with probability <= alpha in its life.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dayjob.endings import Invalid
from dayjob.gate.confidence import BETS_G, Floats, log_gain, log_mixture
from dayjob.gate.control import Ints
from dayjob.gate.trial import Observations, TrialState, residuals
from dayjob.gate.voices import Voices, weigh

# Half of the wealth is bet from the promotion on. The rest starts later; what is left after t observations is
# half of (1 + t / HORIZON)^-1/2.
_AT_ONCE = 0.5
_HORIZON = 500.0
_TINY = 1e-12  # chances are sums and differences of floats


# One bet for the steering signal: near the best for the harms that are worth watching for.
_RISE_BET = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Onset:
    """Log wealth per bet of everything started so far, and the running maximum of the log e-process.

    ``rise``: evidence gained since it was last at its lowest (CUSUM at one bet). It proves nothing and steers the
    watch's share (``shares``).
    """

    count: int = 0
    log_wealth_G: tuple[float, ...] = (-math.inf,) * BETS_G.size
    log_e: float = 0.0
    peak: float = 0.0
    rise: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Numbers only: wealth not started yet is written as None, JSON has no minus infinity."""
        wealth = [None if math.isinf(w) else w for w in self.log_wealth_G]
        plain = {"count": self.count, "log_e": self.log_e, "peak": self.peak, "rise": self.rise}
        return plain | {"log_wealth_G": wealth}

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
        rise=_rise(state.rise, x_N),
        count=int(count_N[-1]),
        log_wealth_G=tuple(wealth_NG[-1].tolist()),
        log_e=float(log_e_N[-1]),
        peak=max(state.peak, float(log_e_N.max())),
    )


def _rise(before: float, x_N: Floats) -> float:
    """max(0, S + log(1 + l x)), step by step."""
    gained_N = np.cumsum(np.log1p(_RISE_BET * np.clip(x_N, -1.0, 1.0)))
    return float(gained_N[-1] - min(-before, float(gained_N.min())))


@dataclass(frozen=True, slots=True, kw_only=True)
class Arms:
    """N closed decisions of champion and holdback, in order: ``reward_N`` in [0, 1], which of the two, and whose.

    ``held_N`` is the chance that a decision had to be held back, ``alone_N`` that the champion served it alone with its
    own choice first (``evidence.served``), known of each whichever part it drew; ``user_N`` -1 is anonymous.
    """

    reward_N: Floats
    baseline_N: npt.NDArray[np.bool_]
    held_N: Floats
    alone_N: Floats
    user_N: Ints


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WatchState:
    """One champion's watch. ``voices`` counts people for the arms as ``trial`` does for the pairs."""

    arms: Onset = field(default_factory=Onset)
    reward_sum: float = 0.0
    voices: Voices = field(default_factory=Voices)
    trial: TrialState = field(default_factory=TrialState)
    pairs: Onset = field(default_factory=Onset)

    @property
    def seen(self) -> int:
        """Closed decisions that both tests together have seen."""
        return self.arms.count + self.pairs.count

    @property
    def rise(self) -> float:
        """How much evidence of harm has grown lately, in nats, by the pairs: the holdback alone says too little."""
        return self.pairs.rise

    def to_dict(self) -> dict[str, Any]:
        """Numbers and lists of numbers only."""
        plain = {"reward_sum": self.reward_sum, "trial": self.trial.to_dict(), "voices": self.voices.to_dict()}
        return plain | {"arms": self.arms.to_dict(), "pairs": self.pairs.to_dict()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "WatchState":
        """The inverse of :meth:`to_dict`."""
        return cls(
            reward_sum=fields["reward_sum"],
            voices=Voices.from_dict(fields["voices"]),
            trial=TrialState.from_dict(fields["trial"]),
            arms=Onset.from_dict(fields["arms"]),
            pairs=Onset.from_dict(fields["pairs"]),
        )


def observe_arms(state: WatchState, batch: Arms) -> WatchState:
    """The watch after more decisions served by champion or holdback alone."""
    if batch.reward_N.size == 0:
        return state
    voices, weight_N = weigh(state.voices, batch.user_N)
    arms = advance(state.arms, weight_N * contrasts(state, batch))
    return replace(state, arms=arms, voices=voices, reward_sum=state.reward_sum + float(batch.reward_N.sum()))


def contrasts(state: WatchState, batch: Arms) -> Floats:
    """h (r - rhat) (1[held]/h - 1[alone]/a) of each decision, in [-1, 1]; rhat is the mean reward of those before."""
    reward, base = batch.reward_N, batch.baseline_N
    if not ((reward >= 0) & (reward <= 1)).all():
        raise Invalid("scale rewards to [0, 1] by the policy's reward_range first")
    if not ((batch.held_N > 0) & (batch.alone_N >= batch.held_N - _TINY) & (batch.alone_N <= 1)).all():
        raise Invalid("the watch's bets are safe only where the champion alone is at least as likely as the holdback")
    past_sum = state.reward_sum + np.concatenate([[0.0], np.cumsum(reward)[:-1]])
    past_count = state.arms.count + np.arange(reward.size)
    guess = (past_sum + 0.5) / (past_count + 1.0)
    chance = np.where(base, batch.held_N, batch.alone_N)
    found: Floats = batch.held_N * (reward - guess) * np.where(base, 1.0, -1.0) / chance
    return found


def observe_pairs(state: WatchState, batch: Observations) -> WatchState:
    """The watch after more pairs; the *replaced* version is the challenger (+1), the champion is -1."""
    trial, seen = residuals(state.trial, batch)
    return replace(state, trial=trial, pairs=advance(state.pairs, seen.weight_N * seen.low_N))


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
