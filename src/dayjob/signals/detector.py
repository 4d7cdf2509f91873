"""Can these clicks teach anything beyond position?

**The question.** A user who clicks a position whatever stands there clicks independently of the items, given the
position; so within a short stretch of decisions, exchanging the lists between clicks of position-only users changes
nothing. The test is that permutation test, in closed form. Let f(b, k) be a column known before the click (the
policy's score in units of its spread within lists, crowding, "this is the policy's first choice", which exploration moves about), f~ its deviation from the
mean at that position within a block of consecutive decisions, q_k the share of clicks at k and w_k = 1 / max(q_k,
floor) scaled to mean 1 over clicks. Then

    U = sum_b w_{c_b} f~(b, c_b),    E U = 0 under *any* position-only pattern, also one that drifts from block to
    block, Cov U = sum over blocks of sum_ij d(i, c_j) d(i, c_j)' / (n - 1),   d = w f~ centred by rows and columns

(Hoeffding, Ann. Math. Statist. 1951). The weights w make clicks at rarely clicked positions count: that is where a few
people who look stand out (the locally most powerful weights for a small share of lookers). A second statistic with w
= 1 serves honest users, and a third conditions on the randomisation alone: clicks at position 1 when exploration
changed the first choice against when it did not.

**The share.** If a share phi of clicks is by people who look, and a column moves their log odds by s per unit, then
E U_F = phi s A with A = sum_b sum_k w_k f~(b, k)^2 / K, to first order. So the log bounds phi s, and phi only for an
assumed s: ``DetectorConfig.response``, stated in every reason. Separately, position 1 bounds phi without any column:
lookers do not click it when an item drawn uniformly stands there, but for one time in K.

**States.** *informative*: a test rejects. *uninformative*: none does, and phi is below ``share`` by one of the bounds.
*unidentifiable*: nothing was randomised and nothing rejects, or no column can tell. *too_few*: else, with ``needed``.
Lists of users whose own habits go with the kind of list they see (position-only, but each in his way) can look
informative: the gate's coin flips, not this test, protect a promotion from that.
"""

from dataclasses import dataclass
from math import ceil, erfc, sqrt

import numpy as np

from dayjob.endings import FeedbackState
from dayjob.signals.clicklog import F64, I64, Bool, ClickLog
from dayjob.signals.features import CONSTANT, standardise
from dayjob.signals.intervals import chi_square_tail, normal_quantile, wilson


SHARES = 400  # grid of shares over which the likelihood is integrated
DIRECTIONS = 256  # of a response in three or more columns
SAME_COLUMN = 1e-6  # columns whose correlation leaves less than this of an eigenvalue say the same
LOG_LARGEST = 500.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorConfig:
    """The detector's few dials."""

    minimum: int = 200  # clicks below which nothing is said
    settled: int = 1000  # clicks below which nothing is called uninformative
    block: int = 250  # decisions within which a position-only pattern may be taken as constant
    level: float = 0.01  # of the tests together, at one look
    share: float = 0.05  # below this share of informative clicks the log is called uninformative
    doubt: float = 0.25  # uninformative: less probability of that share or more, at even odds of none or any from it to all
    strict_doubt: float = 0.10  # of exactly that share against none, where clicks below position 1 are few
    suspicion: float = 0.10  # where they are few, nothing below this p-value is called uninformative
    response: float = 0.5  # log odds per unit of the columns (root of the sum of squares) of somebody who looks
    minimum_changed: int = 20  # decisions with a changed first choice without which nothing is called uninformative
    few_tail: int = 300  # clicks below position 1 that are few: their cause stays open where they are spread evenly
    weight_floor: float = 0.02  # of q_k times K: no click weighs more than 50 times an average one


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """What a policy's clicks can teach: the report's ``feedback``.

    ``share_at`` is the share of clicks at each position; ``informative_share`` the upper bound of the share of clicks
    that depend on the item (nan when nothing bounds it); ``p_value`` of the hypothesis that only the position matters.
    """

    state: FeedbackState
    reason: str
    share_at: tuple[float, ...]
    needed: int | None
    informative_share: float
    p_value: float
    clicks: int
    changed: int


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


