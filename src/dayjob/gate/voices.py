"""How much each person may weigh in the watch over champion and holdback: the same cap as in a trial (``control``)."""

from collections.abc import Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dayjob.gate.control import ANONYMOUS, RETURNED, Floats, Ints, weight_left

SLOTS = 1024


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Voices:
    """The weight given so far, to all and to each of at most ``SLOTS`` people.

    Full, the table makes room as a trial's does: whoever weighs least goes, and the newcomer inherits that weight.
    """

    total: float = 0.0
    people: float = 0.0
    user_U: tuple[int, ...] = ()
    spent_U: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Numbers and lists of numbers only."""
        return {
            "total": self.total, "people": self.people, "user_U": list(self.user_U), "spent_U": list(self.spent_U),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Voices":
        """The inverse of :meth:`to_dict`."""
        return cls(**fields | {"user_U": tuple(fields["user_U"]), "spent_U": tuple(fields["spent_U"])})

    def without(self, gone: Set[int]) -> "Voices":
        """Without the entries of people who were erased; their weight stays, as in ``trial.forget``."""
        spent_of = dict(zip(self.user_U, self.spent_U, strict=True))
        left = [spent_of.pop(user) for user in self.user_U if user in gone]
        if left:
            spent_of[RETURNED] = spent_of.get(RETURNED, 0.0) + sum(left)
        return replace(self, user_U=tuple(spent_of), spent_U=tuple(spent_of.values()))


def weigh(state: Voices, user_N: Ints) -> tuple[Voices, Floats]:
    """The state after N more decisions in order, and the weight in [0, 1] of each, fixed by what came before it."""
    spent_of = dict(zip(state.user_U, state.spent_U, strict=True))
    total, people = state.total, state.people
    weight_N = np.empty(user_N.size)
    for n, user in enumerate(user_N.tolist()):
        spent = 0.0
        if user != ANONYMOUS:
            if user not in spent_of and len(spent_of) >= SLOTS:
                least = min(spent_of, key=spent_of.__getitem__)
                spent_of[user] = spent_of.pop(least)
            spent = spent_of.get(user, 0.0)
        weight = float(weight_left(total, people, spent_R=spent))
        people += spent == 0.0
        total += weight
        weight_N[n] = weight
        if user != ANONYMOUS:
            spent_of[user] = spent + weight
    return Voices(total=total, people=people, user_U=tuple(spent_of), spent_U=tuple(spent_of.values())), weight_N
