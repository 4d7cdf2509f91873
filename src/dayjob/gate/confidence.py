"""Evidence about the mean of a bounded stream, valid however often somebody looks.

One state, three readings of it:

* ``log_e_up``: log of an e-process against H0 "E[x | past] <= 0 at every observation". A gambler who bets the
  fraction l of their wealth on x multiplies it by 1 + l x; under H0 no strategy is expected to gain, and a mixture
  over l needs no tuning: E_t = sum_g p_g prod_{i<=t} (1 + l_g w_i x_i). Ville: P(sup_t E_t >= 1/a) <= a.
* ``log_e_down``: the same against "E[x | past] >= 0".
* ``interval``: a confidence sequence for the running weighted mean of the conditional means, sum w_i E[x_i | past] /
  sum w_i. Nothing is assumed to be stationary: exp(l sum (y_i - E y_i) - psi(l) sum (y_i - yhat_i)^2) with
  psi(l) = (-log(1 - c l) - c l) / c^2, y = w x and yhat predictable, is a supermartingale (Fan, Grama, Liu 2015;
  Howard, Ramdas, McAuliffe, Sekhon, Annals of Statistics 2021, theorem 4), mixed over l like the bets.

Waudby-Smith & Ramdas (JRSS B 2024) for the bets, Karampatziakis, Mineiro & Ramdas (ICML 2021) for the mixture. Theirs
is a gamma density with a closed form after Fan's bound on the logarithm; a fixed grid of bets keeps the exact wealth,
which is larger, in the same constant memory, and has no special function that could lose precision.

The weight w in [0, 1] of an observation, and any control variate inside x, must be fixed before its outcome is seen.
An observation may be known only to lie between ``low`` and ``high``: "up" then bets on low and "down" on high.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dayjob.endings import Invalid

Floats = npt.NDArray[np.float64]

# Nine octaves of betting fractions, two to the octave. An edge of d with variance v is bet best near l = d / v; the
# grid covers edges from a fifth of a per cent to all, and a neighbour within 2^(1/4) costs under 4 % of the growth.
BETS_G: Floats = 0.98 * 2.0 ** (-np.arange(19) / 2.0)
# Most of the prior sits on bets that suit edges of one to ten points of click probability (a fifth less evidence needed
# there than with a flat prior); a tenth of it is flat, for anything else.
_LIKELY_BET, _LIKELY_SPREAD, _FLAT_SHARE = 0.15, 1.2, 0.1


def _log_prior() -> Floats:
    bell = np.exp(-0.5 * (np.log(BETS_G / _LIKELY_BET) / _LIKELY_SPREAD) ** 2)
    prior: Floats = np.log((1 - _FLAT_SHARE) * bell / bell.sum() + _FLAT_SHARE / BETS_G.size)
    return prior


LOG_PRIOR_G: Floats = _log_prior()

# y - yhat is at least -2 for y in [-1, 1]: the range constant c of the interval's supermartingale.
_RANGE = 2.0
_SLOPES_G: Floats = BETS_G / _RANGE
_PSI_G: Floats = (-np.log1p(-BETS_G) - BETS_G) / _RANGE**2
_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The state. Constant size; ``peak_*`` are running maxima of the log e-processes over every observation."""

    count: int = 0
    weight: float = 0.0
    sum_low: float = 0.0
    sum_high: float = 0.0
    spread_low: float = 0.0
    spread_high: float = 0.0
    log_up_G: tuple[float, ...] = (0.0,) * BETS_G.size
    log_down_G: tuple[float, ...] = (0.0,) * BETS_G.size
    peak_up: float = 0.0
    peak_down: float = 0.0

    @property
    def log_e_up(self) -> float:
        """Log e-value, now, against H0 "the mean is never above zero"."""
        return float(log_mixture(np.asarray(self.log_up_G)))

    @property
    def log_e_down(self) -> float:
        """Log e-value, now, against H0 "the mean is never below zero"."""
        return float(log_mixture(np.asarray(self.log_down_G)))

    @property
    def variance(self) -> float:
        """Weighted spread per observation around the predictable mean; 0 before the first observation."""
        return max(self.spread_low, self.spread_high) / self.count if self.count else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Numbers and lists of numbers only."""
        fields = asdict(self)
        return fields | {"log_up_G": list(self.log_up_G), "log_down_G": list(self.log_down_G)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Evidence":
        """The inverse of :meth:`to_dict`; floats come back bit for bit."""
        if len(fields["log_up_G"]) != BETS_G.size:
            raise Invalid("this evidence was written with another grid of bets: start the trial again")
        return cls(
            **fields | {"log_up_G": tuple(fields["log_up_G"]), "log_down_G": tuple(fields["log_down_G"])},
        )


def log_mixture(log_wealth_G: Floats) -> Floats:
    """log sum_g p_g exp(log_wealth_g) over the last axis."""
    shifted = log_wealth_G + LOG_PRIOR_G
    top = shifted.max(axis=-1, keepdims=True)
    total: Floats = np.log(np.exp(shifted - top).sum(axis=-1)) + top[..., 0]
    return total


def log_gain(x: Floats) -> Floats:
    """log(1 + l x) for every bet: the shape of x with ``_G`` appended. x in [-1, 1]."""
    gain: Floats = np.log1p(x[..., None] * BETS_G)
    return gain


def update(
    state: Evidence, low_N: npt.ArrayLike, *, high_N: npt.ArrayLike | None = None, weight_N: npt.ArrayLike | None = None
) -> Evidence:
    """The evidence after N more observations in [-1, 1], in order; any split into batches gives the same state.

    ``high_N`` defaults to ``low_N`` (a fully known observation), ``weight_N`` to ones.
    """
    low = np.atleast_1d(np.asarray(low_N, dtype=np.float64))
    high = low if high_N is None else np.atleast_1d(np.asarray(high_N, dtype=np.float64))
    weight = np.ones_like(low) if weight_N is None else np.atleast_1d(np.asarray(weight_N, dtype=np.float64))
    _check(low, high, weight)
    if low.size == 0:
        return state
    low, high = np.clip(low, -1.0, 1.0), np.clip(high, -1.0, 1.0)
    weight_after = _accumulate(state.weight, weight)
    sum_low, spread_low = _moments(state.weight, state.sum_low, state.spread_low, (low, weight, weight_after))
    sum_high, spread_high = _moments(state.weight, state.sum_high, state.spread_high, (high, weight, weight_after))
    up_NG = _accumulate(np.asarray(state.log_up_G), log_gain(weight * low))
    down_NG = _accumulate(np.asarray(state.log_down_G), log_gain(-weight * high))
    return Evidence(
        count=state.count + low.size,
        weight=float(weight_after[-1]),
        sum_low=sum_low,
        sum_high=sum_high,
        spread_low=spread_low,
        spread_high=spread_high,
        log_up_G=tuple(up_NG[-1].tolist()),
        log_down_G=tuple(down_NG[-1].tolist()),
        peak_up=max(state.peak_up, float(log_mixture(up_NG).max())),
        peak_down=max(state.peak_down, float(log_mixture(down_NG).max())),
    )


def interval(state: Evidence, *, alpha: float) -> tuple[float, float]:
    """(low, high): with probability >= 1 - alpha, at all times at once, the running weighted mean lies inside."""
    if not 0.0 < alpha < 1.0:
        raise Invalid("alpha must lie strictly between 0 and 1")
    if state.weight <= 0.0:
        return -1.0, 1.0
    below = boundary(state.spread_low, alpha=alpha / 2) / state.weight
    above = boundary(state.spread_high, alpha=alpha / 2) / state.weight
    low = state.sum_low / state.weight - below
    high = state.sum_high / state.weight + above
    return max(-1.0, low), min(1.0, high)


def boundary(spread: float, *, alpha: float) -> float:
    """The u with mixture(u, spread) = 1/alpha: a sum of centred y exceeds it, ever, with probability <= alpha."""
    target = math.log(1.0 / alpha)

    def excess(u: float) -> float:
        return float(log_mixture(_SLOPES_G * u - _PSI_G * spread)) - target

    # One bet alone reaches the target there: log(1/alpha) = log p + slope * u - psi * spread.
    high = float(((target - LOG_PRIOR_G + _PSI_G * spread) / _SLOPES_G).min())
    low = 0.0
    while high - low > _TOLERANCE * (1.0 + high):
        middle = (low + high) / 2
        low, high = (low, middle) if excess(middle) >= 0.0 else (middle, high)
    return high


def _accumulate(start: float | Floats, steps: Floats) -> Floats:
    """Running sums after each step. Summed strictly in order, so that batching changes nothing."""
    head = np.broadcast_to(np.asarray(start, dtype=np.float64), steps.shape[1:])[None]
    total: Floats = np.cumsum(np.concatenate([head, steps]), axis=0)[1:]
    return total


def _moments(
    weight_before: float, sum_before: float, spread_before: float, step: tuple[Floats, Floats, Floats]
) -> tuple[float, float]:
    """(sum w x, sum (w (x - xhat))^2) with xhat the shrunk mean of what came before each observation."""
    x, weight, weight_after = step
    sums = _accumulate(sum_before, weight * x)
    past_sum = np.concatenate([[sum_before], sums[:-1]])
    past_weight = np.concatenate([[weight_before], weight_after[:-1]])
    guess = past_sum / (past_weight + 1.0)
    spread = _accumulate(spread_before, (weight * (x - guess)) ** 2)
    return float(sums[-1]), float(spread[-1])


def _check(low: Floats, high: Floats, weight: Floats) -> None:
    if not low.shape == high.shape == weight.shape or low.ndim != 1:
        raise Invalid("low_N, high_N and weight_N must be one-dimensional and of one length")
    if low.size == 0:
        return
    if not (np.isfinite(low).all() and np.isfinite(high).all() and np.isfinite(weight).all()):
        raise Invalid("observations and weights must be finite numbers")
    if low.min() < -1.0 - _TOLERANCE or high.max() > 1.0 + _TOLERANCE or bool((low > high + _TOLERANCE).any()):
        raise Invalid("observations must satisfy -1 <= low <= high <= 1: divide by their bound first")
    if weight.min() < 0.0 or weight.max() > 1.0 + _TOLERANCE:
        raise Invalid("weights must lie in [0, 1]")