def feedback(log: ClickLog, config: DetectorConfig | None = None, *, learned_BK: F64 | None = None) -> Feedback:
    """What the clicks of ``log`` can teach beyond position.

    ``learned_BK``: the score that something trained on earlier clicks alone gives each item
    (``features.learned_score``, or a version that had not seen these decisions). Without it, clicks that are spread
    evenly stay an open question. Columns: the score, the policy's first choice, the features of the log, the learned
    score.
    """
    config = config or DetectorConfig()
    click_B = log.click_B
    clicks, changed = int((click_B >= 0).sum()), int((log.changed_B & (click_B >= 0)).sum())
    share_at = np.bincount(click_B[click_B >= 0], minlength=log.width) / max(clicks, 1)
    base = _Facts(clicks=clicks, changed=changed, share_at=share_at)
    if clicks < config.minimum:
        return _say(
            base,
            FeedbackState.TOO_FEW,
            f"{clicks} clicks; nothing is said below {config.minimum}.",
            needed=config.minimum,
        )
    columns_BKF = columns(log, learned_BK)
    tail, plain = (dependence(log, columns_BKF, config, weighted=w) for w in (True, False))
    moved = first_place_contrast(log)
    base = _Facts(
        clicks=clicks,
        changed=changed,
        share_at=share_at,
        p_value=min(1.0, 3 * min(tail.p_value, plain.p_value, moved.p_value)),
        shares=_shares(log, tail, ~_first_choice(columns_BKF), config),
        learned=learned_BK is not None,
        described=learned_BK is not None or log.feature_BKF.shape[2] > 0,
    )
    return _decide(base, config)


def columns(log: ClickLog, learned_BK: F64 | None = None) -> F64:
    """(B, K, F) the standardised columns of the test."""
    first_BK = np.where(log.changed_B.any(), (log.item_BK == log.first_B[:, None]) & log.shown_BK, 0).astype(np.float64)
    parts = [log.score_BK[..., None], first_BK[..., None], log.feature_BKF]
    if learned_BK is not None:
        parts.append(learned_BK[..., None])
    return standardise(np.concatenate(parts, axis=2), log.shown_BK)


def _first_choice(columns_BKF: F64) -> Bool:
    """The column of the policy's first choice: exploration moves it too seldom for it to bound anything."""
    return np.asarray(np.arange(columns_BKF.shape[2]) == 1)


def dependence(log: ClickLog, columns_BKF: F64, config: DetectorConfig, *, weighted: bool) -> Dependence:
    """The permutation test over blocks of consecutive decisions, among decisions with a click."""
    with_click = np.flatnonzero(log.click_B >= 0)
    click_B, x_BKF, shown_BK = log.click_B[with_click], columns_BKF[with_click], log.shown_BK[with_click]
    width, count = log.width, columns_BKF.shape[2]
    q_K = (np.bincount(click_B, minlength=width) + 1) / (len(click_B) + width)
    weight_K = 1 / np.maximum(q_K, config.weight_floor / width) if weighted else np.ones(width)
    weight_K = weight_K / float(weight_K @ q_K)
    u_F, v_FF, a_FF = np.zeros(count), np.zeros((count, count)), np.zeros((count, count))
    for start in range(0, len(click_B), config.block):
        rows = slice(start, start + config.block)
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
class _Facts:
    clicks: int
    changed: int
    share_at: F64
    p_value: float = 1.0
    shares: "Shares | None" = None
    learned: bool = False
    described: bool = False  # some column beside the score varies

    @property
    def bound(self) -> float:
        return self.shares.upper if self.shares is not None else float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """What the log says of the share of lookers: ``upper`` 95 % of a flat prior's posterior; the doubts as configured."""

    upper: float
    doubt: float
    strict_doubt: float


def _shares(log: ClickLog, tail: Dependence, bounding_F: Bool, config: DetectorConfig) -> Shares | None:
    """None when neither the columns nor position 1 can tell one share from another."""
    share_S = np.linspace(0.0, 1.0, SHARES + 1)
    likelihood_S = tail.likelihood(share_S, response=config.response, bounding_F=bounding_F) * _by_position(log, share_S)
    if np.ptp(likelihood_S) <= CONSTANT:
        return None
    above = likelihood_S[share_S >= config.share].mean()
    exactly = np.interp(config.share, share_S, likelihood_S)
    cumulative_S = np.cumsum(likelihood_S) / likelihood_S.sum()
    return Shares(
        upper=float(share_S[np.searchsorted(cumulative_S, 0.95)]),
        doubt=float(above / (above + likelihood_S[0])),
        strict_doubt=float(exactly / (exactly + likelihood_S[0])),
    )


