"""What a ranker is, to whoever serves or judges it. Batch-first; numpy only, never torch."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """A batch of lists to order: B lists of K candidates each (lists of other lengths go in a batch of their own)."""

    context_BD: F32  # D = context_dim
    candidate_BKE: F32  # E = candidate_dim
    pair_BKP: F32  # P = pair_dim, may be 0
    base_BK: F64  # the caller's own scores, on any scale
    loss_BKK: F64 | None = None  # what it costs to show row k first when column j is the best; zero diagonal


class Ranker(Protocol):
    """One version of a ranker, ready to serve. Immutable; safe to share between threads."""

    def score(self, lists: Lists) -> F64:
        """Scores (B, K), higher first. The same lists give the same scores; a permutation permutes them."""
        ...

    def utility(self, lists: Lists) -> F64:
        """Belief (B, K), highest for what is most probably the best; equal to the scores where no losses are known.

        A trial compares beliefs: people show which of two they prefer, never by how much the other would be worse.
        """
        ...
