"""A stranger's click log, CSV or JSONL, read into a ClickLog. Tolerant of names, strict about sense.

**JSONL**, one shown list a line:

    {"shown": ["a", "b", "c"], "clicked": "b", "user": "u1", "scores": [.9, .7, .1], "at": "2026-11-20T09:00:00Z"}

``clicked``: an id of the list, several ids, a position counted from 1 (where ids are strings), or null. Optional are
``user``,
``scores``, ``propensity`` (a number for each position), ``explored`` (true where position 1 was drawn uniformly),
``first`` (the id the policy would have placed first), ``version`` (whose order it is), ``rival`` (in a comparison by a
coin, what the other order puts first), ``query`` (relevance then belongs to query and item), ``truth``
(the right id),
``reward`` and ``at``.

What `dayjob export POLICY` writes is read too.

**CSV** with a header, one impression a row: ``list_id,item,position,clicked`` and optionally ``user``, ``score``,
``propensity``, ``explored``, ``first``, ``query``, ``truth``, ``reward``, ``at``. Rows of one list need not be
adjacent. Without a list column every row is a list of one item at its position. Positions count from 1, or from 0
where a 0 occurs.

Where the policy's first choice is not given and scores are, it is the item of the highest score.
"""

import csv
import gzip
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from math import isfinite, nan
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson

from dayjob.endings import Invalid
from dayjob.signals.clicklog import F64, FILLER, I64, Bool, ClickLog
from dayjob.signals.exported import as_log_line

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "list": ("list_id", "list", "session_id", "session", "impression_id", "request_id", "decision", "decision_id"),
    "item": ("item", "item_id", "doc", "doc_id", "document", "url", "product_id", "candidate", "candidate_id", "id"),
    "position": ("position", "rank", "slot", "pos"),
    "clicked": ("clicked", "click", "is_click", "clicks"),
    "shown": ("shown", "items", "ranking", "list"),
    "user": ("user", "user_id"),
    "score": ("score", "scores", "model_score"),
    "propensity": ("propensity", "propensities", "propensity_score", "probability"),
    "explored": ("explored", "intervened", "randomised", "randomized"),
    "first": ("first", "first_choice"),
    "version": ("version", "ranker"),
    "rival": ("rival",),
    "query": ("query", "query_id", "qid"),
    "truth": ("truth", "label"),
    "reward": ("reward",),
    "at": ("at", "timestamp", "time", "date", "ts"),
}
MILLISECONDS_FROM = 1e11  # an epoch beyond this is in milliseconds (as seconds it would be the year 5138)
LONGEST = 1000  # positions of a list; more is taken for a mistake
SECONDS_A_DAY = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFile:
    """A log and what the file said beside it: ``days`` it spans (nan when untimed), ``notes`` on how it was
    understood.
    """

    log: ClickLog
    days: float
    notes: tuple[str, ...]


def read_log(path: Path, progress: Callable[[int], None] | None = None) -> LogFile:
    """Reads ``path`` (.gz too). ``progress`` is told the bytes read so far.

    Raises Invalid naming the line and the remedy when something does not make sense.
    """
    if not path.is_file():
        raise Invalid(f"{path} is no file: name a CSV or JSONL log of shown lists and clicks.")
    with path.open("rb") as raw:
        stream: BinaryIO | gzip.GzipFile = gzip.GzipFile(fileobj=raw) if path.name.endswith(".gz") else raw
        told = (lambda: progress(raw.tell())) if progress is not None else (lambda: None)
        lines = _lines(stream, told)
        first = next(lines, b"")
        builder = _Builder()
        if first.lstrip().startswith(b"{"):
            _read_jsonl(first, lines, builder)
        else:
            _read_csv(first, lines, builder)
    return builder.finish()


def _lines(stream: BinaryIO | gzip.GzipFile, told: Callable[[], None]) -> Iterator[bytes]:
    for number, line in enumerate(stream):
        if number % 10_000 == 0:
            told()
        yield line
    told()


