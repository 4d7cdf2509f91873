"""An upper bound on how often a position is clicked whatever stands there, from decisions before the trial.

With P(click at k | item d) = alpha_k g_d + beta_k and g_d >= 0, the click rate at k over *any* set of items chosen
before the clicks is at least beta_k. The set of the least plausible items keeps alpha_k g_d small, so that its rate is
a sharp bound; an upper confidence limit (Chernoff, by the binomial's Kullback-Leibler divergence) covers the noise:
n kl(rate, bound) = log(K / level). Assumed: the pull of a position does not depend on the item, and did not grow since.

Where the places below the pair are shuffled uniformly, only their total pull B matters, and every decision speaks: each
of the m items there is clicked with chance at least B / m, the least plausible one too (``rest_bound``).
"""

import math

import numpy as np
import numpy.typing as npt

from dayjob.endings import Invalid
from dayjob.gate.confidence import Floats
from dayjob.gate.control import Ints

_HALVINGS = 60


def least_plausible(score_NK: npt.ArrayLike, *, share: float = 0.25) -> npt.NDArray[np.bool_]:
    """For each position, the ``share`` of decisions whose item there has the lowest score (nan: no item there).

    ``score_NK``: the served policy's belief in the item at each position, comparable between decisions: chances or
    gaps to the best of the list, not raw scores of unknown scale.
    """
    score = np.asarray(score_NK, dtype=np.float64)
    if not 0.0 < share <= 1.0 or score.ndim != 2:
        raise Invalid("score_NK must have two dimensions and share lie in (0, 1]")
    filled = np.where(np.isnan(score), np.inf, score)
    limit_K = np.quantile(filled, share, axis=0, method="lower")
    chosen: npt.NDArray[np.bool_] = (filled <= limit_K) & np.isfinite(filled)
    return chosen


def pull_bound(clicked_N: Ints, chosen_NK: npt.NDArray[np.bool_], *, level: float) -> Floats:
    """(K,) bounds, all correct together with probability >= 1 - level; 1 where no decision was chosen.

    ``clicked_N``: 0-based position clicked, -1 none. ``chosen_NK``: which decisions speak for which position.
    """
    if not 0.0 < level < 1.0 or chosen_NK.ndim != 2 or clicked_N.shape != chosen_NK.shape[:1]:
        raise Invalid("level must lie in (0, 1), and clicked_N match the rows of chosen_NK")
    positions = chosen_NK.shape[1]
    count_K = chosen_NK.sum(axis=0)
    hit_K = (chosen_NK & (clicked_N[:, None] == np.arange(positions))).sum(axis=0)
    return upper_rate(hit_K, count_K, level=level / positions)


def rest_bound(hits: int, decisions: int, *, rest: int, level: float) -> float:
    """Upper bound on the total pull of ``rest`` shuffled places, correct with probability >= 1 - level.

    ``hits``: clicks on the item that, before the shuffle, was the least plausible of those ``rest`` in its decision.
    """
    if rest < 1 or not 0 <= hits <= decisions:
        raise Invalid("rest must be at least 1, and hits at most the decisions")
    rate = upper_rate(np.array([hits]), np.array([decisions]), level=level)
    return min(1.0, rest * float(rate[0]))


def upper_rate(hit_K: Ints, count_K: Ints, *, level: float) -> Floats:
    """Chernoff upper limits of rates, each at ``level``; 1 where nothing was counted."""
    if not 0.0 < level < 1.0:
        raise Invalid("level must lie in (0, 1)")
    rate_K = hit_K / np.maximum(count_K, 1)
    budget_K = math.log(1.0 / level) / np.maximum(count_K, 1)
    low_K, high_K = rate_K.astype(np.float64), np.ones(rate_K.shape)
    for _ in range(_HALVINGS):
        middle_K = (low_K + high_K) / 2
        inside_K = _divergence(rate_K, middle_K) <= budget_K
        low_K, high_K = np.where(inside_K, middle_K, low_K), np.where(inside_K, high_K, middle_K)
    bound_K: Floats = np.where(count_K > 0, high_K, 1.0)
    return bound_K


def _divergence(p_K: Floats, q_K: Floats) -> Floats:
    """Kullback-Leibler divergence of Bernoulli(p) from Bernoulli(q), 0 log 0 = 0; infinite at q = 1 > p."""
    with np.errstate(divide="ignore", invalid="ignore"):
        hit = np.where(p_K > 0, p_K * np.log(p_K / q_K), 0.0)
        miss = np.where(p_K < 1, (1 - p_K) * np.log((1 - p_K) / (1 - q_K)), 0.0)
    total: Floats = hit + miss
    return total
