"""The bias of each position with intervals, by the strongest method the log allows, or why it is unidentifiable.

P(click at k | item d) = alpha_k g_d + beta_k throughout: beta_k is the pull of the position, alpha_k what relevance
adds there.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from dayjob.endings import FeedbackState
from dayjob.signals.choice import ChoiceModel, fit_choice
from dayjob.signals.clicklog import F64, ClickLog
from dayjob.signals.clickmodels import Cells, cells, fit_trust
from dayjob.signals.detector import Feedback
from dayjob.signals.features import standardise
from dayjob.signals.intervals import wilson
from dayjob.signals.intervene import swap_at_one, trust_interval

SEEN_TWICE = 0.5  # share of views by items seen at two positions or more, from which items carry the estimate
INTERVAL_ROWS = 50_000  # decisions of a log that the bootstrap draws from
INTERVAL_DRAWS = 30
WIDE = 0.5  # a share of lookers whose interval is wider than this is no estimate


class BiasMethod(StrEnum):
    """How the bias was estimated."""

    ITEMS = "items"  # trust bias by EM over items seen at several positions
    CHOICE = "choice"  # one click a list: pull or choice, told apart by scores and features
    SWAP = "swap"  # position 1 alone, from uniform draws: a bound
    POSITION = "position"  # clicks were found to depend on nothing else
    NONE = "none"  # unidentifiable


@dataclass(frozen=True, slots=True, kw_only=True)
class Bias:
    """The report's ``bias``: alpha_K and beta_K with 95 % intervals (nan where unknown) and where they come from.

    By ITEMS the scale of alpha is that of a relevance between 0 and 1 (only alpha_k / alpha_1 is given by clicks); by
    CHOICE alpha is the share of decisions made by looking, the same for every position.
    """

    method: BiasMethod
    reason: str
    alpha_K: F64
    alpha_low_K: F64
    alpha_high_K: F64
    beta_K: F64
    beta_low_K: F64
    beta_high_K: F64

    @property
    def identifiable(self) -> bool:
        """Whether alpha and beta are estimates (a bound of position 1 alone is not)."""
        return self.method in (BiasMethod.ITEMS, BiasMethod.CHOICE, BiasMethod.POSITION)


def choice_columns(log: ClickLog) -> F64:
    """(B, K, F) standardised columns of the choice model: score and features with their squares (choices bend)."""
    columns_BKF = standardise(np.concatenate([log.score_BK[..., None], log.feature_BKF], axis=2), log.shown_BK)
    return np.concatenate([columns_BKF, standardise(columns_BKF**2, log.shown_BK)], axis=2)


def estimate_bias(log: ClickLog, *, seed: int = 0, found: Feedback | None = None) -> Bias:
    """The bias by items that repeat, else by choice, else the bound from uniform draws, else why not.

    ``found``: what ``detector.feedback`` says of the same log; where clicks are uninformative, the pull is all there
    is.
    """
    if not log.click_BK.any():
        return _unknown(log, "Nothing was clicked yet. Send outcomes of kind 'click'.")
    if found is not None and found.state is FeedbackState.UNINFORMATIVE:
        return _by_position(log, found)
    data = cells(log)
    if _seen_twice(data) >= SEEN_TWICE and data.connected:
        return _by_items(log, seed)
    columns_BKF = choice_columns(log)
    if log.single and columns_BKF.any():
        model = fit_choice(log, columns_BKF)
        low, high = model.look_interval()
        if high - low < WIDE:
            return _by_choice(model, log)
    if log.intervened_B.any() and not log.intervened_B.all():
        return _by_swap(log)
    return _unknown(
        log,
        "Unidentifiable: items do not repeat at several positions, no score or feature tells a chosen click from a "
        "position's, and position 1 was never drawn uniformly. Set explore.changed_first above 0.",
    )


def _seen_twice(data: Cells) -> float:
    places_V = np.bincount(data.row_C, minlength=len(data.item_V))
    return float(data.views_C[places_V[data.row_C] > 1].sum() / max(data.views_C.sum(), 1))


def _by_items(log: ClickLog, seed: int) -> Bias:
    sample = log.rows(np.arange(0, len(log), max(1, len(log) // INTERVAL_ROWS)))
    model = fit_trust(cells(sample))
    low, high = trust_interval(sample, seed=seed, draws=INTERVAL_DRAWS)
    return Bias(
        method=BiasMethod.ITEMS,
        reason="Items seen at several positions separate the position from the item; clicks give only the ratios of "
        "alpha, its scale is that of a relevance from 0 to 1.",
        alpha_K=model.alpha_K,
        alpha_low_K=np.clip(low[0], 0, 1),
        alpha_high_K=np.clip(high[0], 0, 1),
        beta_K=model.beta_K,
        beta_low_K=np.clip(low[1], 0, 1),
        beta_high_K=np.clip(high[1], 0, 1),
    )


def _by_choice(model: ChoiceModel, log: ClickLog) -> Bias:
    low_K, high_K = model.interval_K()
    look_low, look_high = model.look_interval()
    return Bias(
        method=BiasMethod.CHOICE,
        reason=f"{model.look:.0%} of decisions follow what scores and features predict, the rest the position alone; "
        "right as far as scores and features predict choices.",
        alpha_K=np.full(log.width, model.look),
        alpha_low_K=np.full(log.width, look_low),
        alpha_high_K=np.full(log.width, look_high),
        beta_K=model.pull_K,
        beta_low_K=low_K,
        beta_high_K=high_K,
    )


def _by_position(log: ClickLog, found: Feedback) -> Bias:
    shown_K = log.shown_BK.sum(axis=0)
    clicks_K = log.click_BK.sum(axis=0)
    ranges = np.array([wilson(int(c), int(n)) for c, n in zip(clicks_K, shown_K, strict=True)])
    return Bias(
        method=BiasMethod.POSITION,
        reason="Clicks depend on nothing but the position, so what each position gets is its pull.",
        alpha_K=np.zeros(log.width),
        alpha_low_K=np.zeros(log.width),
        alpha_high_K=np.full(log.width, found.informative_share),
        beta_K=clicks_K / np.maximum(shown_K, 1),
        beta_low_K=ranges[:, 0],
        beta_high_K=ranges[:, 1],
    )


def _by_swap(log: ClickLog) -> Bias:
    swap = swap_at_one(log)
    unknown_K = np.full(log.width, np.nan)
    high_K, low_K = unknown_K.copy(), unknown_K.copy()
    high_K[0], low_K[0] = swap.pull_most, 0.0
    alpha_low_K = unknown_K.copy()
    alpha_low_K[0] = swap.look_least
    return Bias(
        method=BiasMethod.SWAP,
        reason=f"A uniformly drawn item at position 1 is clicked {swap.uniform_rate[1]:.1%} of the time, the policy's "
        f"choice {swap.choice_rate[1]:.1%}: bounds for position 1 only. Scores or features would tell more.",
        alpha_K=unknown_K,
        alpha_low_K=alpha_low_K,
        alpha_high_K=unknown_K,
        beta_K=unknown_K,
        beta_low_K=low_K,
        beta_high_K=high_K,
    )


def _unknown(log: ClickLog, reason: str) -> Bias:
    unknown_K = np.full(log.width, np.nan)
    return Bias(
        method=BiasMethod.NONE,
        reason=reason,
        alpha_K=unknown_K,
        alpha_low_K=unknown_K,
        alpha_high_K=unknown_K,
        beta_K=unknown_K,
        beta_low_K=unknown_K,
        beta_high_K=unknown_K,
    )
