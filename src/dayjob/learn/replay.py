"""What a ranker learns from: closed decisions as arrays, in the order of the journal.

Candidates are numbered by *slot*, the caller's order; a position is a place in the list that was shown. ``shown_BK``
leads from the second to the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dayjob.policies.baseline import great_circle_km, km_between

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I16 = npt.NDArray[np.int16]
I32 = npt.NDArray[np.int32]

LOSSES_AT_ONCE = 4_000_000  # numbers of a chunk of loss matrices
FILLER = -1  # pads lists shorter than K, and stands for "nothing" in clicks, truths and users


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """B decisions of at most K candidates.

    - ``context_BD``: float32 contexts.
    - ``vector_VE``: float32 distinct candidate vectors; ``candidate_BK``: int32 row of it per slot, -1 filler (last).
    - ``pair_BKP``: float32 features of (context, candidate), P may be 0; 0 in fillers.
    - ``base_BK``: float32 the caller's scores; 0 in fillers.
    - ``shown_BK``: int16 slot at each position, -1 filler. Lists may be shown shorter than the candidates.
    - ``propensity_BK``: float32 probability of the shown item at its position given the ones above it, in (0, 1].
    - ``click_B``: int16 *position* that was clicked, 0 first, -1 none.
    - ``truth_B``: int16 *slot* that was right, where somebody said so, else -1.
    - ``user_B``: int32, -1 anonymous.
    - ``role_B``: int16, 0 champion, 1 trial, 2 baseline.
    - ``loss_BKK``: float32 cost of showing slot i first when slot j (last axis) is the right one, or None.
    - ``place_BK2``: float64 latitude and longitude in degrees, 0 in fillers: the cost is the distance in km, worked out
      where it is asked for. None where ``loss_BKK`` says it, or nobody does.
    - ``reward_B``: float32 reward in [0, 1], nan where there was none; None where nobody gave any.
    - ``rewarded_B``: int16 *slot* of which the reward speaks; looked at where there is one.
    """

    context_BD: F32
    vector_VE: F32
    candidate_BK: I32
    pair_BKP: F32
    base_BK: F32
    shown_BK: I16
    propensity_BK: F32
    click_B: I16
    truth_B: I16
    user_B: I32
    role_B: I16
    loss_BKK: F32 | None = None
    place_BK2: F64 | None = None
    reward_B: F32 | None = None
    rewarded_B: I16 | None = None

    def __len__(self) -> int:
        return len(self.context_BD)

    @property
    def width(self) -> int:
        """K."""
        return int(self.candidate_BK.shape[1])

    @property
    def real_BK(self) -> npt.NDArray[np.bool_]:
        """Which slots hold a candidate."""
        return self.candidate_BK >= 0

    @property
    def clicked_slot_B(self) -> I16:
        """The slot that was clicked, -1 none."""
        at = np.maximum(self.click_B, 0)[:, None].astype(np.int64)
        slot_B = np.take_along_axis(self.shown_BK, at, axis=1)[:, 0]
        return np.where(self.click_B >= 0, slot_B, FILLER).astype(np.int16)

    @property
    def position_BK(self) -> I16:
        """The position at which each slot was shown, -1 when it was not."""
        position_BK = np.full(self.shown_BK.shape, FILLER, np.int16)
        row_BK, at_BK = np.nonzero(self.shown_BK >= 0)
        position_BK[row_BK, self.shown_BK[row_BK, at_BK]] = at_BK
        return position_BK

    @property
    def has_losses(self) -> bool:
        """Whether it is known what showing one candidate for another costs."""
        return self.loss_BKK is not None or self.place_BK2 is not None

    def losses(self) -> Iterator[tuple[slice, F32]]:
        """(decisions, their loss matrices (b, K, K)) in chunks: all of them at once are too many. Raises ValueError
        where none are known."""
        step = max(1, LOSSES_AT_ONCE // max(self.width, 1) ** 2)
        for start in range(0, len(self), step):
            at = slice(start, start + step)
            if self.loss_BKK is not None:
                yield at, self.loss_BKK[at]
            elif self.place_BK2 is not None:
                yield at, great_circle_km(self.place_BK2[at]).astype(np.float32)
            else:
                raise ValueError("this replay has no losses: look at has_losses first.")

    def loss_of(self, first_B: npt.NDArray[np.int64], right_B: npt.NDArray[np.int64]) -> F32:
        """What showing slot ``first_B`` first costs when slot ``right_B`` is right, (B,): 1 for another slot where no
        losses are known."""
        rows = np.arange(len(self))
        found_B: F32
        if self.loss_BKK is not None:
            found_B = self.loss_BKK[rows, first_B, right_B]
        elif self.place_BK2 is not None:
            found_B = km_between(self.place_BK2[rows, first_B], self.place_BK2[rows, right_B]).astype(np.float32)
        else:
            found_B = (first_B != right_B).astype(np.float32)
        return found_B

    def rows(self, index: npt.NDArray[np.integer] | slice) -> Replay:
        """The decisions at ``index``; candidate vectors are shared, not copied."""
        picked: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "vector_VE" and value is not None:
                picked[field.name] = value[index]
        return replace(self, **picked)

    def check(self) -> Replay:
        """Itself, once every shape and range has been looked at. Raises ValueError that names the array."""
        count, width = self.candidate_BK.shape
        wanted: dict[str, tuple[int, ...]] = {
            "context_BD": (count, self.context_BD.shape[1]),
            "pair_BKP": (count, width, self.pair_BKP.shape[2]),
            **dict.fromkeys(("base_BK", "shown_BK", "propensity_BK"), (count, width)),
            **dict.fromkeys(("click_B", "truth_B", "user_B", "role_B"), (count,)),
        }
        if self.loss_BKK is not None:
            wanted["loss_BKK"] = (count, width, width)
        if self.place_BK2 is not None:
            wanted["place_BK2"] = (count, width, 2)
            if self.loss_BKK is not None:
                raise ValueError("loss_BKK and place_BK2 both say what a choice costs: give one of them.")
        if (self.reward_B is None) != (self.rewarded_B is None):
            raise ValueError("reward_B and rewarded_B belong together: give both, or neither.")
        if self.reward_B is not None:
            wanted |= {"reward_B": (count,), "rewarded_B": (count,)}
        for name, shape in wanted.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, not {shape}.")
        ceilings = {"candidate_BK": len(self.vector_VE), "shown_BK": width, "click_B": width, "truth_B": width}
        for name, ceiling in ceilings.items():
            value = getattr(self, name)
            if value.size and (value.min() < FILLER or value.max() >= ceiling):
                raise ValueError(f"{name} must lie between -1 and {ceiling - 1}.")
        for name in ("context_BD", "vector_VE", "pair_BKP", "base_BK", "propensity_BK"):
            if not np.isfinite(getattr(self, name)).all():
                raise ValueError(f"{name} holds a number that is not finite.")
        if self.reward_B is not None and self.rewarded_B is not None:
            told_B = np.isfinite(self.reward_B)
            if told_B.any() and (self.reward_B[told_B].min() < 0 or self.reward_B[told_B].max() > 1):
                raise ValueError("reward_B must lie in [0, 1]; scale it by the policy's reward_range.")
            at_B = np.clip(self.rewarded_B, 0, width - 1).astype(np.int64)
            if ((self.rewarded_B[told_B] < 0) | ~self.real_BK[np.arange(count), at_B][told_B]).any():
                raise ValueError("rewarded_B names a slot that holds no candidate.")
        if ((self.click_B >= 0) & (self.clicked_slot_B < 0)).any():
            raise ValueError("click_B names a position where nothing was shown.")
        return self


def concatenate(parts: list[Replay]) -> Replay:
    """Replays of the same candidate vectors, one after the other."""
    first = parts[0]
    if any(part.vector_VE is not first.vector_VE for part in parts):
        raise ValueError("Only replays that share their candidate vectors can be joined.")
    names = [f.name for f in fields(Replay) if f.name != "vector_VE" and getattr(first, f.name) is not None]
    return replace(first, **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
