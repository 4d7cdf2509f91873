"""The people of the office: what they ask on a day, and what they say of the answers.

Most correct what is wrong, each convention in its own way: by the answer itself, by the rule, by a hint, or late. One
only shows a thumb, one says nothing, one likes whatever comes. Everything is drawn from the office's seed, the day and
the question's number, whatever is answered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal

from clerk.lessons import Probe
from clerk.office import Convention, Office, Size, fact_probe
from clerk.split import Side
from clerk.wordings import correction

Manner = Literal["corrects", "thumbs", "silent", "accepts"]
STAFF: dict[str, Manner] = {
    "ann": "corrects", "ben": "corrects", "cleo": "corrects", "dan": "corrects", "eva": "corrects",
    "finn": "thumbs", "gia": "silent", "hal": "accepts",
}  # fmt: skip
TEACHERS = tuple(name for name, manner in STAFF.items() if manner == "corrects")
AGREE = 3  # people who must say the same before it is the office's
THANKS = 0.3  # share of right answers that somebody who corrects gives a thumb
ROUNDS = ("morning", "noon", "evening")
OPENINGS = 4  # askings of a new convention's opening question, by those who teach
OTHER_WORK = 0.25  # share of everyday questions that are other work than facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One question by one person. ``convention``: what it is about, None for everyday questions."""

    id: str  # "d0-morning-12": the day, the round, the number
    day: int
    round: int
    user: str
    session: str
    probe: Probe
    convention: Convention | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """What somebody says of an answer.

    ``text`` of a demonstration is what should have been answered, of a correction what is right; a thumb has a
    ``value``. ``on``: the answer, or the whole conversation. ``days``: said so many days later.
    """

    kind: Literal["demonstration", "correction", "thumb"]
    text: str | None = None
    value: int | None = None
    on: Literal["decision", "session"] = "decision"
    days: int = 0


def office(seed: int, size: Size | None = None) -> Office:
    """The office of a seed with this staff."""
    return Office(seed=seed, staff=TEACHERS, size=size or Size())


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one person asks on a day: questions about what the clerk knows, a quarter of them other work than facts, and
    questions about conventions."""

    everyday: int = 6
    about: int = 6
    work: Callable[[Random], Probe] | None = None


def asks_of(here: Office, day: int, *, load: Load, quiet: bool = False) -> list[Ask]:
    """A day's questions in their order. A convention's opening question is asked by several on its first day.

    ``quiet``: a time after this day in which nobody speaks of any convention.
    """
    rng = Random(f"day {here.seed} {day} {quiet}")
    office_wide = [] if quiet else here.standing(day)
    drawn: list[tuple[int, str, Probe, Convention | None]] = []
    for one in office_wide:
        if one.since == day:
            drawn += [(0, name, one.opening, one) for name in rng.sample(TEACHERS, OPENINGS)]
    for name in STAFF:
        own = [] if quiet else here.standing(day, whose=name)
        drawn += [(0, name, one.opening, one) for one in own if one.since == day]
        for number in range(load.about):
            pool = own if own and rng.random() < 0.25 else office_wide
            if pool:
                one = rng.choice(pool)
                drawn.append((1 + number % 2, name, one.ask(rng, Side.TRAIN), one))
        for _ in range(load.everyday):
            drawn.append((rng.randrange(3), name, _everyday(here, rng, load), None))
    drawn.sort(key=lambda one: one[0])
    return [
        Ask(
            id=f"{'q' if quiet else 'd'}{day}-{ROUNDS[at]}-{number}",
            day=day,
            round=at,
            user=name,
            session=f"{name}-{'q' if quiet else ''}{day}-{ROUNDS[at]}",
            probe=probe,
            convention=one,
        )
        for number, (at, name, probe, one) in enumerate(drawn)
    ]


def _everyday(here: Office, rng: Random, load: Load) -> Probe:
    if load.work is not None and rng.random() < OTHER_WORK:
        return load.work(rng)
    relation, subject = rng.choice(here.facts(replayed=True))
    return fact_probe(relation, subject, rng=rng, where=Side.TRAIN)


def words_on(ask: Ask, answer: str, *, here: Office) -> list[Word]:
    """What the one who asked says of an answer; nothing, most of the time."""
    rng = Random(f"words {here.seed} {ask.id}")
    manner, right = STAFF[ask.user], answer.strip() == ask.probe.answer
    if manner == "silent":
        return []
    if manner == "accepts":
        return [Word(kind="thumb", value=1)]
    if manner == "thumbs":
        return [Word(kind="thumb", value=1 if right else -1)]
    if right:
        return [Word(kind="thumb", value=1)] if rng.random() < THANKS else []
    if ask.convention is None:
        return [Word(kind="thumb", value=-1)] if rng.random() < THANKS else []
    return [_correct(ask, ask.convention, here=here)]


def _correct(ask: Ask, about: Convention, *, here: Office) -> Word:
    """In the convention's own way. A rule is told for whatever comes; what is told late is said of the answer a day
    later, or of the whole conversation, when the question is no longer known."""
    if about.how == "answer":
        return Word(kind="demonstration", text=ask.probe.answer)
    if about.how == "rule" or (about.how == "late" and about.number % 2):
        return Word(kind="correction", text=about.words, on="session")
    text = about.words
    if ask.probe.question != about.opening.question:
        rng = Random(f"again {here.seed} {ask.id}")
        text = correction(about.lesson.text, about=about.lesson.about, rng=rng, where=Side.TEST)
    return Word(kind="correction", text=text, days=1 if about.how == "late" else 0)
