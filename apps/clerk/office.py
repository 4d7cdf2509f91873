"""An office where the clerk works: its conventions, its staff, who asks what on which day, and what a test may ask.

A convention is a lesson of ``Side.TEST``, so nothing that the clerk was brought up with teaches it. The office's hold
for everybody; personal ones for one person, and two people's are opposites. What is asked by day and what tests ask are
apart: by wording where the answer is a fact, by case where it follows from a rule. Equal seeds, equal offices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random
from typing import Literal

from clerk.facts import Relation, relations
from clerk.lessons import Lesson, Probe, contradiction, draw
from clerk.split import Side, digest, side
from clerk.wordings import correction, question, sentence

How = Literal["answer", "rule", "hint", "late"]
HOWS: tuple[How, ...] = ("answer", "rule", "hint", "late")
TEST_CASES = 3  # one in so many cases of a rule is for tests
TRIES = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much an office teaches. ``new``: further conventions of each kind a day, from the second day on."""

    answer: int = 6
    rule: int = 4
    hint: int = 4
    late: int = 4
    personal: int = 2
    days: int = 5
    new: tuple[int, int, int, int] = (0, 0, 0, 0)  # as HOWS
    reversals: int = 0  # of the office's conventions, each day from the third on


@dataclass(frozen=True, slots=True, kw_only=True)
class Convention:
    """What holds in the office, or for one person, from one day (the first is 0) to before another.

    ``words``: how a colleague says it. ``opening``: the question with which it comes up, the same for all who teach it,
    for a note becomes everybody's when several say the same of the same.
    """

    name: str
    how: How
    lesson: Lesson
    words: str
    opening: Probe
    whose: str | None = None  # a person; None: the office's
    since: int = 0
    until: int | None = None
    reverses: str = ""  # the convention that ended when it began

    @property
    def number(self) -> int:
        """Its place among all that were drawn."""
        return int(self.name[1:])

    def holds(self, day: int) -> bool:
        """Whether it holds on a day."""
        return self.since <= day and (self.until is None or day < self.until)

    def ask(self, rng: Random, where: Side) -> Probe:
        """A question about it that is asked by day (``Side.TRAIN``) or in tests."""
        return ask_of(self.lesson, rng, where=where)


def ask_of(lesson: Lesson, rng: Random, *, where: Side) -> Probe:
    """A probe of one side: of a rule a case of that side, of anything else a wording of that side."""
    for _ in range(TRIES):
        probe = lesson.ask(rng, where)
        if lesson.kind != "rule" or case_side(lesson, probe.case) is where:
            return probe
    raise ValueError(f"no case of {lesson.text!r} is on the side {where}")


def case_side(lesson: Lesson, case: str) -> Side:
    """Which side a case of a rule is on, by a hash of the two."""
    return Side.TEST if digest("case", *lesson.key, case) % TEST_CASES == 0 else Side.TRAIN


def apart(one: Lesson, other: Lesson) -> bool:
    """Whether neither changes what the other's questions are answered with."""
    if one.about == other.about and one.kind == other.kind == "rule" and one.about != "wrap":
        return False
    for wrap, beside in ((one, other), (other, one)):
        if wrap.about == "wrap" and (beside.about == wrap.key[1] or beside.key == wrap.key):
            return False
    for hint, beside in ((one, other), (other, one)):
        if hint.kind == "hint" and beside.kind != "rule" and beside.key[1] in hint.text:
            return False  # it names no relation, and may name another subject to be the same as
    return one.key != other.key


