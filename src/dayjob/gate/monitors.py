"""Alarms beside the gate. They explain, block and call for a look; none of them ever promotes.

* ``exposure``: does one item take the page (Gini coefficient, top share)?
* ``proxy_against_truth``: the reward rises while the truth falls: the policy games its reward.
* ``not_learning``: the reward looks high, yet the policy hardly moved and nothing was gained by moving.

Where windows are compared, the test is Welch's on means of bounded numbers (a normal approximation, which windows of at
least ``SMALLEST_WINDOW`` keep good). Drift has a module of its own.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from dayjob.endings import FeedbackState, Invalid

SMALLEST_WINDOW = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """How first places (or any exposure) are shared among items: ``gini`` 0 equal, near 1 one takes all."""

    gini: float
    top_share: float
    top_item: int
    effective_items: float


def exposure(count_V: npt.ArrayLike) -> Exposure:
    """``count_V``: exposure of each of V items, items never shown included as zeros.

    Gini = (2 sum_i i c_(i)) / (V sum c) - (V + 1) / V over ascending c; effective items = exp(entropy of the shares).
    """
    count = np.asarray(count_V, dtype=np.float64)
    if count.size == 0 or count.min() < 0 or count.sum() <= 0:
        raise Invalid("exposure needs at least one item shown, and no negative counts")
    size, total = count.size, count.sum()
    gini = 2.0 * float(np.arange(1, size + 1) @ np.sort(count)) / (size * total) - (size + 1) / size
    share = count / total
    seen = share[share > 0]
    return Exposure(
        gini=gini,
        top_share=float(share.max()),
        top_item=int(share.argmax()),
        effective_items=float(np.exp(-(seen * np.log(seen)).sum())),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Mean after less mean before, with an interval; ``moved`` when the interval leaves zero out."""

    change: float
    low: float
    high: float

    @property
    def moved(self) -> bool:
        """The interval does not contain zero."""
        return self.low > 0.0 or self.high < 0.0


def compare(before_N: npt.ArrayLike, after_N: npt.ArrayLike, *, alpha: float) -> Change:
    """Welch's interval for the change of a mean."""
    before, after = (np.asarray(sample, dtype=np.float64) for sample in (before_N, after_N))
    if min(before.size, after.size) < SMALLEST_WINDOW:
        raise Invalid(f"a window needs at least {SMALLEST_WINDOW} observations")
    change = float(after.mean() - before.mean())
    # A sample that never varied is not proof of no variance: one more observation at the other end is imagined.
    error = math.sqrt(sum(float(s.var(ddof=1)) / s.size + 1.0 / s.size**2 for s in (before, after)))
    wide = NormalDist().inv_cdf(1 - alpha / 2) * error
    return Change(change=change, low=change - wide, high=change + wide)


def look_level(alpha: float, look: int) -> float:
    """The level of the look-th look, counted from 1; all of them sum to alpha."""
    return 6.0 * alpha / (math.pi**2 * look**2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """One monitor's word. ``reason`` says what was seen, whether it fires or not."""

    fires: bool
    reason: str


def proxy_against_truth(
    reward: tuple[npt.ArrayLike, npt.ArrayLike], truth: tuple[npt.ArrayLike, npt.ArrayLike], *, alpha: float
) -> Alarm:
    """(before, after) samples of the reward that is learned from, and of the truth; both on scales of about 1."""
    proxy, gold = compare(*reward, alpha=alpha / 2), compare(*truth, alpha=alpha / 2)
    fires = proxy.low > 0.0 and gold.high < 0.0
    told = f"reward {proxy.change:+.3f} ({proxy.low:+.3f} to {proxy.high:+.3f}), truth {gold.change:+.3f} "
    told += f"({gold.low:+.3f} to {gold.high:+.3f})"
    if fires:
        return Alarm(fires=True, reason=f"The reward rose while the truth fell: {told}. The policy games its reward.")
    return Alarm(fires=False, reason=f"No gap between reward and truth is shown: {told}.")


HIGH_REWARD = 0.5  # a reward that looks like success
STILL_NATS = 0.01  # a policy that moved by less per decision still answers as before


def not_learning(*, kl: float, reward: float, gain: Change, feedback: FeedbackState | None = None) -> Alarm:
    """The Geospot story: reward high, KL under .01, nothing gained, and nobody noticed.

    ``kl``: nats per decision between what serves and the baseline (or the averaged policy); ``reward`` in [0, 1];
    ``gain``: reward now less reward at the start. Standing still on informative ``feedback`` is waiting for a verdict;
    on any other, or where nobody asked what the feedback can teach, it is the published failure.
    """
    if kl < 0.0 or not math.isfinite(kl):
        raise Invalid("a KL divergence is finite and not negative")
    told = f"reward {reward:.2f}, gained {gain.change:+.3f} ({gain.low:+.3f} to {gain.high:+.3f}), moved {kl:.4f} nats"
    if gain.low > 0.0 and kl >= STILL_NATS:
        return Alarm(fires=False, reason=f"The reward rose: {told}.")
    if gain.low > 0.0:
        why = "the lists or the people changed, not what serves"
        return Alarm(fires=False, reason=f"The reward rose while the policy stood still, so {why} ({told}).")
    if kl >= STILL_NATS:
        return Alarm(fires=False, reason=f"The policy moved and no gain is shown yet ({told}).")
    if feedback is FeedbackState.INFORMATIVE:
        return Alarm(fires=False, reason=f"Nothing moved yet; the feedback can teach ({told}).")
    if reward < HIGH_REWARD:
        return Alarm(fires=False, reason=f"Nothing moved and nothing was gained ({told}).")
    praise = "The reward looks high, but it did before: "
    return Alarm(fires=True, reason=f"{praise}nothing moved and nothing was gained ({told}).")
