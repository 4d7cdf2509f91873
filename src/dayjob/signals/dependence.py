"""Do clicks depend on the items, given the position? The permutation test, and how large the dependence could be.

A user who clicks a position whatever stands there clicks independently of the items, given the position; so within a
short stretch of decisions, exchanging the lists between clicks of position-only users changes nothing. Let f(b, k) be a
column known before the click (the policy's score in units of its spread within lists, crowding, "this is the policy's
first choice", which exploration moves about), f~ its deviation from the mean at that position within a block of
consecutive decisions, q_k the share of clicks at k and w_k = 1 / max(q_k, floor), scaled to mean 1 over clicks. Then

    U = sum_b w_{c_b} f~(b, c_b),  E U = 0 under any position-only pattern, also one that drifts from block to block,
    Cov U = sum over blocks of sum_ij d(i, c_j) d(i, c_j)' / (n - 1),  d = w f~ centred by rows and columns

(Hoeffding, Ann. Math. Statist. 1951). The weights make clicks at rarely clicked positions count: that is where a few
people who look stand out (locally most powerful for a small share of lookers). With w = 1 the test serves honest users.
With the single column f = "how probably somebody who looks would choose this item", learned by a mixture on earlier
decisions (``looker_test``), it is one-sided, and by far the sharpest of the three where few look.

If a share phi of clicks is by people who look, and the columns move their log odds by s (a vector) per unit, then to
first order E U = phi A s with A = sum_b sum_k w_k f~(b, k) f~(b, k)' / K. So the log bounds phi s, and phi only for an
assumed length of s. Position 1 bounds phi without any column: lookers do not click it when an item drawn uniformly
stands there, but for one time in K, and leave even the policy's choice at least a little.
"""

from dataclasses import dataclass
from math import erfc, sqrt

import numpy as np

from dayjob.signals.clicklog import F64, FILLER, I64, Bool, ClickLog
from dayjob.signals.features import CONSTANT, looker_choice, reputation, softmax, standardise
from dayjob.signals.intervals import chi_square_tail

SHARES = 400  # grid of shares over which the likelihood is integrated
DIRECTIONS = 256  # of a response in two or more columns
SAME_COLUMN = 1e-6  # columns whose correlation leaves less than this of an eigenvalue say the same
LOG_LARGEST = 500.0
SLOPES = (1.0, 2.0)  # log odds per unit of the policy's score of somebody who follows it
MIDDLE = 0.5  # rewards below it are blame
MOST_LOOKED = 0.95  # of the clicks at a position
FIRST_CHOICE = 1  # the column of the policy's first choice


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependence:
    """The permutation test of one weighting: U_F and Cov_FF as above, ``scale`` = A, of one unit of response, per
    column.
    """

    statistic_F: F64
    covariance_FF: F64
    scale_FF: F64

    @property
    def p_value(self) -> float:
        """Chi-square of U' Cov^-1 U; 1 when no column varies."""
        value, rank = _quadratic(self.statistic_F, self.covariance_FF)
        return chi_square_tail(value, rank) if rank else 1.0

    @property
    def one_sided(self) -> float:
        """Standard errors of the first column's statistic above nothing; 0 when it never varies."""
        size = float(np.sqrt(max(self.covariance_FF[0, 0], 0.0)))
        return float(self.statistic_F[0]) / size if size > CONSTANT else 0.0

    def likelihood(self, share_S: F64, *, response: float, bounding_F: Bool) -> F64:
        """Relative likelihood of each share of lookers whose response has that length and any direction; 1 at share 0.

        Gaussian in the estimated effects U / A, averaged over directions among the ``bounding_F`` columns; all 1 when
        none of them varies.
        """
        size_F = np.sqrt(np.maximum(np.diag(self.covariance_FF), 0.0))
        live = (np.diag(self.scale_FF) > CONSTANT) & (size_F > CONSTANT) & bounding_F
        if not live.any():
            return np.ones(len(share_S))
        correlation = self.covariance_FF[np.ix_(live, live)] / np.outer(size_F[live], size_F[live])
        precision = np.linalg.pinv(correlation, hermitian=True, rcond=SAME_COLUMN)
        mean_DF = response * directions(int(live.sum())) @ self.scale_FF[np.ix_(live, live)] / size_F[live]
        linear_D = mean_DF @ precision @ (self.statistic_F[live] / size_F[live])
        square_D = np.einsum("df,fg,dg->d", mean_DF, precision, mean_DF)
        log_SD = share_S[:, None] * linear_D - share_S[:, None] ** 2 * square_D / 2
        return np.asarray(np.exp(np.minimum(log_SD, LOG_LARGEST)).mean(axis=1))


