"""One decision as a night reads it, whose it is, and what people made of its answer. Pure.

The journal's rules: what was retracted was not said, of several words the last holds, and a word on an answer comes
before one on its session.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dayjob.endings import Ending, OutcomeKind
from dayjob.journal.join import surviving
from dayjob.learn.language.lessons import Lesson, Messages, Verdict
from dayjob.learn.language.splits import Key, key_of
from dayjob.memory.lessons import last_question
from dayjob.records import IMPORTED, Choice, Decision, Generation, Json, Note, Outcome, Stored, StoredOutcome

VERDICTS: dict[OutcomeKind, Verdict] = {
    OutcomeKind.ACCEPT: "accept",
    OutcomeKind.REJECT: "reject",
    OutcomeKind.NONE: "none",
}
JUDGING = frozenset((*VERDICTS, OutcomeKind.THUMB, OutcomeKind.REWARD))
MIDDLE = 0.5  # of a reward: above it is a thumb up, below it one down


@dataclass(frozen=True, slots=True)
class Read:
    """A decision that may teach, with what was said of it and survives, in the journal's order."""

    seq: int
    decision: Decision
    generation: Generation
    told: tuple[StoredOutcome, ...]

    @property
    def messages(self) -> Messages:
        """The conversation as sent, without notes."""
        return self.generation.messages

    @property
    def key(self) -> Key:
        """What makes two conversations the same."""
        return key_of(self.messages)

    @property
    def users(self) -> set[str]:
        """Whoever asked or said something."""
        users = {self.decision.user, *(one.record.user for one in self.told)}
        return {user for user in users if user is not None}

    @property
    def went_on(self) -> bool:
        """Whether something had been answered before in the same conversation."""
        return any(one["role"] == "assistant" for one in self.messages)


def read_of(stored: Stored, outcomes: Sequence[StoredOutcome]) -> Read:
    """A language policy's decision with its outcomes."""
    assert stored.record.generation is not None, "a language policy's"
    # What was said of a session before this decision was made does not speak of it (`journal.join`).
    told = surviving([one for one in outcomes if one.seq > stored.seq])
    return Read(stored.seq, stored.record, stored.record.generation, told)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recent:
    """What a dream may be made of: the newest decisions that may teach, oldest first, and the ids of the notes whose
    words may; with everybody whose words are in either."""

    reads: tuple[Read, ...]
    notes: frozenset[str]
    users: frozenset[str]

    @staticmethod
    def of(reads: Iterable[Read], notes: Iterable[str], *, said: Callable[[str], frozenset[str]]) -> Recent:
        """``said``: whose words a note is."""
        found, known = tuple(reads), frozenset(notes)
        users = {user for read in found for user in read.users}
        shown = {note for read in found for note in read.generation.notes} | known
        return Recent(reads=found, notes=known, users=frozenset(users.union(*map(said, sorted(shown)))))


NOTHING_RECENT = Recent(reads=(), notes=frozenset(), users=frozenset())


def is_plain(messages: Messages, note: Note) -> bool:
    """Whether a conversation holds nothing but the question that the note shows, and the application's own words."""
    asked = [str(one["content"]) for one in messages if one["role"] == "user"]
    roles = {str(one["role"]) for one in messages}
    return len(asked) == 1 and roles <= {"system", "user"} and " ".join(asked[0].split()) == note.asked


