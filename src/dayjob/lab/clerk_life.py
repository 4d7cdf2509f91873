"""Many days and nights of one method in one office, in memory and on disk: a run that was stopped goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clerk.office import Office
from clerk.staff import Ask, Load, Word, asks_of

from dayjob.endings import OutcomeKind
from dayjob.lab import figures
from dayjob.lab.clerk_board import FRESH, Board, Said
from dayjob.lab.clerk_desk import Answered, Desk, Diary, Serving, new_board
from dayjob.learn.language.night import Night
from dayjob.learn.language.writing import BASE

TENANTS = "office"  # the layer of everybody
STATE = "state.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What is played before one night: a day, or the quiet time after it, in which what held that day still holds."""

    day: int
    quiet: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Calendar:
    """How long, and when nobody speaks of any convention: before day ``quiet_before`` (from 1 on) there is a quiet time
    with a night of its own."""

    days: int = 20
    load: Load = field(default_factory=Load)
    quiet_before: int = 11
    quiet_days: int = 3  # of everyday traffic that stand for a month: what is rehearsed then are these alone

    @property
    def turns(self) -> list[Turn]:
        """What is played, each with a night after it."""
        found = [Turn(day=day) for day in range(self.days)]
        if 0 < self.quiet_before < self.days:
            found.insert(self.quiet_before, Turn(day=self.quiet_before - 1, quiet=True))
        return found

    def asks(self, here: Office, turn: Turn) -> list[Ask]:
        """What is asked in a turn."""
        if not turn.quiet:
            return asks_of(here, turn.day, load=self.load)
        load = Load(everyday=self.quiet_days * self.load.everyday, about=0, work=self.load.work)
        return asks_of(here, turn.day, load=load, quiet=True)


@dataclass(slots=True, kw_only=True)
class Life:
    """Everything that a day or night needs of those before it."""

    here: Office
    board: Board
    diary: Diary = field(default_factory=Diary)
    rows: list[dict[str, Any]] = field(default_factory=list)  # one a night
    adapters: dict[str, str] = field(default_factory=dict)  # by layer: the folder's name of what serves it
    retired: dict[str, tuple[str, ...]] = field(default_factory=dict)  # by layer

    def serving(self, desk: Desk, folder: Path) -> Serving:
        """What answers by day."""
        found = {layer: desk.read(folder / name) for layer, name in self.adapters.items()}
        return Serving(
            adapter=found.get(TENANTS, BASE),
            version=TENANTS if TENANTS in found else FRESH,
            own={layer: (adapter, layer) for layer, adapter in found.items() if layer != TENANTS},
        )

    def take(self, layer: str, night: Night, *, folder: Path, retired: tuple[str, ...]) -> None:
        """A night's adapter serves its layer from now on; one that made nothing leaves the base."""
        self.adapters.pop(layer, None)
        if night.state:
            name = f"{layer}-{len(self.rows)}"
            shutil.rmtree(folder / name, ignore_errors=True)
            night.save(folder / name, base="clerk")
            self.adapters[layer] = name
        self.retired[layer] = retired
        self.board.retire(layer, retired)


def begin(desk: Desk, here: Office) -> Life:
    """The morning of the first day."""
    return Life(here=here, board=new_board(desk))


def save(life: Life, folder: Path) -> None:
    """The whole state, after a night; adapters that serve no more are removed."""
    figures.keep(
        folder / STATE,
        {
            "answered": [_answered_to(one) for one in life.diary.answered],
            "words": {id: [asdict(word) for word in words] for id, words in life.diary.words.items()},
            "later": [[day, _answered_to(one), asdict(word)] for day, one, word in life.diary.later],
            "said": [asdict(one) for one in life.board.said],
            "rows": life.rows, "adapters": life.adapters,
            "retired": {layer: list(notes) for layer, notes in life.retired.items()},
        },
    )  # fmt: skip
    for old in folder.iterdir():
        if old.is_dir() and old.name not in life.adapters.values():
            shutil.rmtree(old)


def resume(desk: Desk, here: Office, *, calendar: Calendar, folder: Path) -> Life:
    """The life in a folder, after its last whole night; a new one where there is none."""
    life = begin(desk, here)
    path = folder / STATE
    if not path.exists():
        return life
    kept = json.loads(path.read_text())
    asks = {one.id: one for turn in calendar.turns[: len(kept["rows"])] for one in calendar.asks(here, turn)}
    life.diary.answered = [_answered_from(one, asks) for one in kept["answered"]]
    life.diary.words = {id: [Word(**word) for word in words] for id, words in kept["words"].items()}
    life.diary.later = [(day, _answered_from(one, asks), Word(**word)) for day, one, word in kept["later"]]
    life.board.tell([Said(**(one | {"kind": OutcomeKind(one["kind"])})) for one in kept["said"]])
    life.rows, life.adapters = kept["rows"], kept["adapters"]
    life.retired = {layer: tuple(notes) for layer, notes in kept["retired"].items()}
    for layer, notes in life.retired.items():
        life.board.retire(layer, notes)
    return life


def _answered_to(one: Answered) -> dict[str, Any]:
    return {
        "id": one.ask.id, "system": one.system, "notes": list(one.notes), "own": one.own, "text": one.text,
        "ids": list(one.ids), "logprobs": list(one.logprobs),
    }  # fmt: skip


def _answered_from(one: Mapping[str, Any], asks: Mapping[str, Ask]) -> Answered:
    return Answered(
        ask=asks[one["id"]], system=one["system"], notes=tuple(one["notes"]), own=one["own"], text=one["text"],
        ids=tuple(one["ids"]), logprobs=tuple(one["logprobs"]),
    )  # fmt: skip