def _read_jsonl(first: bytes, lines: Iterator[bytes], builder: "_Builder") -> None:
    number = 0
    for number, line in enumerate(_chain(first, lines), start=1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise Invalid(f"line {number} is no JSON ({error}): write one object a line.") from None
        if not isinstance(row, dict):
            raise Invalid(f'line {number} is no object: write {{"shown": [...], "clicked": ...}}.')
        row = as_log_line(row, number)
        _add_list({name: row[key] for name, keys in SYNONYMS.items() for key in keys if key in row}, number, builder)


def _add_list(row: dict[str, Any], number: int, builder: "_Builder") -> None:
    shown = row.get("shown")
    if not isinstance(shown, list) or not shown:
        raise Invalid(f'line {number}: "shown" must be the list of ids in the order shown.')
    if len(shown) > LONGEST:
        raise Invalid(f"line {number}: {len(shown)} items; a list holds at most {LONGEST}.")
    marks = _clicked(row, shown, number)
    scores = _numbers(row.get("score"), shown, "scores", number)
    propensities = _numbers(row.get("propensity"), shown, "propensity", number)
    place = builder.start(number, _Facts.of(row, number))
    for position, item in enumerate(shown):
        if isinstance(item, dict | list) or item is None:
            raise Invalid(f'line {number}: an id in "shown" must be text or a number, not {item!r}.')
        builder.add(place, str(item), position=position, clicked=position in marks, score=scores[position],
                    propensity=propensities[position])  # fmt: skip


def _clicked(row: dict[str, Any], shown: list[Any], number: int) -> set[int]:
    clicked, marks = row.get("clicked"), set()
    if clicked is None and "position" in row:
        clicked = row["position"]
        asked = [] if clicked is None else [clicked]
        return {_place(c, shown, number) for c in asked}
    for one in clicked if isinstance(clicked, list) else [] if clicked is None else [clicked]:
        if one in shown and not isinstance(one, bool):
            marks.add(shown.index(one))
        else:
            marks.add(_place(one, shown, number))
    return marks


def _place(one: Any, shown: list[Any], number: int) -> int:
    if isinstance(one, bool) or not isinstance(one, int) or not 1 <= one <= len(shown):
        raise Invalid(
            f'line {number}: clicked {one!r} is neither an id in "shown" nor a position from 1 to {len(shown)}.'
        )
    return one - 1


def _numbers(value: Any, shown: list[Any], name: str, number: int) -> list[float]:
    if value is None:
        return [nan] * len(shown)
    if not isinstance(value, list) or len(value) != len(shown):
        raise Invalid(f'line {number}: "{name}" must hold one number for each of the {len(shown)} items shown.')
    return [_number(v, name, number) for v in value]


def _read_csv(first: bytes, lines: Iterator[bytes], builder: "_Builder") -> None:
    texts = (line.decode("utf-8-sig", "replace") for line in _chain(first, lines))
    rows = _rows(csv.reader(texts, delimiter=_delimiter(first)))
    header = next(rows, [])
    at = _header(header)
    alone = "list" not in at
    if alone:
        builder.note("No list column: every row is read as a list of one item at its position.")
    for number, row in enumerate(rows, start=2):
        if not row:
            continue
        if len(row) != len(header):
            raise Invalid(
                f"line {number} has {len(row)} columns, the header {len(header)}: quote texts that hold commas."
            )
        cell = {name: row[index] for name, index in at.items()}
        position = _number(cell["position"], "position", number)
        if not (0 <= position <= LONGEST and position == int(position)):
            raise Invalid(f"line {number}: position {cell['position']!r} must be a whole number from 1 to {LONGEST}.")
        key = number if alone else cell["list"]
        place = builder.place(key)
        if place is None:
            place = builder.start(key, _Facts.of(cell, number))
        builder.add(
            place,
            cell["item"],
            position=int(position),
            clicked=_mark(cell["clicked"], "clicked", number),
            score=_number(cell.get("score", ""), "score", number),
            propensity=_number(cell.get("propensity", ""), "propensity", number),
        )


def _rows(reader: Iterator[list[str]]) -> Iterator[list[str]]:
    number = 0
    try:
        for row in reader:
            number += 1
            yield row
    except csv.Error as error:
        raise Invalid(
            f"line {number + 1} is no CSV ({error}): write text in UTF-8, quote cells that hold it."
        ) from None


def _delimiter(first: bytes) -> str:
    return max(",\t;", key=lambda d: first.count(d.encode()))


def _header(header: list[str]) -> dict[str, int]:
    names = [h.strip().lower() for h in header]
    at: dict[str, int] = {}
    for name, synonyms in SYNONYMS.items():
        found = next((names.index(s) for s in synonyms if s in names), None)
        if found is not None and found not in at.values():
            at[name] = found
    missing = [name for name in ("item", "position", "clicked") if name not in at]
    if missing:
        raise Invalid(
            f"line 1: no column for {', '.join(missing)} among {', '.join(names) or 'nothing'}. A CSV needs "
            'list_id,item,position,clicked; a JSONL line needs "shown" and "clicked".'
        )
    return at


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What is said of a whole list."""

    user: str
    query: str
    first: str
    rival: str
    truth: str
    version: str
    reward: float
    explored: bool
    at: float

    @classmethod
    def of(cls, row: Mapping[str, Any], number: int) -> "_Facts":
        return cls(
            user=_text(row.get("user")),
            query=_text(row.get("query")),
            first=_text(row.get("first")),
            rival=_text(row.get("rival")),
            truth=_text(row.get("truth")),
            version=_text(row.get("version")),
            reward=_number(row.get("reward", ""), "reward", number),
            explored=_mark(row.get("explored", ""), "explored", number),
            at=_when(row.get("at", ""), number),
        )


class _Builder:
    """Impressions as they come, lists of numbers; texts become codes at once, so a million rows stay small."""

    def __init__(self) -> None:
        self._lists: dict[Any, int] = {}
        self._items: dict[tuple[str, str], int] = {}
        self._users: dict[str, int] = {}
        self._names: list[tuple[str, str, str, str]] = []  # query, first, rival and truth of each list
        self._versions: dict[str, int] = {}
        self._version_B = array("q")
        self._list_I, self._item_I, self._position_I = array("q"), array("q"), array("q")
        self._click_I, self._score_I, self._propensity_I = array("b"), array("d"), array("d")
        self._user_B, self._reward_B, self._explored_B, self._at_B = array("q"), array("d"), array("b"), array("d")
        self._notes: list[str] = []

    def note(self, text: str) -> None:
        self._notes.append(text)

    def place(self, key: Any) -> int | None:
        """The row of a list that was started, None of a new one."""
        return self._lists.get(key)

    def start(self, key: Any, facts: _Facts) -> int:
        row = self._lists[key] = len(self._lists)
        self._user_B.append(self._users.setdefault(facts.user, len(self._users)) if facts.user else FILLER)
        self._reward_B.append(facts.reward)
        self._explored_B.append(facts.explored)
        self._at_B.append(facts.at)
        self._version_B.append(self._versions.setdefault(facts.version, len(self._versions)))
        self._names.append((facts.query, facts.first, facts.rival, facts.truth))
        return row

    def add(self, row: int, item: str, *, position: int, clicked: bool, score: float, propensity: float) -> None:
        code = (self._names[row][0], item)
        self._list_I.append(row)
        self._item_I.append(self._items.setdefault(code, len(self._items)))
        self._position_I.append(position)
        self._click_I.append(clicked)
        self._score_I.append(score)
        self._propensity_I.append(propensity)

    def finish(self) -> LogFile:
        if not self._lists:
            raise Invalid("The file holds no list: write one shown list a line (JSONL) or one impression a row (CSV).")
        list_I, position_I = np.array(self._list_I), np.array(self._position_I)
        if position_I.min() > 0:
            position_I = position_I - 1
        shape = (len(self._lists), int(position_I.max()) + 1)
        filled, counts = np.unique(list_I * shape[1] + position_I, return_counts=True)
        if (counts > 1).any():
            twice = int(filled[counts > 1][0])
            name = list(self._lists)[twice // shape[1]]
            raise Invalid(f"list {name!r} has two items at position {twice % shape[1] + 1}; give each list its own id.")
        grid = (list_I, position_I)
        item_BK: I64 = np.full(shape, FILLER, np.int64)
        item_BK[grid] = self._item_I
        click_BK: Bool = np.zeros(shape, bool)
        click_BK[grid] = np.array(self._click_I, dtype=bool)
        score_BK: F64 = np.full(shape, nan)
        score_BK[grid] = self._score_I
        propensity_BK: F64 = np.full(shape, nan)
        propensity_BK[grid] = self._propensity_I
        log = replace(
            ClickLog.of(item_BK, click_BK=click_BK, score_BK=score_BK, user_B=np.array(self._user_B)),
            propensity_BK=propensity_BK,
            intervened_B=np.array(self._explored_B, dtype=bool),
            reward_B=np.array(self._reward_B),
            rival_B=np.array(
                [self._items.get((q, r), FILLER) if r else FILLER for q, _, r, _ in self._names], np.int64
            ),
        )
        # A comparison is an order of its own: two numbers for each version.
        log = replace(log, order_B=2 * np.array(self._version_B) + (log.rival_B != FILLER))
        log = replace(log, first_B=self._first(log), truth_B=self._truth(log))
        at_B = np.array(self._at_B)
        order = np.argsort(at_B, kind="stable") if np.isfinite(at_B).all() else np.arange(len(log))
        days = float(np.ptp(at_B) / SECONDS_A_DAY) if np.isfinite(at_B).all() and len(log) > 1 else nan
        return LogFile(log=log.rows(order), days=days if days > 0 else nan, notes=tuple(self._notes))

    def _first(self, log: ClickLog) -> I64:
        given = np.array([self._items.get((q, f), FILLER) if f else FILLER for q, f, *_ in self._names], np.int64)
        if (given != FILLER).any() or not np.isfinite(log.score_BK).any():
            return given
        self.note("The policy's first choice is taken to be the item of the highest score.")
        best = np.where(np.isfinite(log.score_BK), log.score_BK, -np.inf).argmax(axis=1)
        known = np.isfinite(log.score_BK[log.shown_BK]).all() and log.shown_BK[:, 0].all()
        return np.where(known, log.item_BK[np.arange(len(log)), best], FILLER).astype(np.int64)

    def _truth(self, log: ClickLog) -> I64:
        given = np.array(
            [self._items.get((q, t), FILLER - 1) if t else FILLER - 1 for q, *_, t in self._names], np.int64
        )
        there = log.item_BK == given[:, None]
        return np.where(there.any(axis=1), there.argmax(axis=1), FILLER).astype(np.int64)


def _chain(first: bytes, lines: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from lines


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _number(value: Any, name: str, number: int) -> float:
    if value is None or value == "":
        return nan
    try:
        out = float(value)
    except (TypeError, ValueError):
        raise Invalid(f"line {number}: {name} {value!r} is no number.") from None
    if isinstance(value, bool) or not isfinite(out):
        raise Invalid(f"line {number}: {name} {value!r} must be a finite number; leave it out where unknown.")
    return out


def _mark(value: Any, name: str, number: int) -> bool:
    text = str(value).strip().lower()
    if text in ("", "0", "0.0", "false", "no", "none"):
        return False
    if text in ("1", "1.0", "true", "yes"):
        return True
    raise Invalid(f"line {number}: {name} {value!r} must be 0 or 1.")


def _when(value: Any, number: int) -> float:
    if value is None or value == "":
        return nan
    try:
        seconds = float(value)
        return seconds / 1000 if seconds > MILLISECONDS_FROM else seconds
    except (TypeError, ValueError):
        pass
    try:
        return datetime.fromisoformat(str(value)).timestamp()
    except ValueError:
        raise Invalid(f"line {number}: time {value!r} is neither ISO 8601 nor seconds since 1970.") from None
