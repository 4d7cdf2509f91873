"""Off-policy estimates: which challenger is worth a trial? They are shown with intervals and never decide.

w = pi_new(a | x) / pi_log(a | x) of the logged action, r the outcome, qhat a reward model and qhat_new its mean over
the new policy's actions:
  IPS     mean(w r)                                           Horvitz & Thompson 1952
  SNIPS   sum(w r) / sum(w)                                   Swaminathan & Joachims 2015
  DM      mean(qhat_new)
  DR      mean(qhat_new + w (r - qhat))                       Dudik, Langford, Li 2011
  SNDR    mean(qhat_new) + sum(w (r - qhat)) / sum(w)
  SWITCH  mean(qhat_new + w 1[w <= tau] (r - qhat))           Wang, Agarwal, Dudik 2017 (doubly robust form), with tau
                                                              of least estimated variance + squared bound of the bias
  affine  mean((c - E beta_k) / E alpha_k)                    Vardasbi, Oosterhuis, de Rijke 2020
All means are over N logged decisions; the same for a ranker's first place and for the slots of a bandit.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from dayjob.endings import Invalid
from dayjob.gate.confidence import Floats

# With fewer weighted outcomes than this, a normal interval for a rate is not to be believed: "cannot tell".
ENOUGH_EVENTS = 10.0
# Weights average 1 when the log could have done all that the new policy does. Further off than this: no support, or one
# giant weight.
MEAN_WEIGHT_SLACK = 0.25


# Thresholds of SWITCH to choose from: so many quantiles of the logged weights, beside 0 (DM) and infinity (DR).
SWITCHES = 21


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The new policy in N decisions: its chance of each of A actions, and that over the log's chance of it (infinite
    where the log had none). Actions that it never takes may be left out: A is 1 where it always takes the same."""

    chance_NA: Floats
    ratio_NA: Floats

    def __post_init__(self) -> None:
        if self.chance_NA.ndim != 2 or self.chance_NA.shape != self.ratio_NA.shape:
            raise Invalid("chance_NA and ratio_NA must be of one shape (decisions, actions)")

    def above(self, threshold: float) -> float:
        """The mean chance of actions whose ratio is above ``threshold``."""
        return float((self.chance_NA * (self.ratio_NA > threshold)).sum(axis=1).mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """N logged decisions. ``q_N``: reward model on the logged action; ``q_new_N``: its mean under the new policy.
    ``target``: what SWITCH needs to know of that policy; without it there is no SWITCH."""

    reward_N: Floats
    weight_N: Floats
    q_N: Floats
    q_new_N: Floats
    target: Target | None = None

    def __post_init__(self) -> None:
        columns = (self.reward_N, self.weight_N, self.q_N, self.q_new_N)
        if len({c.shape for c in columns}) != 1 or self.reward_N.ndim != 1 or self.reward_N.size == 0:
            raise Invalid("reward_N, weight_N, q_N and q_new_N must be one-dimensional, of one length, not empty")
        if not all(np.isfinite(c).all() for c in columns) or self.weight_N.min() < 0:
            raise Invalid("rewards, weights and model values must be finite, weights not negative")
        if self.target is not None and len(self.target.chance_NA) != self.reward_N.size:
            raise Invalid("the target's chances must be of the same decisions: a row for each")


def without_model(reward_N: npt.ArrayLike, weight_N: npt.ArrayLike) -> Logged:
    """Logged decisions with no reward model: qhat = 0, so that DR is IPS."""
    reward = np.asarray(reward_N, dtype=np.float64)
    zero = np.zeros_like(reward)
    return Logged(reward_N=reward, weight_N=np.asarray(weight_N, dtype=np.float64), q_N=zero, q_new_N=zero)


def weights(new_N: npt.ArrayLike, logged_N: npt.ArrayLike) -> Floats:
    """pi_new / pi_log of the logged actions. Raises Invalid when a logged action had no chance of being logged."""
    new, logged = np.asarray(new_N, dtype=np.float64), np.asarray(logged_N, dtype=np.float64)
    if not (np.isfinite(logged).all() and logged.min(initial=1.0) > 0):
        raise Invalid("a logged action needs a known propensity above 0: leave decisions without one out")
    return new / logged


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostics:
    """How far to believe a weighted estimate. ``mean_weight`` should be 1: less means that the log lacks support.

    ``unsupported``: the mean chance that the new policy does what the log could not have done (0 if unknown to the
    caller); ``events``: effective number of non-zero outcomes, (sum w r)^2 / sum (w r)^2.
    """

    decisions: int
    effective: float
    max_weight: float
    mean_weight: float
    unsupported: float
    events: float

    @property
    def told(self) -> bool:
        """Enough weighted outcomes, and weights that average about 1: otherwise "cannot tell"."""
        return self.events >= ENOUGH_EVENTS and abs(self.mean_weight - 1.0) <= MEAN_WEIGHT_SLACK


def diagnose(logged: Logged, *, unsupported_N: npt.ArrayLike | None = None) -> Diagnostics:
    """``unsupported_N``: new policy's total chance of actions with no chance in the log, by decision."""
    w, gain = logged.weight_N, logged.weight_N * logged.reward_N
    return Diagnostics(
        decisions=w.size,
        effective=_effective(w),
        max_weight=float(w.max()),
        mean_weight=float(w.mean()),
        unsupported=0.0 if unsupported_N is None else float(np.mean(np.asarray(unsupported_N, dtype=np.float64))),
        events=_effective(gain),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value with an interval. ``told``: False when there is too little to believe either."""

    name: str
    value: float
    low: float
    high: float
    told: bool


def switch_threshold(logged: Logged, target: Target) -> float:
    """tau of SWITCH by its source (section 4.4): the one of least Var + Bias^2 among ``SWITCHES``, 0 and infinity.

    Var: the variance of the estimate's terms over N. Bias: what the model can be wrong by where it is used alone, at
    most the largest reward of the log times the new policy's chance of an action with a ratio above tau. Of equal ones
    the largest tau, which leaves least to the model.
    """
    w, rest = logged.weight_N, logged.weight_N * (logged.reward_N - logged.q_N)
    largest = float(np.abs(logged.reward_N).max())
    quantiles = np.quantile(w, np.linspace(0.0, 1.0, SWITCHES), method="inverted_cdf")
    best, least = math.inf, math.inf
    for tau in sorted({0.0, math.inf, *map(float, quantiles)}, reverse=True):
        variance = float((logged.q_new_N + rest * (w <= tau)).var()) / w.size
        risk = variance + (largest * target.above(tau)) ** 2
        if risk < least:
            best, least = tau, risk
    return best


def influence(logged: Logged) -> dict[str, tuple[float, Floats]]:
    """name -> (value, terms_N with mean ``value``): per-decision contributions, linearised for the ratios."""
    r, w, q, q_new = logged.reward_N, logged.weight_N, logged.q_N, logged.q_new_N
    plain: dict[str, Floats] = {
        "IPS": w * r,
        "DM": q_new,
        "DR": q_new + w * (r - q),
    }
    if logged.target is not None:
        plain["SWITCH"] = q_new + w * (w <= switch_threshold(logged, logged.target)) * (r - q)
    terms = {name: (float(t.mean()), t) for name, t in plain.items()}
    total = float(w.mean())
    if total > 0.0:
        ratio = float((w * r).mean()) / total
        terms["SNIPS"] = (ratio, ratio + w * (r - ratio) / total)
        rest = float((w * (r - q)).mean()) / total
        terms["SNDR"] = (float(q_new.mean()) + rest, q_new + rest + w * (r - q - rest) / total)
    return terms


def estimates(logged: Logged, *, alpha: float) -> dict[str, Estimate]:
    """Every estimator with a normal interval on its influence terms. DM's covers sampling noise, not model error."""
    told = diagnose(logged).told
    z = NormalDist().inv_cdf(1 - alpha / 2)
    found = {}
    for name, (value, terms) in influence(logged).items():
        wide = z * float(terms.std(ddof=1)) / math.sqrt(terms.size) if terms.size > 1 else math.inf
        found[name] = Estimate(name=name, value=value, low=value - wide, high=value + wide, told=told)
    return found


def bootstrap(
    logged: Logged, *, name: str, alpha: float, rng: np.random.Generator, draws: int = 500
) -> tuple[float, float]:
    """Percentile interval of an estimator over ``draws`` resamples of whole decisions (Poisson weights). SWITCH keeps
    the threshold that all of them chose."""
    switch_at = math.inf if logged.target is None else switch_threshold(logged, logged.target)

    def value(count_N: Floats) -> float:
        r, w, q, q_new = logged.reward_N, logged.weight_N * count_N, logged.q_N, logged.q_new_N
        size = count_N.sum()
        sums = {"IPS": w @ r / size, "DM": count_N @ q_new / size, "DR": (count_N @ q_new + w @ (r - q)) / size}
        sums["SWITCH"] = (count_N @ q_new + (w * (logged.weight_N <= switch_at)) @ (r - q)) / size
        sums["SNIPS"] = w @ r / max(w.sum(), np.finfo(np.float64).tiny)
        sums["SNDR"] = count_N @ q_new / size + w @ (r - q) / max(w.sum(), np.finfo(np.float64).tiny)
        return float(sums[name])

    size = logged.reward_N.size
    values = [value(rng.poisson(1.0, size).astype(np.float64)) for _ in range(draws)]
    low, high = np.quantile(values, [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)


def affine(
    clicked_N: npt.ArrayLike, alpha_N: npt.ArrayLike, *, beta_N: npt.ArrayLike, level: float, top: tuple[float, float]
) -> Estimate:
    """Click chance at position 1 of the new policy's first choices, from where the log happened to show them.

    ``clicked_N``: was that item clicked; ``alpha_N``/``beta_N``: its mean attention and trust under the log's own
    ranking chances (policy-aware), or at the position it had; ``top``: (alpha, beta) of position 1. Unbiased when the
    bias is known; an estimated bias moves the estimate by more than the gaps it is asked about: show it, never decide.
    """
    click, attention, trust = (np.asarray(column, dtype=np.float64) for column in (clicked_N, alpha_N, beta_N))
    if not attention.min() > 0:
        raise Invalid("attention must be above 0 wherever an item was shown: leave the others out")
    terms = top[0] * (click - trust) / attention + top[1]
    wide = NormalDist().inv_cdf(1 - level / 2) * float(terms.std(ddof=1)) / math.sqrt(terms.size)
    value = float(terms.mean())
    told = float(click.sum()) >= ENOUGH_EVENTS
    return Estimate(name="affine", value=value, low=value - wide, high=value + wide, told=told)


def difference(logged: Logged, *, name: str, alpha: float) -> Estimate:
    """New policy's value less the logged one's, on the same decisions: shared noise cancels."""
    value, terms = influence(logged)[name]
    gap = terms - logged.reward_N
    wide = NormalDist().inv_cdf(1 - alpha / 2) * float(gap.std(ddof=1)) / math.sqrt(gap.size)
    middle = value - float(logged.reward_N.mean())
    told = diagnose(logged).told
    return Estimate(name=name, value=middle, low=middle - wide, high=middle + wide, told=told)


def _effective(part_N: Floats) -> float:
    square = float((part_N**2).sum())
    return float(part_N.sum()) ** 2 / square if square > 0.0 else 0.0