def columns(log: ClickLog, learned_BK: F64 | None = None) -> F64:
    """(B, K, F) the standardised columns of the test: score, first choice, reputation, features, learned score."""
    first_BK = np.where(log.changed_B.any(), (log.item_BK == log.first_B[:, None]) & log.shown_BK, 0).astype(np.float64)
    parts = [log.score_BK[..., None], first_BK[..., None], reputation(log)[..., None], log.feature_BKF]
    if learned_BK is not None:
        parts.append(learned_BK[..., None])
    return standardise(np.concatenate(parts, axis=2), log.shown_BK)


def dependence(log: ClickLog, columns_BKF: F64, *, block: int, floor: float | None) -> Dependence:
    """The permutation test over blocks of ``block`` consecutive decisions, among decisions with a click.

    ``floor``: of q_k times K in the weights (no click weighs more than 1 / floor average ones); None: all weigh alike.
    """
    with_click = np.flatnonzero(log.click_B >= 0)
    click_B, x_BKF, shown_BK = log.click_B[with_click], columns_BKF[with_click], log.shown_BK[with_click]
    width, count = log.width, columns_BKF.shape[2]
    q_K = (np.bincount(click_B, minlength=width) + 1) / (len(click_B) + width)
    weight_K = 1 / np.maximum(q_K, floor / width) if floor is not None else np.ones(width)
    weight_K = weight_K / float(weight_K @ q_K)
    u_F, v_FF, a_FF = np.zeros(count), np.zeros((count, count)), np.zeros((count, count))
    for start in range(0, len(click_B), block):
        rows = slice(start, start + block)
        if len(click_B[rows]) < 2:
            break
        part = _block(x_BKF[rows], click_B[rows], shown_BK[rows], weight_K)
        u_F, v_FF = u_F + part.statistic_F, v_FF + part.covariance_FF
        a_FF = a_FF + part.scale_FF
    return Dependence(statistic_F=u_F, covariance_FF=v_FF, scale_FF=a_FF)


def _block(x_BKF: F64, click_B: I64, shown_BK: Bool, weight_K: F64) -> Dependence:
    n, width = shown_BK.shape
    lists_K1 = np.maximum(shown_BK.sum(axis=0), 1)[:, None]
    centred = np.where(shown_BK[..., None], x_BKF - (x_BKF * shown_BK[..., None]).sum(axis=0) / lists_K1, 0.0)
    d = centred * weight_K[:, None]
    label_K = np.bincount(click_B, minlength=width) / n
    row_B1F = np.einsum("k,bkf->bf", label_K, d)[:, None, :]
    residual = d - row_B1F
    own = residual[np.arange(n), click_B]
    spread = np.einsum("k,bkf,bkg->fg", label_K * n, residual, residual) / (n - 1)
    scale = np.einsum("k,bkf,bkg->fg", weight_K, centred, centred) / width
    return Dependence(statistic_F=own.sum(axis=0), covariance_FF=spread, scale_FF=scale)


def reward_dependence(log: ClickLog, columns_BKF: F64, *, block: int) -> Dependence:
    """The permutation test of rewards: exchanged within a block, do they follow the columns of what they speak of?

    That is the clicked item, else the first. Columns are taken off their mean at the position within the block.
    """
    use = np.flatnonzero(np.isfinite(log.reward_B))
    at_B, count = np.maximum(log.click_B[use], 0), columns_BKF.shape[2]
    u_F, v_FF, a_FF = np.zeros(count), np.zeros((count, count)), np.zeros((count, count))
    for start in range(0, len(use), block):
        rows, at = use[start : start + block], at_B[start : start + block]
        if len(rows) < 2:
            break
        x_BF, shown_B1 = columns_BKF[rows, at], np.bincount(at, minlength=log.width)[at][:, None]
        mean_KF = np.stack([np.bincount(at, weights=x_B, minlength=log.width) for x_B in x_BF.T], axis=1)
        x_BF = x_BF - mean_KF[at] / shown_B1
        reward_B = log.reward_B[rows] - log.reward_B[rows].mean()
        u_F, square_FF = u_F + reward_B @ x_BF, x_BF.T @ x_BF
        v_FF, a_FF = v_FF + reward_B.var(ddof=1) * square_FF, a_FF + square_FF
    return Dependence(statistic_F=u_F, covariance_FF=v_FF, scale_FF=a_FF)


