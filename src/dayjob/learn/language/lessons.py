"""What a night learns from: plain records, filled from the journal by whoever collects."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from dayjob.endings import Invalid
from dayjob.memory.lessons import last_question
from dayjob.memory.words import topic
from dayjob.records import Json

Messages = tuple[Json, ...]
Verdict = Literal["accept", "reject", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """One question that was asked, and what is known about its answer.

    ``context`` is the same conversation as the *teacher* is to read it: notes, the session, a correction before the
    question, whose last message is the question's own. None: nothing is known that the model did not see.

    ``beside`` is the conversation as the model will read it once it knows the lesson: behind the other notes that the
    server would place, which do not teach it. None where there are none.
    """

    id: str  # of the outcome that taught it; what a morning report names and what is unlearned
    question: Messages  # as asked, without notes
    context: Messages | None = None
    beside: Messages | None = None
    tools: tuple[Json, ...] = ()  # that the model was offered, whatever it read before the question
    answer_ids: tuple[int, ...] = ()  # as served, the end token included
    answer_logprobs: tuple[float, ...] | None = None  # one a token of the answer: of the distribution it was drawn from
    temperature: float = 1.0  # with which it was drawn
    correction: str | None = None  # the right answer, in words; None where nobody said it
    standard: str | None = None  # what somebody showed to be the answer, in whatever words it is asked
    told: bool = False  # the context holds a word on what would be right: the answer, a rule or a hint
    thumb: int = 0  # +1, -1, or 0 for none
    verdict: Verdict | None = None  # on a suggestion; an empty answer is one that was not made
    session: str = ""
    family: str = ""  # what it is about (a note's id, a task's family): askings of one thing share it

    def __post_init__(self) -> None:
        if not self.question:
            raise Invalid(f"lesson {self.id} asks nothing: give the messages of its question", param="question")
        if self.context is not None and not self.context:
            raise Invalid(f"lesson {self.id} has an empty context: give None for none", param="context")
        if self.thumb not in (-1, 0, 1):
            raise Invalid(f"the thumb of lesson {self.id} is {self.thumb}: it is +1, -1 or 0", param="thumb")
        if self.answer_logprobs is not None and len(self.answer_logprobs) != len(self.answer_ids):
            counts = f"{len(self.answer_logprobs)} log-probabilities for {len(self.answer_ids)} tokens"
            raise Invalid(f"lesson {self.id} has {counts}: one a token", param="answer_logprobs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """A prompt of recent traffic whose answer is to stay: everything the model read, notes and tools included. Without
    ``answer_ids`` the base model writes the answer."""

    question: Messages
    tools: tuple[Json, ...] = ()
    answer_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """Of one night: lessons (oldest first, so that a newer one wins), rehearsals, and the parts of both that only
    early stopping reads. What the gate's judge will ask is in none of them; ``exam`` holds its words, as
    `memory.words.topic` folds them, so that the model's own prompts can be kept apart from it."""

    lessons: tuple[Lesson, ...]
    rehearsals: tuple[Rehearsal, ...] = ()
    stop_lessons: tuple[Lesson, ...] = ()
    stop_rehearsals: tuple[Rehearsal, ...] = ()
    exam: tuple[tuple[str, ...], ...] = ()

    @property
    def held(self) -> frozenset[tuple[str, ...]]:
        """The words of every question that nothing may be learned from: early stopping's, and the exam's."""
        return frozenset((*self.exam, *(topic(last_question(one.question)) for one in self.stop_lessons)))


def hold_out(material: Material, *, share: float = 0.2) -> Material:
    """Move about ``share`` of the askings and rehearsals to the stop split, by a hash of what is asked.

    A thing that was asked in one way only is not held out, for nothing else would teach it: of each family the asking
    with the lowest hash stays. Equal questions fall on the same side.
    """
    if not 0 <= share < 1:
        raise Invalid(f"share is {share}: from 0 to below 1", param="share")
    families: defaultdict[str, dict[float, list[Lesson]]] = defaultdict(dict)
    for lesson in material.lessons:
        families[lesson.family or lesson.id].setdefault(_place(lesson.question), []).append(lesson)
    stop = {
        lesson.id
        for askings in families.values()
        for place in sorted(askings)[1:]
        if place >= 1 - share
        for lesson in askings[place]
    }
    held = [_place(one.question) >= 1 - share for one in material.rehearsals]
    pairs = list(zip(material.rehearsals, held, strict=True))
    return replace(
        material,
        lessons=tuple(one for one in material.lessons if one.id not in stop),
        stop_lessons=(*material.stop_lessons, *(one for one in material.lessons if one.id in stop)),
        rehearsals=tuple(one for one, out in pairs if not out),
        stop_rehearsals=(*material.stop_rehearsals, *(one for one, out in pairs if out)),
    )


def settle(lessons: Sequence[Lesson]) -> tuple[list[Lesson], dict[str, str]]:
    """The lessons that stand, and why each of the others does not: a newer word on the same question wins."""
    newest: dict[float, Lesson] = {}
    for lesson in lessons:
        if lesson.correction is not None or lesson.context is not None:
            newest[_place(lesson.question)] = lesson
    standing, out = [], {}
    for lesson in lessons:
        last = newest.get(_place(lesson.question), lesson)
        older = last is not lesson and lesson.correction is not None and lesson.correction != last.correction
        if older:
            out[lesson.id] = f"lesson {last.id} says otherwise, and is newer"
        else:
            standing.append(lesson)
    return standing, out


def _place(question: Messages) -> float:
    """In [0, 1), the same for equal questions."""
    digest = hashlib.sha256(repr([sorted(message.items()) for message in question]).encode()).digest()
    return int.from_bytes(digest[:6], "big") / (1 << 48)
