"""What keeps the tasks of a dream apart: from each other, and from what will be asked elsewhere.

Seeds that differ are not tasks that differ: a program may have a dozen tasks for all seeds there are. So tasks are
told apart by what they say and how they are solved (`practice.same`). Some of a program's are kept for its proof, some
choose between weights, and only the rest is rehearsed. A task that says what an exam asks is nobody's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dayjob.practice.environments.program import Program
from dayjob.practice.environments.program_wire import ProgramFault
from dayjob.practice.same import begun
from dayjob.records import Json

PARTS = 4  # at most one of them is for the proof and one to choose by; the others are rehearsed
IN_VAIN = 64  # seeds in a row that are no new task: then there are hardly more
LEAST_TASKS = 8


def _nowhere(_: Sequence[Json]) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Apart:
    """``key``: of the seeds that programs see (`Program.key`). ``asked``: whether a conversation says what is asked
    elsewhere; ``mark`` says of what that is."""

    key: str = ""
    asked: Callable[[Sequence[Json]], bool] = _nowhere
    mark: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Tasks of a program. ``seeds``: of different ones, as they were found; the first ``each`` are for the proof, as
    many behind them choose between weights. ``marks``: of both, which nobody rehearses. ``asked``: seeds that were
    passed over, since they say what is asked elsewhere."""

    seeds: tuple[int, ...] = ()
    each: int = 0
    marks: frozenset[str] = frozenset()
    asked: int = 0

    @property
    def proof(self) -> tuple[int, ...]:
        """What the pass rates before and after are told of."""
        return self.seeds[: self.each]

    @property
    def look(self) -> tuple[int, ...]:
        """What chooses between weights."""
        return self.seeds[self.each : 2 * self.each]


async def hold(program: Program, *, count: int, apart: Apart) -> Held:
    """Up to ``count`` tasks for the proof and as many to choose by, of a quarter of all tasks each at most. Raises
    ProgramFault where the program sets none."""
    found: dict[str, int] = {}
    asked = vain = 0
    for seed in itertools.count():
        if len(found) == PARTS * count or vain == IN_VAIN:
            break
        begins, mark = await begun(program, seed)
        is_asked = apart.asked(begins)
        asked += is_asked
        vain = vain + 1 if is_asked or mark in found else 0
        if not vain:
            found[mark] = seed
    each = min(count, len(found) // PARTS)
    return Held(
        seeds=tuple(found.values()), each=each, marks=frozenset(list(found)[: 2 * each]), asked=asked,
    )  # fmt: skip


def check_held(held: Held) -> None:
    """Raises ProgramFault where there are too few tasks to keep any."""
    if len(held.seeds) < LEAST_TASKS:
        asked = " that no exam asks" if held.asked else ""
        raise ProgramFault(
            f"it sets {len(held.seeds)} different tasks{asked}, and {LEAST_TASKS} are needed: some are kept for its "
            "proof, some to choose between weights"
        )
