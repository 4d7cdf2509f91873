"""Which askings are learned from, which only early stopping reads, and which are kept for the exam. Pure."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dayjob.learn.language.lessons import Lesson, Messages, Rehearsal
from dayjob.memory.words import topic

STOP_SHARE = 0.2
EXAM_SHARE = 0.2
SUGGESTIONS = 40  # judged ones from which on some are kept for the exam: of fewer nothing could be told there

Key = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """One way in which something was asked, as a lesson; ``lesson.family`` is what it is about."""

    lesson: Lesson
    teacher: str  # the id of the note or outcome behind it: what is unlearned where the lesson is
    decision: str | None  # None: nobody asked it so, it is the note's own wording
    notes: tuple[str, ...] = ()  # all that stood in its context: an answer without them speaks of each
    wrong: frozenset[str] = frozenset()  # the answers that were corrected, shortened: never right ones
    is_known: bool = False  # its teacher says itself what is right, to the one question that it speaks of
    said: str = ""  # a correction's own words, where they may be an answer, a rule or a hint
    as_taught: bool = False  # it is the very question that its teacher speaks of

    @property
    def can_be_held_out(self) -> bool:
        """Whether it is known what should be answered: else nothing can be asked but how it was."""
        return self.lesson.correction is not None or self.lesson.context is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Askings and rehearsals of one night. No question of ``exam`` is in another part, nor one of ``stop`` in
    ``train``."""

    train: tuple[Asking, ...]
    stop: tuple[Asking, ...]
    exam: tuple[Asking, ...]
    train_traffic: tuple[Rehearsal, ...] = ()
    stop_traffic: tuple[Rehearsal, ...] = ()
    exam_traffic: tuple[Rehearsal, ...] = ()
    suggestions: tuple[Asking, ...] = ()  # judged ones that nothing is learned from; to prompts that may be learned

    @property
    def askings(self) -> tuple[Asking, ...]:
        """All but suggestions, of which nobody knows a right answer."""
        return (*self.train, *self.stop, *self.exam)


def key_of(messages: Messages) -> Key:
    """What makes two askings the same: the words of every message, whatever their case, punctuation and articles."""
    return tuple((str(one["role"]), topic(str(one.get("content") or ""))) for one in messages)


def split(askings: Sequence[Asking], traffic: Iterable[tuple[Key, Rehearsal]]) -> Split:
    """Parts by a hash of (family, asking) for askings, of the bare question (the key beside it) for rehearsals.

    Of every family one asking is always learned from: one with the right answer in words where there is one, else the
    one with the lowest hash. Traffic that asks what is held out is in no part. Of suggestions a fifth of the
    *judgements* are held out, by their ids: what people say of one prompt differs from time to time.
    """
    judged = [one for one in askings if one.lesson.verdict is not None]
    kept_back = {one.lesson.id for one in judged if place_of(one.lesson.id, ()) >= 1 - EXAM_SHARE}
    suggestions = tuple(one for one in judged if one.lesson.id in kept_back) if len(judged) >= SUGGESTIONS else ()
    if suggestions:
        askings = [one for one in askings if one.lesson.id not in kept_back]
    families: defaultdict[str, list[Asking]] = defaultdict(list)
    parts: tuple[list[Asking], list[Asking], list[Asking]] = ([], [], [])
    for one in askings:
        if one.can_be_held_out:
            families[one.lesson.family].append(one)
    kept = {min(family, key=_most_wanted).lesson.id for family in families.values()}
    held: set[Key] = set()
    for one in askings:
        if one.can_be_held_out and one.lesson.id not in kept:
            part = _part(place_of(one.lesson.family, key_of(one.lesson.question)))
            parts[part].append(one)
            if part:
                held.add(key_of(one.lesson.question))
    # Words about an answer to a question that is held out would teach that question.
    always = (one for one in askings if not one.can_be_held_out or one.lesson.id in kept)
    train = [*parts[0], *(one for one in always if one.lesson.id in kept or key_of(one.lesson.question) not in held)]
    order = {one.lesson.id: place for place, one in enumerate(askings)}
    train.sort(key=lambda one: order[one.lesson.id])
    rows: tuple[list[Rehearsal], list[Rehearsal], list[Rehearsal]] = ([], [], [])
    for key, rehearsal in traffic:
        if key not in held:
            rows[_part(place_of("", key))].append(rehearsal)
    return Split(
        train=tuple(train), stop=tuple(parts[1]), exam=tuple(parts[2]),
        train_traffic=tuple(rows[0]), stop_traffic=tuple(rows[1]), exam_traffic=tuple(rows[2]),
        suggestions=suggestions,
    )  # fmt: skip


def _most_wanted(one: Asking) -> tuple[bool, float]:
    return one.lesson.correction is None, place_of(one.lesson.family, key_of(one.lesson.question))


def _part(place: float) -> int:
    """0 to learn from, 1 to stop by, 2 for the exam."""
    return 2 if place >= 1 - EXAM_SHARE else int(place >= 1 - EXAM_SHARE - STOP_SHARE)


def place_of(family: str, key: Key) -> float:
    """In [0, 1), the same for equal arguments: a hash of what is asked and what it is about."""
    digest = hashlib.sha256(repr((family, key)).encode()).digest()
    return int.from_bytes(digest[:6], "big") / (1 << 48)