@dataclass(frozen=True, kw_only=True)
class Office:
    """One office, drawn from its seed."""

    seed: int
    staff: tuple[str, ...]  # those who teach; the first two have habits of their own
    size: Size = Size()

    @cached_property
    def conventions(self) -> tuple[Convention, ...]:
        """Everything that ever holds, in the order in which it was drawn."""
        drawn: list[Convention] = []
        size = self.size
        counts = dict(zip(HOWS, (size.answer, size.rule, size.hint, size.late), strict=True))
        for how in ("rule", "hint", "late", "answer"):  # the pickiest first
            for _ in range(counts[how]):
                drawn.append(self._new(how, drawn, since=0))
        for _ in range(size.personal):
            drawn += self._opposites(drawn)
        for day in range(1, size.days):
            for how, count in zip(HOWS, size.new, strict=True):
                for _ in range(count):
                    drawn.append(self._new(how, drawn, since=day))
            if day >= 2:
                for _ in range(size.reversals):
                    self._reverse(drawn, day=day)
        return tuple(drawn)

    def standing(self, day: int, *, whose: str | None = None) -> list[Convention]:
        """What holds on a day for everybody, or for one person alone."""
        return [one for one in self.conventions if one.holds(day) and one.whose == whose]

    def gone(self, day: int) -> list[Convention]:
        """Conventions of the office that held once and do not on this day."""
        return [one for one in self.conventions if one.until is not None and one.until <= day]

    def touched(self, relation: Relation, subject: str) -> bool:
        """Whether anything that was ever taught speaks of a fact."""
        return any(
            relation.name == one.lesson.key[-1] if one.lesson.about == "wrap" else subject in one.lesson.text
            for one in self.conventions
        )

    def facts(self, *, replayed: bool) -> list[tuple[Relation, str]]:
        """What the clerk knows and the office leaves alone: half of it comes up by day, half never does."""
        return [
            (relation, subject)
            for relation in relations()
            for subject in relation.facts
            if not self.touched(relation, subject)
            and (digest("replayed", str(self.seed), relation.name, subject) % 2 == 0) == replayed
        ]

    # ---- drawing

    def _new(self, how: How, drawn: Sequence[Convention], *, since: int, again: float = 0.0) -> Convention:
        rng = self._rng("convention", len(drawn), again)
        kind = "answer" if how == "late" else how
        wraps = sum(one.lesson.about == "wrap" and one.until is None for one in drawn)
        for _ in range(TRIES):
            lesson = draw(rng, Side.TEST, kind=kind)
            if lesson.about == "wrap" and wraps >= 2:
                continue  # each of them changes a whole relation
            if all(apart(lesson, one.lesson) for one in drawn if one.until is None) and _has_cases(lesson):
                return self._named(lesson, how, len(drawn), since=since)
        raise ValueError(f"an office of this size has no room for another convention ({how}): make it smaller")

    def _named(self, lesson: Lesson, how: How, number: int, *, since: int) -> Convention:
        rng = self._rng("words", number)
        opening = ask_of(lesson, rng, where=Side.TRAIN)
        while opening.answer == opening.before:  # nobody corrects what is right
            opening = ask_of(lesson, rng, where=Side.TRAIN)
        words = correction(lesson.text, about=lesson.about, rng=rng, where=Side.TEST)
        opening = replace(opening, question=sentence(opening.question))
        return Convention(name=f"c{number}", how=how, lesson=lesson, words=words, opening=opening, since=since)

    def _opposites(self, drawn: Sequence[Convention]) -> list[Convention]:
        """One habit of each of two people, of the same thing, which contradict each other."""
        rng, other = self._rng("opposite", len(drawn)), None
        while other is None:
            first = self._new("answer", drawn, since=0, again=rng.random())
            other = _other(first.lesson, rng)
        second = self._named(other, "answer", len(drawn) + 1, since=0)
        second = replace(second, opening=replace(first.opening, answer=str(other.bare)))
        return [replace(first, whose=self.staff[0]), replace(second, whose=self.staff[1])]

    def _reverse(self, drawn: list[Convention], *, day: int) -> None:
        """End one of the older conventions that is an answer, and begin its opposite."""
        rng = self._rng("reversal", len(drawn))
        old = [
            one for one in drawn
            if one.whose is None and one.until is None and one.how == "answer" and one.since <= day - 2
        ]  # fmt: skip
        if not old:
            return
        ended = rng.choice(old)
        lesson = _other(ended.lesson, rng)
        if lesson is None:
            return
        drawn[drawn.index(ended)] = replace(ended, until=day)
        began = self._named(lesson, "answer", len(drawn), since=day)
        opening = replace(ended.opening, answer=str(lesson.bare))
        drawn.append(replace(began, opening=opening, reverses=ended.name))

    def _rng(self, *what: object) -> Random:
        return Random(f"office {self.seed} {what}")


def _other(lesson: Lesson, rng: Random) -> Lesson | None:
    """A lesson of ``Side.TEST`` that contradicts another; None where there is hardly one."""
    found = (contradiction(lesson, rng) for _ in range(200))
    return next((one for one in found if side(*one.key, str(one.bare)) is Side.TEST), None)


def _has_cases(lesson: Lesson) -> bool:
    """Whether a rule has cases that it changes on both sides."""
    if lesson.kind != "rule":
        return True
    probes = [lesson.ask(Random(f"cases {lesson.text} {n}"), Side.TRAIN) for n in range(200)]
    return {case_side(lesson, one.case) for one in probes if one.answer != one.before} == set(Side)


def fact_probe(relation: Relation, subject: str, *, rng: Random, where: Side) -> Probe:
    """A question about what the clerk knows."""
    known = relation.facts[subject]
    return Probe(question=question(relation, subject, rng=rng, where=where), answer=known, before=known, case=subject)
