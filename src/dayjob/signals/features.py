"""What can be said of each candidate before anyone clicks: the columns by which the detector looks for people who look.

A policy's score orders the list, so position carries most of it. What remains to tell lookers from position-only
users is how a list differs from other lists at the same position: the gaps between scores, and how crowded a
candidate is. Where two candidates are near duplicates they share the choices that one alone would get, so crowding
predicts choices even where the score hardly does (on simulated Geospot photos it predicts the closest of ten 13 times
as well as GeoCLIP's own score).
"""

import numpy as np
import numpy.typing as npt

from dayjob.signals.clicklog import F64, FILLER, I64, Bool, ClickLog

F32 = npt.NDArray[np.float32]

ROWS_AT_ONCE = 1024  # lists a pass of crowding: 21 MB of vectors at K = 10, D = 512
MOST_BLOCKS = 200  # in which reputations are brought up to date
REPUTATION_PRIOR = 5.0  # views of an average item added to every item
GROWTH = 0.2  # the small model learns again when a fifth more has been seen: linear work in all
LOOK_START = 0.05  # share of lookers at which the mixture starts
LOOK_FLOOR = 0.2  # of a position's share times K, at the start: no click begins more than 5 times an average one
LOOK_RIDGE = 2.0  # on the weights of those who look, for columns of unit spread
LOOK_PRIOR = 20.0  # clicks' worth of the starting share
CONSTANT = 1e-9  # a column of less spread than this says nothing


