"""One log, everything this folder can say of it: what it can teach, its bias, its ceiling, and what a verdict would
need.
"""

from dataclasses import dataclass
from math import ceil, isfinite, nan, sqrt
from math import log as ln

import numpy as np

from dayjob.endings import FeedbackState
from dayjob.signals.bias import Bias, BiasMethod, estimate_bias
from dayjob.signals.ceiling import Ceiling, ceiling
from dayjob.signals.clicklog import FILLER, ClickLog
from dayjob.signals.detector import Feedback, feedback
from dayjob.signals.features import learned_score
from dayjob.signals.informants import caps

LATEST = 50_000  # decisions the tests look at: what users do now, not what they did last year
POWER_Z = 0.84  # normal quantile of 80 % power


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanConfig:
    """What a live trial is assumed to be."""

    alpha: float = 0.05
    effects: tuple[float, ...] = (
        0.02,
        0.05,
        0.10,
    )  # how much oftener the challenger's first choice is what lookers want
    differing: float = 0.5  # share of decisions in which champion and challenger choose different first items


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """For a challenger better by ``effect`` among those who look: decisions (all, not only judged) and days; nan
    unknown.
    """

    effect: float
    seen: float  # the difference in click probability that the trial would see
    decisions: float
    days: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """The whole audit of a log of B decisions."""

    decisions: int
    impressions: int
    clicks: int
    users: int
    items: int
    width: int
    rate_at: tuple[float, ...]  # clicks at each position for every list that reaches it
    days: float
    per_day: float
    heaviest_share: float  # of the decisions, by the most active user; nan without users
    capped_share: float  # of the decisions that would lose weight to the cap on heavy users
    feedback: Feedback
    bias: Bias
    ceiling: Ceiling
    needs: tuple[Need, ...]
    notes: tuple[str, ...]


def audit_log(log: ClickLog, *, days: float = nan, per_day: float = nan, notes: tuple[str, ...] = ()) -> Audit:
    """Everything about ``log``. ``per_day`` decisions (else from ``days``) turn decisions into days.

    Tests and estimates use the latest 50,000 decisions; counts use all. Raises ValueError for a log without decisions.
    """
    if len(log) == 0:
        raise ValueError("The log holds no decision; there is nothing to audit.")
    recent = log.rows(slice(max(0, len(log) - LATEST), None))
    learned_BK = None
    if recent.feature_BKF.shape[2] > 0:
        learned_BK = learned_score(recent.feature_BKF, recent.click_B, shown_BK=recent.shown_BK)
    found = feedback(recent, learned_BK=learned_BK)
    bias = estimate_bias(recent, found=found)
    traffic = per_day if isfinite(per_day) else len(log) / days if days > 0 else nan
    known = log.user_B[log.user_B != FILLER]
    return Audit(
        decisions=len(log),
        impressions=int(log.shown_BK.sum()),
        clicks=int(log.click_BK.sum()),
        users=len(np.unique(known)),
        items=len(np.unique(log.item_BK[log.shown_BK])),
        width=log.width,
        rate_at=tuple((log.click_BK.sum(axis=0) / np.maximum(log.shown_BK.sum(axis=0), 1)).tolist()),
        days=days,
        per_day=traffic,
        heaviest_share=float(np.unique(known, return_counts=True)[1].max() / len(log)) if len(known) else nan,
        capped_share=float(1 - caps(log.user_B).mean()),
        feedback=found,
        bias=bias,
        ceiling=ceiling(recent, bias, found=found),
        needs=needs(recent, bias, found=found, per_day=traffic),
        notes=notes,
    )


def needs(
    log: ClickLog, bias: Bias, *, found: Feedback, per_day: float, config: PlanConfig | None = None
) -> tuple[Need, ...]:
    """Decisions until a fair-coin trial of first choices would decide with 80 % power, one for each effect.

    The pair stands at positions 1 and 2, X = c_b - c_a - h coin with h the pull's difference, so X has variance
    v = P(click 1) + P(click 2) - h^2, and mean m = look times effect. A betting test at level alpha grows by about
    m^2 / 2v nats a judged decision: n = v / m^2 (sqrt(2 ln 1/alpha) + z)^2, of which ``differing`` of all decisions
    are. Unknown (nan) where clicks are uninformative, or nothing says how many look.
    """
    config = config or PlanConfig()
    look = float(bias.alpha_K[0]) if bias.identifiable and log.width else nan
    if found.state is FeedbackState.UNINFORMATIVE or not look > 0:
        return tuple(Need(effect=e, seen=nan, decisions=nan, days=nan) for e in config.effects)
    if bias.method is BiasMethod.ITEMS:
        look = min(1.0, look)
    rate_K = log.click_BK.sum(axis=0) / np.maximum(log.shown_BK.sum(axis=0), 1)
    second = float(rate_K[1]) if log.width > 1 else 0.0
    pull = float(bias.beta_K[0] - bias.beta_K[1]) if log.width > 1 else float(bias.beta_K[0])
    variance = max(float(rate_K[0]) + second - pull**2, 0.0)
    root = sqrt(2 * ln(1 / config.alpha)) + POWER_Z
    out = []
    for effect in config.effects:
        decisions = ceil(variance / (look * effect) ** 2 * root**2 / config.differing)
        out.append(Need(effect=effect, seen=look * effect, decisions=decisions, days=decisions / per_day))
    return tuple(out)
