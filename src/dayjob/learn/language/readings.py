"""One decision as a night reads it, and what people made of its answer. Pure.

The journal's rules: what was retracted was not said, of several words the last holds, and a word on an answer comes
before one on its session.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dayjob.endings import Ending, OutcomeKind
from dayjob.journal.join import surviving
from dayjob.learn.language.lessons import Lesson, Messages, Verdict
from dayjob.learn.language.splits import Key, key_of
from dayjob.records import Choice, Decision, Generation, Json, Outcome, Stored, StoredOutcome

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


def with_answer(lesson: Lesson, read: Read) -> tuple[Lesson, str]:
    """A lesson with the answer that it speaks of, where that is one alone, and its text."""
    choices = read.generation.choices
    if len(choices) != 1 or choices[0].ending is Ending.ABORTED:
        return lesson, ""
    return replace(lesson, **served(choices[0], read.decision)), choices[0].text