def reward_contrast(log: ClickLog) -> tuple[float, float]:
    """(mean reward with the policy's first choice on top less that with another there, p-value of no difference)."""
    known = np.isfinite(log.reward_B) & (log.first_B != FILLER)
    own, other = log.reward_B[known & ~log.changed_B], log.reward_B[known & log.changed_B]
    if min(len(own), len(other)) < 2:
        return float("nan"), 1.0
    difference = float(own.mean() - other.mean())
    pooled = float(np.concatenate([own, other]).var()) * (1 / len(own) + 1 / len(other))
    return difference, erfc(abs(difference) / sqrt(2 * pooled)) if pooled > CONSTANT else 1.0


def looker_test(log: ClickLog, columns_BKF: F64, *, block: int, floor: float) -> float:
    """Standard errors by which clicked items were likelier choices of somebody who looks (``features.looker_choice``)
    than the items at the same positions nearby; 0 where no column says anything.

    Near the best that columns allow: in the mixture (1 - f) q_k + f p_k(x), the score of f at 0 is p / q.
    """
    live_F = (np.arange(columns_BKF.shape[2]) != FIRST_CHOICE) & columns_BKF.any(axis=(0, 1))
    if not live_F.any():
        return 0.0
    choice_BK = looker_choice(columns_BKF[..., live_F], log.click_B, shown_BK=log.shown_BK)
    return dependence(log, choice_BK[..., None], block=block, floor=floor).one_sided


def share_odds(log: ClickLog, score_BK: F64, *, share: float, leave: float, block: int) -> float:
    """Log of the odds that ``share`` of the clicks, rather than none, are by people who look and follow the score.

    They choose by softmax(slope · score) with a slope of one of ``SLOPES`` (even odds), so they make m_k = mean p_k of
    the clicks at k: psi_k = share m_k / q_k of those there, each with likelihood ratio 1 + psi_k (p_k(x) / mean p_k
    - 1) given its position, means within the block. Position 1 adds what it says by itself (``_by_position``).
    """
    use = np.flatnonzero(log.click_B >= 0)
    click_B, shown_BK = log.click_B[use], log.shown_BK[use]
    q_K = (np.bincount(click_B, minlength=log.width) + 0.5) / (len(click_B) + 0.5 * log.width)
    ratio_S = np.zeros(len(SLOPES))
    for i, slope in enumerate(SLOPES):
        p_BK = softmax(slope * score_BK[use], shown_BK)
        psi_K = np.minimum(MOST_LOOKED, share * p_BK.mean(axis=0) / q_K)
        for start in range(0, len(use), block):
            rows = slice(start, start + block)
            own_B = p_BK[rows][np.arange(len(click_B[rows])), click_B[rows]]
            mean_B = np.maximum(p_BK[rows].mean(axis=0), CONSTANT)[click_B[rows]]
            ratio_S[i] += np.log1p(psi_K[click_B[rows]] * (own_B / mean_B - 1)).sum()
    at_first = np.log(np.maximum(_by_position(log, np.array([0.0, share]), leave)[1], CONSTANT))
    return float(np.logaddexp.reduce(ratio_S) - np.log(len(SLOPES)) + at_first)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """Clicks at position 1: share with the policy's first choice there, share with another, and the test of no
    difference.
    """

    best_clicks: int
    best_shown: int
    other_clicks: int
    other_shown: int

    @property
    def difference(self) -> float:
        """P(click at 1 | the policy's first choice is there) - P(click at 1 | exploration put another there)."""
        if min(self.best_shown, self.other_shown) == 0:
            return float("nan")
        return self.best_clicks / self.best_shown - self.other_clicks / self.other_shown

    @property
    def p_value(self) -> float:
        """Two-sided, two proportions, pooled."""
        if min(self.best_shown, self.other_shown) == 0:
            return 1.0
        pooled = (self.best_clicks + self.other_clicks) / (self.best_shown + self.other_shown)
        variance = pooled * (1 - pooled) * (1 / self.best_shown + 1 / self.other_shown)
        return erfc(abs(self.difference) / sqrt(2 * variance)) if variance > 0 else 1.0


