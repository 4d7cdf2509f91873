"""The bias of each position with intervals, by the strongest method the log allows, or why it is unidentifiable.

P(click at k | item d) = alpha_k g_d + beta_k throughout: beta_k is the pull of the position, alpha_k what relevance
adds there.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from dayjob.endings import FeedbackState
from dayjob.signals.clicklog import F64, FILLER, ClickLog
from dayjob.signals.clickmodels import Cells, cells, fit_trust
from dayjob.signals.detector import Feedback
from dayjob.signals.intervals import wilson
from dayjob.signals.intervene import swap_at_one, trust_interval
from dayjob.signals.orders import LEAST_LISTS, LEAST_MOVED, MOST_UNTOLD, Pooled, pool, untold

SEEN_TWICE = 0.5  # share of views by items seen at two positions or more, from which items carry the estimate
INTERVAL_ROWS = 50_000  # decisions of a log that the bootstrap draws from
INTERVAL_DRAWS = 30
WIDE = 0.5  # a share of lookers, or a pull of position 1, whose interval is wider than this is no estimate
CONTEXTUAL = 0.1  # share of the scores' variance within items above which an item is not as good in every list


class BiasMethod(StrEnum):
    """How the bias was estimated."""

    ITEMS = "items"  # trust bias by EM over items seen at several positions
    CHOICE = "choice"  # one click a list: pull or choice, told apart by lists that chance moved
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
    pooled: Pooled | None = None  # by CHOICE: what was fitted

    @property
    def identifiable(self) -> bool:
        """Whether alpha and beta are estimates (a bound of position 1 alone is not)."""
        return self.method in (BiasMethod.ITEMS, BiasMethod.CHOICE, BiasMethod.POSITION)


def chosen_share(log: ClickLog, bias: Bias) -> tuple[float, float, float]:
    """(low, point, high) share of the clicks that follow what is shown, 95 %; nan where ``bias`` is no estimate.

    It is 1 - (sum of the pulls) / (clicks a list), where lists have one click at most.
    """
    a_list = float(log.click_BK.any(axis=1).mean()) if len(log) else 0.0
    if not bias.identifiable or bias.method is BiasMethod.ITEMS or not a_list:
        return np.nan, np.nan, np.nan
    # Pulls err together, by what one curve from score to choice misses: their ends are added, not their squares.
    pulls = (float(end_K.sum()) for end_K in (bias.beta_high_K, bias.beta_K, bias.beta_low_K))
    low, middle, high = (float(np.clip(1 - pull / a_list, 0, 1)) for pull in pulls)
    return low, middle, high


def estimate_bias(log: ClickLog, *, seed: int = 0, found: Feedback | None = None) -> Bias:
    """The bias by lists that chance moved, else by items that repeat, else the bound from uniform draws, else why not.

    ``found``: what ``detector.feedback`` says of the same log; where clicks are uninformative, the pull is all there
    is.
    """
    if not log.click_BK.any():
        return _unknown(log, "Nothing was clicked yet. Send outcomes of kind 'click'.")
    if found is not None and found.state is FeedbackState.UNINFORMATIVE:
        return _by_position(log, found)
    pooled = pool(log) if log.single else None
    if pooled is not None and _is_estimate(pooled):
        return _by_choice(pooled, log)
    data = cells(log)
    if _seen_twice(data) >= SEEN_TWICE and data.connected and not _contextual(log):
        return _by_items(log, seed)
    if log.intervened_B.any() and not log.intervened_B.all():
        return _by_swap(log)
    return _unknown(log, _why(log, pooled))


def _is_estimate(pooled: Pooled) -> bool:
    low_K, high_K = pooled.pull_interval_K()
    low, high = pooled.look_interval()
    return bool(high - low < WIDE and high_K[0] - low_K[0] < WIDE)


def _contextual(log: ClickLog) -> bool:
    """Whether scores say that an item is better in one list than in another: then its position says so too."""
    known = log.shown_BK & np.isfinite(log.score_BK)
    if not known.any():
        return False
    item_V, row = np.unique(log.item_BK[known], return_inverse=True)
    score = log.score_BK[known]
    mean_V = np.bincount(row, weights=score) / np.bincount(row, minlength=len(item_V))
    return bool(((score - mean_V[row]) ** 2).mean() > CONTEXTUAL * score.var())


def _why(log: ClickLog, pooled: Pooled | None) -> str:
    """Why the pull cannot be told from what people like, and what would tell: nothing that the log has already."""
    scored = bool(np.isfinite(log.score_BK[log.shown_BK]).all())
    moved = int((log.changed_B | log.intervened_B | (log.rival_B != FILLER)).sum())
    if pooled is not None:
        least = int(pooled.moved * 4)
        why = f"the {pooled.moved} lists that chance moved leave it too wide; about {least:,} would tell"
    elif not log.single:
        why = "lists have several clicks, and items do not repeat at several positions: give each query and item an id"
    elif not scored:
        why = "no score of every item is known: send scores, so that it shows which places chance changed"
    elif untold(log) > MOST_UNTOLD:
        why = (
            f"in {untold(log):.0%} of the lists another item than that of the highest score stands first, and nothing "
            "says why: name what the order put first ('first'), and mark first places drawn at random ('explored')"
        )
    elif moved < LEAST_MOVED:
        why = (
            f"{moved} lists show another item first than the order's own choice; {LEAST_MOVED} are needed: draw "
            "position 1 at random in a few per cent of the lists (a policy's explore.changed_first)"
        )
    else:
        why = f"{len(log):,} lists are too few: {LEAST_LISTS} of one order are needed"
    return f"Unidentifiable: a good order and people who click the first place look alike, and {why}."


def _seen_twice(data: Cells) -> float:
    places_V = np.bincount(data.row_C, minlength=len(data.item_V))
    return float(data.views_C[places_V[data.row_C] > 1].sum() / max(data.views_C.sum(), 1))


def _by_items(log: ClickLog, seed: int) -> Bias:
    sample = log.rows(np.arange(0, len(log), max(1, len(log) // INTERVAL_ROWS)))
    model = fit_trust(cells(sample))
    low, high = trust_interval(sample, seed=seed, draws=INTERVAL_DRAWS)
    return Bias(
        method=BiasMethod.ITEMS,
        reason="Items seen at several positions separate the position from the item, where an item is as good in every "
        "list (else give the query); clicks give only the ratios of alpha, its scale is that of a relevance from 0 to "
        "1.",
        alpha_K=model.alpha_K,
        alpha_low_K=np.clip(low[0], 0, 1),
        alpha_high_K=np.clip(high[0], 0, 1),
        beta_K=model.beta_K,
        beta_low_K=np.clip(low[1], 0, 1),
        beta_high_K=np.clip(high[1], 0, 1),
    )


def _by_choice(pooled: Pooled, log: ClickLog) -> Bias:
    low_K, high_K = pooled.pull_interval_K()
    look_low, look_high = pooled.look_interval()
    return Bias(
        method=BiasMethod.CHOICE,
        reason=f"{pooled.look:.0%} of decisions ({look_low:.0%} to {look_high:.0%}) follow what is shown, the rest the "
        f"position alone: {pooled.moved:,} lists in which chance moved the first place tell the two apart.",
        alpha_K=np.full(log.width, pooled.look),
        alpha_low_K=np.full(log.width, look_low),
        alpha_high_K=np.full(log.width, look_high),
        beta_K=pooled.pull_K,
        beta_low_K=low_K,
        beta_high_K=high_K,
        pooled=pooled,
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
    scored = bool(np.isfinite(log.score_BK[log.shown_BK]).all())
    more = "Scores would tell more." if not scored else f"{len(log):,} lists tell no more yet."
    unknown_K = np.full(log.width, np.nan)
    high_K, low_K = unknown_K.copy(), unknown_K.copy()
    high_K[0], low_K[0] = swap.pull_most, 0.0
    alpha_low_K = unknown_K.copy()
    alpha_low_K[0] = swap.look_least
    return Bias(
        method=BiasMethod.SWAP,
        reason=f"A uniformly drawn item at position 1 is clicked {swap.uniform_rate[1]:.1%} of the time, the policy's "
        f"choice {swap.choice_rate[1]:.1%}: bounds for position 1 only. {more}",
        alpha_K=unknown_K,
        alpha_low_K=alpha_low_K,
        alpha_high_K=unknown_K,
        beta_K=unknown_K,
        beta_low_K=low_K,
        beta_high_K=high_K,
    )


def _unknown(log: ClickLog, reason: str) -> Bias:
    """No estimate; a position pulls no more than it is clicked."""
    unknown_K = np.full(log.width, np.nan)
    clicks_K, shown_K = log.click_BK.sum(axis=0), log.shown_BK.sum(axis=0)
    most_K = np.array([wilson(int(c), int(n))[1] for c, n in zip(clicks_K, shown_K, strict=True)])
    return Bias(
        method=BiasMethod.NONE,
        reason=reason,
        alpha_K=unknown_K,
        alpha_low_K=unknown_K,
        alpha_high_K=unknown_K,
        beta_K=unknown_K,
        beta_low_K=np.zeros(log.width),
        beta_high_K=most_K,
    )