def crowding(vector_VD: F32, row_BK: I64) -> F64:
    """(B, K) mean cosine between each item's vector and the other items of its list; 0 for filler and lists of one.

    ``row_BK`` are rows of ``vector_VD``, -1 filler.
    """
    norm_V1 = np.maximum(np.linalg.norm(vector_VD, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    unit_VD = (vector_VD / norm_V1).astype(np.float32)
    out_BK = np.zeros(row_BK.shape)
    for start in range(0, len(row_BK), ROWS_AT_ONCE):
        rows = row_BK[start : start + ROWS_AT_ONCE]
        present = rows != FILLER
        vectors = unit_VD[np.where(present, rows, 0)] * present[..., None]
        to_all = np.einsum("bkd,bd->bk", vectors, vectors.sum(axis=1)) - present
        others = np.maximum(present.sum(axis=1, keepdims=True) - 1, 1)
        out_BK[start : start + len(rows)] = np.where(present, to_all / others, 0.0)
    return out_BK


def standardise(feature_BKF: F64, shown_BK: Bool) -> F64:
    """Each column less its list's mean, in units of its spread within lists over the whole log; 0 where unknown.

    Columns without spread become 0: adding a constant to a list's scores, or changing their scale, changes nothing.
    """
    known_BKF = shown_BK[..., None] & np.isfinite(feature_BKF)
    value = np.where(known_BKF, feature_BKF, 0.0)
    mean = value.sum(axis=1, keepdims=True) / np.maximum(known_BKF.sum(axis=1, keepdims=True), 1)
    centred = np.where(known_BKF, value - mean, 0.0)
    spread_F = np.sqrt((centred**2).sum(axis=(0, 1)) / np.maximum(known_BKF.sum(axis=(0, 1)), 1))
    return np.where(spread_F > CONSTANT, centred / np.maximum(spread_F, CONSTANT), 0.0)


def learned_score(feature_BKF: F64, click_B: I64, *, shown_BK: Bool, block: int = 250, ridge: float = 20.0) -> F64:
    """(B, K) what a small model makes of many features, each block of decisions scored by what was learned before it.

    Conditional logit with an intercept for each position, logit_k = b_k + w x_k, and a ridge; one Newton step on all
    clicks so far after each block, blocks growing by a fifth of what was seen. Past only, so the column may be used
    wherever a feature known before the click may.
    """
    x_BKF = standardise(feature_BKF, shown_BK)
    rows, width, columns = x_BKF.shape
    out_BK, weight = np.zeros((rows, width)), np.zeros(columns + width)
    stop = 0
    while stop < rows:
        now = slice(stop, stop + max(block, int(GROWTH * stop)))
        stop = now.stop
        out_BK[now] = x_BKF[now] @ weight[:columns]
        seen = np.flatnonzero(click_B[:stop] >= 0)
        if len(seen) == 0:
            continue
        weight = _newton(x_BKF[seen], click_B[seen], shown_BK[seen], weight, ridge)
    return out_BK


def reputation(log: ClickLog, *, block: int = 250) -> F64:
    """(B, K) how much oftener each item was clicked before than its positions were, shrunk; 0 for items new to the log.

    Past blocks only. Where items repeat, this is what identity alone knows; where they do not, it is 0 throughout.
    """
    items, code = np.unique(log.item_BK, return_inverse=True)
    if len(items) >= log.shown_BK.sum():
        return np.zeros(log.item_BK.shape)
    code_BK = code.reshape(log.item_BK.shape)
    surplus_V, views_V = np.zeros((2, int(code_BK.max(initial=-1)) + 1))
    clicks_K, lists_K = np.zeros((2, log.width))
    out_BK = np.zeros(log.item_BK.shape)
    size = max(block, len(log) // MOST_BLOCKS)
    for start in range(0, len(log), size):
        rows = slice(start, start + size)
        shown, click = log.shown_BK[rows], log.click_BK[rows]
        item = code_BK[rows]
        out_BK[rows] = np.where(shown, surplus_V[item] / (views_V[item] + REPUTATION_PRIOR), 0.0)
        clicks_K, lists_K = clicks_K + click.sum(axis=0), lists_K + shown.sum(axis=0)
        rate_K = clicks_K / np.maximum(lists_K, 1)
        surplus_V += np.bincount(item[shown], weights=(click - rate_K)[shown], minlength=len(surplus_V))
        views_V += np.bincount(item[shown], minlength=len(views_V))
    return out_BK


def _newton(x_BKF: F64, click_B: I64, shown_BK: Bool, weight_P: F64, ridge: float) -> F64:
    """One step of (w, b): F weights of columns, then K intercepts of positions, whose design is never written out."""
    width, columns = x_BKF.shape[1:]
    logit = np.where(shown_BK, x_BKF @ weight_P[:columns] + weight_P[columns:], -np.inf)
    p_BK = np.exp(logit - logit.max(axis=1, keepdims=True))
    p_BK /= p_BK.sum(axis=1, keepdims=True)
    mean_BF = np.einsum("bk,bkf->bf", p_BK, x_BKF)
    own = (x_BKF[np.arange(len(click_B)), click_B] - mean_BF).sum(axis=0)
    placed = np.bincount(click_B, minlength=width) - p_BK.sum(axis=0)
    gradient = np.concatenate([own, placed]) - ridge * weight_P
    heavy = (x_BKF * p_BK[..., None]).reshape(-1, columns)
    cross_FK = np.einsum("bk,bkf->fk", p_BK, x_BKF) - mean_BF.T @ p_BK
    hessian = ridge * np.eye(len(weight_P))
    hessian[:columns, :columns] += heavy.T @ x_BKF.reshape(-1, columns) - mean_BF.T @ mean_BF
    hessian[:columns, columns:] += cross_FK
    hessian[columns:, :columns] += cross_FK.T
    hessian[columns:, columns:] += np.diag(p_BK.sum(axis=0)) - p_BK.T @ p_BK
    return np.asarray(weight_P + np.linalg.solve(hessian, gradient))


def looker_choice(feature_BKF: F64, click_B: I64, *, shown_BK: Bool, block: int = 250, steps: int = 6) -> F64:
    """(B, K) probability that somebody who looks chooses each item, by what the decisions before its block taught.

    The mixture "click = pi_k with probability 1 - f, else softmax(w x)" by EM, one Newton step on w a round, with a
    ridge; each fit begins at the last one's w. Where few look, this finds them: a logit of all clicks spends itself on
    those who do not. Past only: folds that teach each other would count each coincidence twice.
    """
    x_BKF = standardise(feature_BKF, shown_BK)
    rows = len(click_B)
    out_BK, weight_F = softmax(np.zeros(shown_BK.shape), shown_BK), np.zeros(x_BKF.shape[2])
    stop = block
    while stop < rows:
        seen = np.flatnonzero(click_B[:stop] >= 0)
        weight_F = _mixture(x_BKF[seen], click_B[seen], shown_BK=shown_BK[seen], weight_F=weight_F, steps=steps)
        now = slice(stop, stop + max(block, int(GROWTH * stop)))
        out_BK[now] = softmax(x_BKF[now] @ weight_F, shown_BK[now])
        stop = now.stop
    return out_BK


def _mixture(x_BKF: F64, click_B: I64, *, shown_BK: Bool, weight_F: F64, steps: int) -> F64:
    """Weights (F,) of the choice of those who look, beginning at ``weight_F``."""
    rows, width, columns = x_BKF.shape
    if rows == 0:
        return weight_F
    at = np.arange(rows)
    pull_K = (np.bincount(click_B, minlength=width) + 1) / (rows + width)
    looked_B = LOOK_START / np.maximum(pull_K[click_B] * width, LOOK_FLOOR)  # begins at the rarely clicked positions
    share = LOOK_START
    for _ in range(steps):
        p_BK = softmax(x_BKF @ weight_F, shown_BK)
        mean_BF = np.einsum("bk,bkf->bf", p_BK, x_BKF)
        gradient = looked_B @ (x_BKF[at, click_B] - mean_BF) - LOOK_RIDGE * weight_F
        heavy = (x_BKF * (p_BK * looked_B[:, None])[..., None]).reshape(-1, columns)
        hessian = heavy.T @ x_BKF.reshape(-1, columns) - (mean_BF * looked_B[:, None]).T @ mean_BF
        step_F = np.linalg.solve(hessian + LOOK_RIDGE * np.eye(columns), gradient)
        weight_F = weight_F + step_F / max(1.0, float(np.abs(step_F).max()))
        chosen_B = share * softmax(x_BKF @ weight_F, shown_BK)[at, click_B]
        looked_B = chosen_B / (chosen_B + (1 - share) * pull_K[click_B])
        share = float((looked_B.sum() + LOOK_PRIOR * LOOK_START) / (rows + LOOK_PRIOR))
        pull_K = np.bincount(click_B, weights=1 - looked_B, minlength=width) + 1 / width
        pull_K /= pull_K.sum()
    return np.asarray(weight_F)


def softmax(logit_BK: F64, shown_BK: Bool) -> F64:
    """Shares (B, K) among what was shown; 0 for fillers."""
    logit_BK = np.where(shown_BK, logit_BK, -np.inf)
    p_BK = np.exp(logit_BK - logit_BK.max(axis=1, keepdims=True))
    return np.asarray(p_BK / p_BK.sum(axis=1, keepdims=True))
