"""One click a list: pulled by the position unseen, or chosen by looking.

    P(click at k | list) = beta_k + (1 - sum beta) rho_k,    rho = softmax(w x) over the items of the list

beta_k is the share of decisions that click position k whatever stands there (the published Geospot users: beta_1 =
.65), the rest choose by what the columns x (score, crowding, ...) tell in part. "No click" is one more label, with
its own beta and its own constant in rho. This is regression-EM (Wang et al., WSDM 2018) for a choice instead of
independent clicks; in the affine form of trust bias it says alpha_k = 1 - sum beta for every position.

beta is identified by how far the columns move clicks, so it is as right as the columns predict: what people see and the
columns do not counts as noise of the choice (rho is a probability), and biases nothing as long as rho is calibrated.
Joint estimates overestimate the pull when the ranker is already good (SIGIR 2024): there, swaps at position 1
(intervene) tell more.
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np

from dayjob.signals.clicklog import F64, I64, Bool, ClickLog
from dayjob.signals.intervals import normal_quantile

TINY = 1e-12  # keeps logarithms and ratios of probabilities finite


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceConfig:
    """How EM runs."""

    iterations: int = 200
    tolerance: float = 1e-6  # stop when the mean log-likelihood of a decision gains less
    ridge: float = 1.0  # on the weights of the columns and the constant of "no click"
    start_pull: float = 0.5  # share of position-only decisions EM starts from
    rows: int = 10_000  # decisions used, evenly spread over the log: more only narrows the intervals


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceModel:
    """The fitted mixture.

    ``pull_K`` beta_k; ``pull_none`` position-only decisions without a click; ``look`` = 1 - sum of both; ``weight_F``
    w of the columns; ``error_K`` and ``look_error`` standard errors, robust to dependence within a user; ``gain``
    log-likelihood per decision over position frequencies alone, nats (in sample).
    """

    pull_K: F64
    pull_none: float
    look: float
    weight_F: F64
    none_logit: float
    error_K: F64
    look_error: float
    gain: float
    decisions: int

    def interval_K(self, confidence: float = 0.95) -> tuple[F64, F64]:
        """(low, high) of beta_k, clipped to [0, 1]."""
        half = normal_quantile((1 + confidence) / 2) * self.error_K
        return np.clip(self.pull_K - half, 0, 1), np.clip(self.pull_K + half, 0, 1)

    def look_interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """(low, high) of the share of decisions by people who look, clipped to [0, 1]."""
        half = normal_quantile((1 + confidence) / 2) * self.look_error
        return max(0.0, self.look - half), min(1.0, self.look + half)

    def chosen(self, columns_BKF: F64, shown_BK: Bool) -> F64:
        """(B, K + 1) rho: what people who look would click, "no click" last."""
        return _choice(columns_BKF, shown_BK, np.append(self.weight_F, self.none_logit))

    def looked(self, columns_BKF: F64, shown_BK: Bool, *, click_B: I64) -> F64:
        """(B,) probability that this decision was made by looking, given what was clicked."""
        label_B = np.where(click_B < 0, shown_BK.shape[1], click_B)
        rows = np.arange(len(label_B))
        by_look = self.look * self.chosen(columns_BKF, shown_BK)[rows, label_B]
        by_pull = np.append(self.pull_K, self.pull_none)[label_B]
        return np.asarray(by_look / np.maximum(by_look + by_pull, TINY))


def fit_choice(log: ClickLog, columns_BKF: F64, *, config: ChoiceConfig | None = None) -> ChoiceModel:
    """The mixture by EM from the topmost click of each list; ``columns_BKF`` standardised (``features.standardise``).

    Raises ValueError when no column varies or nothing was clicked: then pull and choice cannot be told apart.
    """
    config = config or ChoiceConfig()
    rows = np.arange(0, len(log), max(1, len(log) // config.rows))
    x_BKF, shown_BK, click_B = columns_BKF[rows], log.shown_BK[rows], log.click_B[rows]
    if not (click_B >= 0).any():
        raise ValueError("Nothing was clicked, so there is no choice to model. Send outcomes of kind 'click'.")
    if x_BKF.shape[2] == 0 or not x_BKF.any():
        raise ValueError("No column differs within a list, so pull and choice are one. Send scores or features.")
    label_B = np.where(click_B < 0, log.width, click_B)
    frequency_L = np.bincount(label_B, minlength=log.width + 1) / len(label_B)
    pull_L, look = config.start_pull * frequency_L, 1 - config.start_pull
    weight = np.zeros(x_BKF.shape[2] + 1)
    if frequency_L[-1] > 0:
        weight[-1] = np.log(frequency_L[-1] / (1 - frequency_L[-1]) * log.width)
    last, index, design_BLP = -np.inf, np.arange(len(rows)), _design(x_BKF)
    for _ in range(config.iterations):
        rho_BL = _choice(x_BKF, shown_BK, weight)
        by_look, by_pull = look * rho_BL[index, label_B], pull_L[label_B]
        total = np.maximum(by_look + by_pull, TINY)
        now = float(np.log(total).mean())
        if now - last < config.tolerance:
            break
        last = now
        looked_B = by_look / total
        pull_L = np.bincount(label_B, weights=1 - looked_B, minlength=log.width + 1) / len(label_B)
        look = float(looked_B.mean())
        weight = _step(design_BLP, rho_BL, label_B, looked_B, weight, config.ridge)
    error_L, look_error = _errors(x_BKF, shown_BK, label_B, log.user_B[rows], (pull_L, look, weight))
    used = frequency_L[frequency_L > 0]
    return ChoiceModel(
        pull_K=pull_L[:-1],
        pull_none=float(pull_L[-1]),
        look=look,
        weight_F=weight[:-1],
        none_logit=float(weight[-1]),
        error_K=error_L[:-1],
        look_error=look_error,
        gain=last - float(used @ np.log(used)),
        decisions=len(rows),
    )


def _choice(x_BKF: F64, shown_BK: Bool, weight: F64) -> F64:
    logit_BK = np.where(shown_BK, x_BKF @ weight[:-1], -np.inf)
    logit_BL = np.concatenate([logit_BK, np.full((len(logit_BK), 1), weight[-1] if weight[-1] else -np.inf)], axis=1)
    e = np.exp(logit_BL - logit_BL.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def _design(x_BKF: F64) -> F64:
    """(B, L, P): the columns, and the indicator of "no click" as the last parameter."""
    rows, width, columns = x_BKF.shape
    design = np.zeros((rows, width + 1, columns + 1))
    design[:, :width, :columns] = x_BKF
    design[:, width, columns] = 1.0
    return design


def _step(design_BLP: F64, rho_BL: F64, label_B: I64, looked_B: F64, weight: F64, ridge: float) -> F64:
    """One Newton step of the weighted conditional logit."""
    mean_BP = (rho_BL[:, None, :] @ design_BLP)[:, 0]
    gradient = looked_B @ (design_BLP[np.arange(len(label_B)), label_B] - mean_BP) - ridge * weight
    flat = design_BLP.reshape(-1, design_BLP.shape[2])
    scaled = flat * (rho_BL * looked_B[:, None]).reshape(-1, 1)
    hessian = scaled.T @ flat - (mean_BP * looked_B[:, None]).T @ mean_BP + ridge * np.eye(len(weight))
    step = np.linalg.solve(hessian, gradient)
    if not weight[-1]:
        step[-1] = 0.0  # nobody left without a click: there is no such label
    return np.asarray(weight + step)


def _errors(x_BKF: F64, shown_BK: Bool, label_B: I64, user_B: I64, fitted: tuple[F64, float, F64]) -> tuple[F64, float]:
    """Standard errors of beta (with "no click") and of the share who look: sandwich, clustered by user."""
    pull_L, look, weight = fitted
    index = np.arange(len(label_B))
    rho_BL = _choice(x_BKF, shown_BK, weight)
    own_B = rho_BL[index, label_B]
    p_B = np.maximum(pull_L[label_B] + look * own_B, TINY)
    design = _design(x_BKF)
    centred = design[index, label_B] - np.einsum("bl,blp->bp", rho_BL, design)
    of_pull = -np.repeat(own_B[:, None], len(pull_L), axis=1)
    of_pull[index, label_B] += 1
    score_BP = np.concatenate([of_pull, (look * own_B)[:, None] * centred], axis=1) / p_B[:, None]
    bread = np.linalg.pinv(score_BP.T @ score_BP, hermitian=True)
    group = np.unique(np.where(user_B < 0, user_B.max(initial=-1) + 1 + index, user_B), return_inverse=True)[1]
    summed = np.zeros((int(group.max()) + 1, score_BP.shape[1]))
    np.add.at(summed, group, score_BP)
    covariance = bread @ (summed.T @ summed) @ bread
    of_beta = covariance[: len(pull_L), : len(pull_L)]
    return np.sqrt(np.maximum(np.diag(of_beta), 0)), sqrt(max(float(of_beta.sum()), 0.0))
