"""Clicks by position as the click model foretells them, beside what came: on lists that it has not seen.

On the lists it was fitted to, each position has a pull of its own, so that the model would always be right there.
"""

from dataclasses import dataclass

import numpy as np

from dayjob.signals.bias import Bias, BiasMethod
from dayjob.signals.choice import fit_choice
from dayjob.signals.clicklog import F64, I64, ClickLog
from dayjob.signals.clickmodels import cells, fit_trust, perplexity
from dayjob.signals.orders import order_columns

SEEN_SHARE = 0.75  # of the lists of an order, the oldest, that a model is fitted to; the rest it foretells
LEAST_NEW = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """Over the ``lists`` that no model saw: clicks at each position, as shares of all clicks, and how probable the
    model held what happened (``clickmodels.perplexity``: 1 is perfect), beside the positions' own frequencies."""

    observed_K: F64
    predicted_K: F64
    lists: int
    perplexity: float
    perplexity_by_position: float


def predicted(log: ClickLog, bias: Bias) -> Predicted | None:
    """The model that ``bias`` names, fitted to the older lists, against the newer; None where there is none."""
    parts = [part for part in _parts(log, bias) if part is not None]
    if not parts:
        return None
    new = [rows for rows, *_ in parts]
    shown = log.rows(np.concatenate(new))
    p_BK, plain_BK = (np.concatenate([part[at] for part in parts]) for at in (1, 2))
    if len(shown) < LEAST_NEW or not shown.click_BK.any():
        return None
    clicks_K, foretold_K = shown.click_BK.sum(axis=0), np.where(shown.shown_BK, p_BK, 0.0).sum(axis=0)
    return Predicted(
        observed_K=clicks_K / clicks_K.sum(),
        predicted_K=foretold_K / foretold_K.sum(),
        lists=len(shown),
        perplexity=perplexity(p_BK, shown)[0],
        perplexity_by_position=perplexity(plain_BK, shown)[0],
    )


def _parts(log: ClickLog, bias: Bias) -> list[tuple[I64, F64, F64] | None]:
    """(rows, P(click) by the model, by the position's frequency) of the newer lists of every order with a model."""
    if bias.method is BiasMethod.CHOICE and bias.pooled is not None:
        return [_of_order(log, order) for order in bias.pooled.models]
    if bias.method is BiasMethod.ITEMS:
        return [_of_items(log)]
    return []


def _of_order(log: ClickLog, order: int) -> tuple[I64, F64, F64] | None:
    rows = np.flatnonzero(log.order_B == order)
    alone = log.rows(rows)
    cut = int(SEEN_SHARE * len(rows))
    columns_BKF = order_columns(alone)  # what is known before any click, standardised over the old and the new
    old, new = alone.rows(slice(0, cut)), alone.rows(slice(cut, None))
    if not old.click_BK.any():
        return None
    model = fit_choice(old, columns_BKF[:cut])
    p_BK = model.pull_K + model.look * model.chosen(columns_BKF[cut:], new.shown_BK)[:, :-1]
    return rows[cut:], p_BK, _frequency(old, new)


def _of_items(log: ClickLog) -> tuple[I64, F64, F64] | None:
    cut = int(SEEN_SHARE * len(log))
    old, new = log.rows(slice(0, cut)), log.rows(slice(cut, None))
    data = cells(old)
    return (
        (np.arange(cut, len(log)), fit_trust(data).predict(new.item_BK), _frequency(old, new))
        if data.connected
        else None
    )


def _frequency(old: ClickLog, new: ClickLog) -> F64:
    rate_K = old.click_BK.sum(axis=0) / np.maximum(old.shown_BK.sum(axis=0), 1)
    return np.broadcast_to(rate_K, new.click_BK.shape)
