"""What a night learns from in the lab: a diary and the notes that stand, as the learner's records.

An asking that notes change the base model's answer to, or that somebody corrected, is a lesson: its teacher reads the
notes that stand now, whatever stood there when it was asked, so that a convention that was reversed is taught as it
holds. Everything else is rehearsed, and so are all questions behind their notes: to follow notes is to stay.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from clerk.staff import Word

from dayjob.lab.clerk_board import Board
from dayjob.lab.clerk_desk import TEMPERATURE, Answered, Desk, Diary, chat
from dayjob.learn.language.lessons import Lesson, Material, Rehearsal, hold_out
from dayjob.memory.words import same, topic

MOST_ASKINGS = 8  # of one note, the newest; more of them teach nothing new
RECENT = 480  # questions of traffic that are rehearsed, the newest


def material(desk: Desk, diary: Diary, *, board: Board, user: str | None = None, recent: int = RECENT) -> Material:
    """For the office's layer, or for a person's, which learns the office's lessons and that person's own.

    The office's learns no answer in whose context a note of one person stood.
    """
    standing = {(kept.topic, kept.answer) for kept in board.notes.tenant}
    if user is not None:
        standing |= {(kept.topic, kept.answer) for kept in board.notes.owned(user, None)}
    questions = [one.ask.probe.question for one in diary.answered]
    placed = [
        board.place(text, user=user if one.ask.user == user else None)
        for text, one in zip(questions, diary.answered, strict=True)
    ]
    bare = desk.base_says([chat(text) for text in questions])
    noted = desk.base_says([chat(text, notes.text) for text, notes in zip(questions, placed, strict=True)])
    lessons: list[Lesson] = []
    rehearsals: list[Rehearsal] = []
    for one, notes, without, behind in zip(diary.answered, placed, bare, noted, strict=True):
        asked, text = one.ask, one.ask.probe.question
        words = diary.words.get(asked.id, [])
        served = asked.user == user or not one.own
        corrected = any(word.kind != "thumb" for word in words)
        taught = bool(notes.text) and (without != behind or corrected)
        if taught or words:
            near = board.nearest(text, notes) if taught else ""
            others = board.place(text, user=user if asked.user == user else None, without=near) if near else None
            lesson = Lesson(
                id=asked.id,
                question=chat(text),
                context=chat(text, notes.text) if taught else None,
                beside=chat(text, others.text) if others and others.text else None,
                answer_ids=one.ids if served else (),
                answer_logprobs=one.logprobs if served else None,
                temperature=TEMPERATURE,
                correction=_correction(one, words, standing=standing),
                told=taught and (corrected or _thumb(words) >= 0),
                thumb=_thumb(words) if served else 0,
                session=asked.session,
                family=near or asked.id,
            )
            lessons.append(lesson)
        if served and not taught:
            rehearsals.append(Rehearsal(question=chat(text)))
        if served and notes.text:
            rehearsals.append(Rehearsal(question=chat(text, notes.text)))
    return _split(desk, _newest(lessons), rehearsals[-recent:])


def _split(desk: Desk, lessons: Sequence[Lesson], rehearsals: Sequence[Rehearsal]) -> Material:
    """The stop split, the same for every method: askings that nobody corrected, with what the teacher says to them.
    What was corrected is learned from, for some methods learn from nothing else."""
    corrected = {str(one.question) for one in lessons if one.correction is not None}
    fixed = [one for one in lessons if str(one.question) in corrected]
    free = tuple(one for one in lessons if str(one.question) not in corrected)
    found = hold_out(Material(lessons=free, rehearsals=tuple(rehearsals)))
    place = {one.id: at for at, one in enumerate(lessons)}
    learned = sorted((*fixed, *found.lessons), key=lambda one: place[one.id])
    asked = [one for one in found.stop_lessons if one.context is not None]
    said = desk.base_says([one.context for one in asked if one.context is not None])
    stop = tuple(replace(one, correction=desk.tokens.text(ids)) for one, ids in zip(asked, said, strict=True))
    return replace(found, lessons=tuple(learned), stop_lessons=stop)


def _correction(one: Answered, words: Iterable[Word], *, standing: set[tuple[tuple[str, ...], str]]) -> str | None:
    """The right answer where somebody gave it, and it still stands."""
    about = topic(one.ask.probe.question)
    said = [word.text for word in words if word.kind == "demonstration" and word.text is not None]
    return next((text for text in reversed(said) if (about, same(text)) in standing), None)


def _thumb(words: Iterable[Word]) -> int:
    return next((word.value for word in words if word.value is not None), 0)


def _newest(lessons: Iterable[Lesson]) -> list[Lesson]:
    """All that were corrected, and of each family the newest of the others, in their order."""
    kept: list[Lesson] = []
    seen: defaultdict[str, int] = defaultdict(int)
    for one in reversed(list(lessons)):
        seen[one.family] += one.correction is None
        if one.correction is not None or seen[one.family] <= MOST_ASKINGS:
            kept.append(one)
    return kept[::-1]
