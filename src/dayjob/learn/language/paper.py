"""What an exam asks, chosen before anything is answered: by hashes, so that the same night asks the same. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

from dayjob.learn.language.splits import Asking, Split, key_of, place_of
from dayjob.learn.language.table import Question

MOST_QUESTIONS = 500  # askings of each part


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """What is asked. ``taught``: ids of the lessons that the night learned from; ``suites`` by name; ``canaries`` are
    phrases."""

    split: Split
    taught: frozenset[str]
    suites: Mapping[str, Sequence[Question]]
    canaries: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The askings that are asked. ``taught``: of those that the night learned from; ``rest``: of what else was asked of
    the same notes, and held back or left out; ``exam``: of those kept for the exam."""

    taught: tuple[Asking, ...]
    rest: tuple[Asking, ...]
    exam: tuple[Asking, ...]

    @property
    def askings(self) -> tuple[Asking, ...]:
        """All of them."""
        return (*self.taught, *self.rest, *self.exam)


def draw(paper: Paper, *, askable: Collection[str], most: int = MOST_QUESTIONS) -> Drawn:
    """At most ``most`` askings of each part, among those whose lessons' ids are ``askable``.

    Of what was not taught at all nothing is asked.
    """
    split = paper.split
    taught = [one for one in split.train if one.lesson.id in paper.taught and one.lesson.id in askable]
    families = {one.lesson.family for one in taught}
    notes = {one.teacher for one in taught}
    others = [one for one in split.train if one.lesson.id not in paper.taught]
    rest = [one for one in (*others, *split.stop) if one.lesson.id in askable and notes.intersection(one.notes)]
    exam = [one for one in split.exam if one.lesson.id in askable and one.lesson.family in families]
    return Drawn(taught=tuple(deal(taught, most)), rest=tuple(deal(rest, most)), exam=tuple(deal(exam, most)))


def deal(askings: Iterable[Asking], most: int) -> list[Asking]:
    """At most ``most`` of them: one asking of each family before a second of any, by hashes, and in their own order."""
    given = list(askings)
    families: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
    for number, one in enumerate(given):
        place = place_of(one.lesson.family, key_of(one.lesson.question))
        families[one.lesson.family].append((place, number))
    rows = sorted((sorted(family) for family in families.values()), key=lambda row: row[0])
    dealt = [one for one in chain.from_iterable(zip_longest(*rows)) if one is not None]
    return [given[number] for number in sorted(number for _, number in dealt[:most])]


class Ticks:
    """Progress in answers: the share of those to write that are written."""

    def __init__(self, total: int, tell: Callable[[float], None]) -> None:
        """``total`` answers are to be written, ``tell`` hears the share in [0, 1]."""
        self._total, self._tell, self._done = total, tell, 0

    def __call__(self, answers: int) -> None:
        """So many more are written."""
        self._done += answers
        self._tell(min(1.0, self._done / max(1, self._total)))
