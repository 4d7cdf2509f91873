"""Intervals and tails used across this folder, without scipy: the core must run where only numpy is."""

from collections.abc import Callable
from math import erfc, exp, lgamma, log, sqrt
from statistics import NormalDist

import numpy as np

from dayjob.signals.clicklog import F64, I64

SERIES_END = 1e-14  # relative size of the term at which the series of the incomplete gamma function stops


def normal_quantile(probability: float) -> float:
    """The standard normal's quantile."""
    return NormalDist().inv_cdf(probability)


def wilson(hits: float, trials: float, *, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided interval of a proportion (Wilson, JASA 1927); (0, 1) without trials. Counts may be weighted ones."""
    if trials == 0:
        return 0.0, 1.0
    z = normal_quantile((1 + confidence) / 2)
    share, shrink = hits / trials, 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / shrink
    half = z * sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / shrink
    return max(0.0, centre - half), min(1.0, centre + half)


def chi_square_tail(value: float, degrees: int) -> float:
    """P(chi-square with ``degrees`` degrees > value)."""
    if value <= 0:
        return 1.0
    if degrees == 1:
        return erfc(sqrt(value / 2))
    return _gamma_tail(degrees / 2, value / 2)


def _gamma_tail(a: float, x: float) -> float:
    """The regularised upper incomplete gamma function: series below a + 1, Lentz's continued fraction above."""
    front = exp(-x + a * log(x) - lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        n = a
        while term > total * SERIES_END:
            n += 1
            term *= x / n
            total += term
        return max(0.0, 1 - front * total)
    tiny = 1e-300
    b = x + 1 - a
    c, d = 1 / tiny, 1 / b
    h = d
    for i in range(1, 10_000):
        an = -i * (i - a)
        b += 2
        d = 1 / (an * d + b or tiny)
        c = b + an / c or tiny
        h *= d * c
        if abs(d * c - 1) < SERIES_END:
            break
    return front * h


def spread(statistic: Callable[[F64], F64], group_B: I64, *, seed: int, draws: int = 200) -> F64:
    """Standard error of ``statistic(weight_B)``, weights from drawing groups with replacement (the bootstrap).

    Groups (users; -1: each decision its own), not decisions, are exchangeable: the clicks of one user are not
    independent.
    """
    rng = np.random.default_rng(seed)
    label = np.where(group_B < 0, group_B.max(initial=-1) + 1 + np.arange(len(group_B)), group_B)
    _, group = np.unique(label, return_inverse=True)
    count = int(group.max(initial=-1)) + 1
    drawn = (np.bincount(rng.integers(count, size=count), minlength=count) for _ in range(draws))
    values = np.stack([statistic(times[group].astype(np.float64)) for times in drawn])
    return np.asarray(np.nanstd(values, axis=0, ddof=1))