def _by_position(log: ClickLog, share_S: F64) -> F64:
    """Lookers leave position 1 but for one time in K when another item than the policy's choice was drawn for it.

    Profile likelihood, 1 at share 0, of x clicks elsewhere among n such lists: P(elsewhere) >= share (1 - 1/K).
    """
    use = log.changed_B & (log.click_B >= 0)
    n, x = int(use.sum()), int((use & (log.click_B > 0)).sum())
    if n == 0 or log.width < 2:
        return np.ones(len(share_S))
    best = x / n
    p_S = np.clip(np.maximum(best, share_S * (1 - 1 / log.width)), 0.0, 1 - CONSTANT)
    log_S = (n - x) * np.log1p(-p_S) + (x * np.log(p_S) if x else 0.0)
    return np.asarray(np.exp(log_S - log_S[0]))


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


def _decide(facts: _Facts, config: DetectorConfig) -> Feedback:
    if facts.p_value < config.level:
        return _say(
            facts,
            FeedbackState.INFORMATIVE,
            f"The clicked items differ from the items at the same positions elsewhere (p = {facts.p_value:.1g}): "
            "clicks depend on what is shown, not on the position alone.",
        )
    if facts.changed < config.minimum_changed:
        return _say(
            facts,
            FeedbackState.UNIDENTIFIABLE,
            f"Only {facts.changed} decisions showed another first item than the policy's own choice, so a good "
            "order and users who click by position look alike. Let exploration change position 1 in a few per cent "
            "of answers.",
            needed=None,
        )
    if facts.shares is None:
        return _say(
            facts,
            FeedbackState.UNIDENTIFIABLE,
            "No score and no feature differs between lists, so nothing could show that users look at the items. "
            "Send scores or features with the candidates.",
        )
    few = facts.clicks * (1 - facts.share_at[0]) < config.few_tail
    doubtful = facts.shares.doubt >= config.doubt
    if few:
        doubtful = facts.shares.strict_doubt >= config.strict_doubt or facts.p_value < config.suspicion
    if not doubtful and facts.clicks >= config.settled:
        return _open_or_uninformative(facts, config)
    needed = max(config.settled, ceil(facts.clicks * (facts.bound / config.share) ** 2))
    return _say(
        facts,
        FeedbackState.TOO_FEW,
        f"No dependence on the items shows (p = {facts.p_value:.2g}), but up to {facts.bound:.0%} of the clicks could "
        f"still be informative.",
        needed=needed,
    )


def _open_or_uninformative(facts: _Facts, config: DetectorConfig) -> Feedback:
    """A bound below the share is not enough where clicks are spread as poorly ranked lists would spread honest ones."""
    tail_K = facts.share_at[1:] * facts.clicks
    if not facts.learned and facts.share_at.min() * len(facts.share_at) > 0.5:
        return _say(
            facts,
            FeedbackState.UNIDENTIFIABLE,
            "Clicks are spread evenly over the positions and follow no score or feature: users click at random, or "
            "look at something that the features do not show. Send richer features.",
        )
    if 0 < tail_K.sum() and (tail_K.sum() < config.few_tail or not facts.described) and _even(tail_K):
        needed = max(facts.clicks + 1, ceil(facts.clicks * config.few_tail / tail_K.sum()))
        return _say(
            facts,
            FeedbackState.TOO_FEW,
            f"{tail_K.sum():.0f} clicks below position 1 are spread as those of people who look might be; too few to "
            "tell.",
            needed=needed,
        )
    return _say(
        facts,
        FeedbackState.UNINFORMATIVE,
        f"Given the position, clicks do not depend on the item (p = {facts.p_value:.2g}); at most {facts.bound:.1%} of "
        f"them could (95 %, if items move the odds of those who look by e^{config.response} per unit). "
        f"{facts.share_at[0]:.0%} go to position 1.",
    )


def _even(tail_K: F64, level: float = 0.01) -> bool:
    expected = tail_K.sum() / len(tail_K)
    if len(tail_K) < 2:
        return True
    return chi_square_tail(float(((tail_K - expected) ** 2 / expected).sum()), len(tail_K) - 1) > level


def _say(facts: _Facts, state: FeedbackState, reason: str, *, needed: int | None = None) -> Feedback:
    return Feedback(
        state=state,
        reason=reason,
        share_at=tuple(float(s) for s in facts.share_at),
        needed=needed,
        informative_share=float(facts.bound),
        p_value=float(facts.p_value),
        clicks=facts.clicks,
        changed=facts.changed,
    )


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