def first_place_contrast(log: ClickLog) -> Contrast:
    """The contrast over decisions with a click and a known first choice."""
    use = (log.click_B >= 0) & (log.first_B >= 0)
    top, changed = log.click_B == 0, log.changed_B
    return Contrast(
        best_clicks=int((use & ~changed & top).sum()),
        best_shown=int((use & ~changed).sum()),
        other_clicks=int((use & changed & top).sum()),
        other_shown=int((use & changed).sum()),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """What the log says of the share of lookers: ``upper`` 95 % of a flat prior's posterior; the doubts as
    configured.
    """

    upper: float
    doubt: float
    strict_doubt: float


def shares(
    log: ClickLog, tail: Dependence, *, bounding_F: Bool, least: float, response: float, leave: float
) -> Shares | None:
    """The posterior; None when neither the columns nor position 1 can tell one share from another."""
    share_S = np.linspace(0.0, 1.0, SHARES + 1)
    likelihood_S = tail.likelihood(share_S, response=response, bounding_F=bounding_F)
    return _posterior(share_S, likelihood_S * _by_position(log, share_S, leave), least=least)


def reward_shares(
    log: ClickLog, test: Dependence, *, bounding_F: Bool, least: float, response: float, leave: float
) -> Shares | None:
    """The same for rewards. People who look give less than half of the range but one time in K when another item than
    the policy's choice was drawn for the first place, and at least ``leave`` of the time for the policy's choice.

    ``response``: by how much a unit of the columns moves the reward of somebody who looks.
    """
    share_S = np.linspace(0.0, 1.0, SHARES + 1)
    likelihood_S = test.likelihood(share_S, response=response, bounding_F=bounding_F)
    known = np.isfinite(log.reward_B) & (log.first_B != FILLER)
    rate = {True: share_S * (1 - 1 / max(log.width, 2)), False: share_S * leave}
    for changed, least_S in rate.items():
        low_B = log.reward_B[known & (log.changed_B == changed)] < MIDDLE
        likelihood_S = likelihood_S * np.exp(_at_least(len(low_B), int(low_B.sum()), least_S))
    return _posterior(share_S, likelihood_S, least=least)


def _posterior(share_S: F64, likelihood_S: F64, *, least: float) -> Shares | None:
    if np.ptp(likelihood_S) <= CONSTANT:
        return None
    above = likelihood_S[share_S >= least].mean()
    exactly = np.interp(least, share_S, likelihood_S)
    cumulative_S = np.cumsum(likelihood_S) / likelihood_S.sum()
    return Shares(
        upper=float(share_S[np.searchsorted(cumulative_S, 0.95)]),
        doubt=float(above / (above + likelihood_S[0])),
        strict_doubt=float(exactly / (exactly + likelihood_S[0])),
    )


def _by_position(log: ClickLog, share_S: F64, leave: float) -> F64:
    """Lookers leave position 1 but for one time in K when another item than the policy's choice was drawn for it, and
    at least ``leave`` of the time when the policy's choice stands there.

    Profile likelihood, 1 at share 0, of the clicks elsewhere in lists of both kinds: P(elsewhere) >= share times that.
    """
    clicked = log.click_B >= 0
    if log.width < 2:
        return np.ones(len(share_S))
    changed = clicked & log.changed_B
    unchanged = clicked & (log.first_B != FILLER) & ~log.changed_B
    below_B = log.click_B > 0
    log_S = _at_least(int(changed.sum()), int((changed & below_B).sum()), share_S * (1 - 1 / log.width))
    log_S = log_S + _at_least(int(unchanged.sum()), int((unchanged & below_B).sum()), share_S * leave)
    return np.asarray(np.exp(log_S))


def _at_least(n: int, x: int, rate_S: F64) -> F64:
    """Profile log-likelihood, 0 at rate 0, of ``x`` of ``n`` that happened at a rate of at least ``rate_S``."""
    if n == 0:
        return np.zeros(len(rate_S))
    p_S = np.clip(np.maximum(x / n, rate_S), 0.0, 1 - CONSTANT)
    log_S = (n - x) * np.log1p(-p_S) + (x * np.log(p_S) if x else 0.0)
    return np.asarray(log_S - log_S[0])


def directions(count: int) -> F64:
    """Unit vectors that cover all directions of ``count`` columns evenly, the same at every call: (D, count)."""
    if count == 1:
        return np.array([[1.0], [-1.0]])
    if count == 2:
        angle = np.linspace(0, 2 * np.pi, DIRECTIONS, endpoint=False)
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)
    normal = np.random.default_rng(0).standard_normal((DIRECTIONS // 2, count))
    unit = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    return np.concatenate([unit, -unit])


def _quadratic(u_F: F64, v_FF: F64) -> tuple[float, int]:
    """(u' v^+ u, rank of v), by eigenvalues: columns that say the same are counted once."""
    if len(u_F) == 0:
        return 0.0, 0
    size_F = np.sqrt(np.maximum(np.diag(v_FF), 0.0))
    live = size_F > CONSTANT
    if not live.any():
        return 0.0, 0
    correlation = v_FF[np.ix_(live, live)] / np.outer(size_F[live], size_F[live])
    value, vector = np.linalg.eigh(correlation)
    keep = value > SAME_COLUMN * value[-1]
    along = vector[:, keep].T @ (u_F[live] / size_F[live])
    return float((along**2 / value[keep]).sum()), int(keep.sum())