class Commons:
    """Which decisions of a journal, watched oldest first, hold nothing that is a person's own.

    An answer is a person's own where a note of theirs stood in its context, where a version that is not the tenant's
    wrote it, and where they opted out. What follows on one is theirs too, as is what follows on an answer that was
    never watched.
    """

    def __init__(self, *, notes: Iterable[str], versions: Iterable[str], silent: Collection[str]) -> None:
        """``notes`` and ``versions``: the tenant's. ``silent``: people who opted out."""
        self._notes, self._writers, self._silent = frozenset(notes), {*versions, IMPORTED}, silent
        self._guarded: set[tuple[str, str | None]] = set()  # ("user" or "session", name) who got what is a person's own
        self._open: set[tuple[str, str]] = set()  # (question, answer) of all else

    def watch(self, decision: Decision) -> None:
        """Remember what later turns may hold, whether or not this one may teach."""
        if decision.generation is None:
            return
        if self._is_a_persons(decision, decision.generation):
            named = (("user", decision.user), ("session", decision.session))
            self._guarded |= {(what, name) for what, name in named if name is not None}
        elif decision in self:
            asked = _plain(last_question(decision.generation.messages))
            self._open |= {(asked, _plain(choice.text)) for choice in decision.generation.choices}

    def __contains__(self, decision: Decision) -> bool:
        """Whether nothing that is a person's own can be in it, as far as was watched."""
        generation = decision.generation
        if generation is None or self._is_a_persons(decision, generation):
            return False
        if ("session", decision.session) in self._guarded:
            return False
        earlier = _earlier_answers(generation.messages)
        if not earlier or IMPORTED in _writers(decision, generation):  # what was imported are whole conversations
            return True
        return ("user", decision.user) not in self._guarded and earlier <= self._open

    def _is_a_persons(self, decision: Decision, generation: Generation) -> bool:
        noted = not self._notes.issuperset(generation.notes)
        return noted or decision.user in self._silent or not _writers(decision, generation) <= self._writers


def _writers(decision: Decision, generation: Generation) -> set[str]:
    """The versions that answered, and `IMPORTED` where that is who did."""
    return {decision.version, *(name for choice in generation.choices for name, _ in choice.versions)}


def _earlier_answers(messages: Messages) -> set[tuple[str, str]]:
    """(question, answer) of every answer that a conversation holds, whatever their blanks."""
    return {
        (_plain(last_question(messages[:at])), _plain(str(one.get("content") or "")))
        for at, one in enumerate(messages)
        if one["role"] == "assistant"
    }


def _plain(text: str) -> str:
    return " ".join(text.split())


def judging(read: Read, index: int | None) -> list[StoredOutcome]:
    """The outcomes that judge one choice (the only one, where they name none); ``index`` None: any of them."""
    return [one for one in read.told if one.record.kind in JUDGING and _is_of(one.record, read, index)]


def _is_of(outcome: Outcome, read: Read, index: int | None) -> bool:
    if index is None or outcome.decision is None:
        return True
    return outcome.item == str(index) or (outcome.item is None and len(read.generation.choices) == 1)


def thumb_of(read: Read, index: int | None = None) -> int:
    """+1, -1, or 0 for none: the last reward, else the last thumb on the answer, else the last on its session."""
    told = [one.record for one in judging(read, index)]
    rewards = [_sign(float(one.value) - MIDDLE) for one in told if one.kind is OutcomeKind.REWARD]
    own, session = (
        [_sign(float(one.value)) for one in told if one.kind is OutcomeKind.THUMB and (one.decision is None) is whole]
        for whole in (False, True)
    )
    return next((said[-1] for said in (rewards, own, session) if said), 0)


def verdict_of(read: Read, index: int) -> Verdict | None:
    """The last one on a suggestion."""
    kinds = [one.record.kind for one in judging(read, index)]
    return next((VERDICTS[kind] for kind in reversed(kinds) if kind in VERDICTS), None)


def session_thumb(read: Read) -> StoredOutcome | None:
    """The last thumb on the session as a whole."""
    whole = (one for one in reversed(read.told) if one.record.decision is None)
    return next((one for one in whole if one.record.kind is OutcomeKind.THUMB), None)


def _sign(value: float) -> int:
    return int(value > 0) - int(value < 0)


def served(choice: Choice, decision: Decision) -> Json:
    """The fields of a lesson that a served answer fills."""
    sampled = choice.sample_logprobs
    return {
        "answer_ids": tuple(np.frombuffer(choice.token_ids, "<u4").tolist()),
        "answer_logprobs": tuple(np.frombuffer(sampled, "<f4").tolist()) if sampled else None,
        "temperature": decision.temperature,
    }


def asked_of(read: Read) -> Json:
    """The fields of a lesson that a whole conversation fills, as it was sent."""
    generation, session = read.generation, read.decision.session
    return {"question": generation.messages, "tools": generation.tools, "session": session or ""}


def with_answer(lesson: Lesson, read: Read) -> Lesson:
    """A lesson with the answer that it speaks of, where that is one alone."""
    choices = read.generation.choices
    if len(choices) != 1 or choices[0].ending is Ending.ABORTED:
        return lesson
    return replace(lesson, **served(choices[0], read.decision))
