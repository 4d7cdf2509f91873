"""The share pulled and the share chosen, from lists of which some were moved at random: what reports and audits say.

A list in the order of its score shows its best candidate first, so a curve from score to choice that is a little off at
the top looks like a pull of position 1: with scores alone the pull of a good ranker's first place is overestimated (at
4,400 lists by .07, with an interval of +-.03). Here the order's own first choice has a column of its own (and in a
comparison of two orders the other's too), so that *how much* it is liked is free, and only lists in which exploration
or a coin moved it tell its attraction from the place's. Each order (a version, or a comparison of two) is fitted alone,
since scores of two orders are no one scale; what people do with a place is the same under all, so the fits are pooled
by their precision.

A record in which nothing was moved says nothing of it, nor one in which first places differ from the scores' for
reasons it does not give: both are refused, with the remedy.
"""

from dataclasses import dataclass

import numpy as np

from dayjob.signals.choice import ChoiceModel, fit_choice
from dayjob.signals.clicklog import F64, FILLER, ClickLog
from dayjob.signals.features import standardise
from dayjob.signals.intervals import normal_quantile

LEAST_LISTS = 200  # of an order, to be fitted
LEAST_MOVED = 20  # lists of an order whose first place was moved
MOST_UNTOLD = 0.15  # share of first places moved for reasons untold, up to which exploration explains them
OWN_COLUMNS = 2  # of the order's own first choice and of the other order's
EDGE = 1e-4  # no standard error is believed to be smaller


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooled:
    """``pull_K`` and ``look`` with their standard errors, over ``orders`` orders and ``moved`` lists.

    ``models``: what was fitted to each order, by its number.
    """

    pull_K: F64
    pull_error_K: F64
    look: float
    look_error: float
    orders: int
    moved: int
    models: dict[int, ChoiceModel]

    def pull_interval_K(self, confidence: float = 0.95) -> tuple[F64, F64]:
        """(low, high), clipped to [0, 1]."""
        half_K = normal_quantile((1 + confidence) / 2) * self.pull_error_K
        return np.clip(self.pull_K - half_K, 0, 1), np.clip(self.pull_K + half_K, 0, 1)

    def look_interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """(low, high), clipped to [0, 1]."""
        half = normal_quantile((1 + confidence) / 2) * self.look_error
        return max(0.0, self.look - half), min(1.0, self.look + half)


def choice_columns(log: ClickLog) -> F64:
    """(B, K, F) standardised columns of the choice model: score and features with their squares (choices bend)."""
    columns_BKF = standardise(np.concatenate([log.score_BK[..., None], log.feature_BKF], axis=2), log.shown_BK)
    return np.concatenate([columns_BKF, standardise(columns_BKF**2, log.shown_BK)], axis=2)


def first_columns(log: ClickLog) -> F64:
    """(B, K, 2) the order's own first choice and, in a comparison, the other order's."""
    rival_BK = (log.item_BK == log.rival_B[:, None]) & log.shown_BK & (log.rival_B != FILLER)[:, None]
    own_BK = (log.item_BK == log.first_B[:, None]) & log.shown_BK
    if log.width > 1:
        compared_B = rival_BK[:, :2].any(axis=1)
        own_BK[compared_B] = False
        own_BK[compared_B, :2] = ~rival_BK[compared_B, :2]
    return standardise(np.stack([own_BK, rival_BK], axis=2).astype(np.float64), log.shown_BK)


def order_columns(log: ClickLog) -> F64:
    """(B, K, F) all columns by which the choices within one order are fitted: ``choice_columns``, ``first_columns``."""
    return np.concatenate([choice_columns(log), first_columns(log)], axis=2)


def chosen(log: ClickLog, models: dict[int, ChoiceModel]) -> F64:
    """(B, K + 1) what people who look would click, "no click" last; nan in lists of orders that have no model.

    ``models`` must come from this very log: columns are standardised over it.
    """
    out_BL = np.full((len(log), log.width + 1), np.nan)
    for order, model in models.items():
        mine_B = log.order_B == order
        alone = log.rows(mine_B)
        out_BL[mine_B] = model.chosen(order_columns(alone), alone.shown_BK)
    return out_BL


def untold(log: ClickLog) -> float:
    """The share of lists whose first place is not the order's own, for a reason that the log does not give."""
    moved_B = log.changed_B & ~log.intervened_B & (log.rival_B == FILLER)
    return float(moved_B.mean()) if len(log) else 0.0


def pool(log: ClickLog) -> Pooled | None:
    """The pooled fit; None where no order has enough lists, clicks and moved first places to be fitted."""
    if untold(log) > MOST_UNTOLD:
        return None
    fits: list[tuple[int, ChoiceModel, F64, int]] = []
    for order in np.unique(log.order_B).tolist():
        alone = log.rows(log.order_B == order)
        moved_B = alone.intervened_B | alone.changed_B | (alone.rival_B != FILLER)
        columns_BKF = order_columns(alone)
        enough = len(alone) >= LEAST_LISTS and int(moved_B.sum()) >= LEAST_MOVED
        if not (enough and alone.click_BK.any() and columns_BKF[..., :-OWN_COLUMNS].any()):
            continue
        model = fit_choice(alone, columns_BKF)
        rate_K = np.zeros(log.width)
        rate_K[: alone.width] = alone.click_BK.mean(axis=0)
        # At the edge of what is possible the curvature says nothing: no surer than the clicks there were counted.
        fits.append((order, model, np.maximum(model.error_K, np.sqrt(rate_K / model.decisions)), int(moved_B.sum())))
    if not fits:
        return None
    pull_SK, error_SK = (np.stack(part) for part in zip(*((m.pull_K, e_K) for _, m, e_K, _ in fits), strict=True))
    look_S, look_error_S = np.array([(model.look, max(model.look_error, EDGE)) for _, model, _, _ in fits]).T
    by_pull_S, by_look_S = _weights(error_SK[:, 0]), _weights(look_error_S)
    return Pooled(
        pull_K=by_pull_S @ pull_SK,
        pull_error_K=np.sqrt(by_pull_S**2 @ error_SK**2),
        look=float(by_look_S @ look_S),
        look_error=float(np.sqrt(by_look_S**2 @ look_error_S**2)),
        orders=len(fits),
        moved=sum(moved for *_, moved in fits),
        models={order: model for order, model, *_ in fits},
    )


def _weights(error_S: F64) -> F64:
    """By precision, adding up to 1."""
    precision_S = 1 / np.maximum(error_S, EDGE) ** 2
    return np.asarray(precision_S / precision_S.sum())
