"""A baseline learned from turns: which reward is to be expected from here?

Ridge regression of the episode's reward on what the *base* model makes of a turn's prompt (its last hidden state, which
does not move while the policy learns) and on how far the episode is. It is solved exactly from two running sums, older
steps fading: nothing to tune, nothing to diverge, the same numbers wherever it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]


@dataclass(slots=True)
class LinearValue:
    """V(x) = w x, w = (sum x x' + ridge I)^-1 sum x r, older sums fading by ``decay`` a step."""

    gram_XX: F64
    product_X: F64
    ridge: float = 1.0
    decay: float = 0.9
    seen: int = 0  # turns so far

    @staticmethod
    def of(width: int, *, ridge: float = 1.0, decay: float = 0.9) -> LinearValue:
        """For features of ``width`` numbers (the constant that is added not counted)."""
        size = width + 1
        return LinearValue(np.zeros((size, size)), np.zeros(size), ridge=ridge, decay=decay)

    def predict(self, features_NX: F64) -> F64:
        """The value of each row, within [0, 1] as rewards are. Raises ValueError before anything was learned."""
        if not self.seen:
            raise ValueError("nothing was learned yet: call learn first")
        weight_X = np.linalg.solve(self.gram_XX + self.ridge * np.eye(len(self.product_X)), self.product_X)
        return np.clip(_with_one(features_NX) @ weight_X, 0.0, 1.0)

    def learn(self, features_NX: F64, reward_N: F64) -> None:
        """Take in the turns of one step."""
        rows_NX = _with_one(features_NX)
        self.gram_XX = self.decay * self.gram_XX + rows_NX.T @ rows_NX
        self.product_X = self.decay * self.product_X + rows_NX.T @ np.asarray(reward_N, np.float64)
        self.seen += len(rows_NX)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """For a checkpoint."""
        return {"gram": self.gram_XX, "product": self.product_X, "seen": np.array([self.seen])}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """The inverse of :meth:`state`."""
        self.gram_XX, self.product_X = np.array(state["gram"]), np.array(state["product"])
        self.seen = int(state["seen"][0])


def turn_features(hidden_ND: F64, *, turn_N: F64, length_N: F64) -> F64:
    """What a value is learned from: the hidden state scaled to length 1, turns so far, the prompt's length (0 to 1)."""
    size_N1 = np.linalg.norm(hidden_ND, axis=1, keepdims=True)
    scaled_ND = hidden_ND / np.maximum(size_N1, 1e-9)
    return np.column_stack([scaled_ND, np.log1p(turn_N), turn_N / 100.0, length_N])


def _with_one(features_NX: F64) -> F64:
    return np.column_stack([np.asarray(features_NX, np.float64), np.ones(len(features_NX))])
