"""From decisions and what was said of them to examples that elsewhere trains on: TRL's and OpenAI's formats. Pure.

An answer is *right* where people say so: approved (thumb up, accept, a thumb up for its session), or written by them (a
correction or demonstration, which stands instead of the answer). Nothing is learned from silence. The rules:

- Of several words on one answer the newest holds; what is said of an answer outweighs what is said of its session; a
  correction outweighs every thumb on the answer that it corrects. What was retracted was not said.
- People who are not learned from are in no example: neither what they asked nor what they said of others' answers.
- What makes no note for what it holds (`filters.content_fault`: secrets, orders to the system) makes no example, and a
  note that was deleted makes none either.
- Of an answer that several choices were offered for, words that name none of them count for none.
- An answer that was cut short when its reader went away is no example; an empty one only as the worse of two.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import orjson

from dayjob.endings import Ending, OutcomeKind
from dayjob.journal.join import surviving
from dayjob.memory.filters import content_fault
from dayjob.memory.lessons import last_question
from dayjob.records import Decision, Json, Outcome, Stored, StoredOutcome

MOST_WAITING = 100_000  # conversations with answers judged one way, for one judged the other way
MOST_ALIKE = 4  # answers to one conversation that wait; the oldest give way
TAUGHT = (OutcomeKind.CORRECTION, OutcomeKind.DEMONSTRATION)


class Format(StrEnum):
    """How an example is written down."""

    CHAT = "chat"  # {"messages"}: a conversation with its right answer
    PREFERENCE = "preference"  # {"prompt", "chosen", "rejected"}: TRL's, in its conversational form
    OPENAI_DPO = "openai-dpo"  # {"input", "preferred_output", "non_preferred_output"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Whose words count."""

    silent: Collection[str] = ()  # users that are not learned from
    deleted: Collection[str] = ()  # notes that were deleted, by the id of their outcome


@dataclass(slots=True, kw_only=True)
class Judged:
    """What people made of one decision: texts."""

    right: list[str] = field(default_factory=list)
    pairs: list[tuple[str, str]] = field(default_factory=list)  # (better, worse)
    # Approved, and not: of a decision that is no pair by itself.
    up: list[str] = field(default_factory=list)
    down: list[str] = field(default_factory=list)


def judge(decision: Decision, outcomes: Sequence[StoredOutcome], *, seq: int, rules: Rules) -> Judged:
    """What the ``outcomes`` of a language policy's decision, and of its session, say of its choices.

    ``seq``: the decision's place in the journal; what was said of a session before it does not speak of it.
    """
    assert decision.generation is not None, "a language policy's"
    choices = {
        place: one.text for place, one in enumerate(decision.generation.choices) if one.ending is not Ending.ABORTED
    }
    single = 0 if len(decision.generation.choices) == 1 else None
    told = [
        one.record
        for one in surviving([one for one in outcomes if one.seq > seq])
        if one.record.user not in rules.silent and one.record.id not in rules.deleted
    ]
    own = [one for one in told if one.decision is not None]
    written = _written(own, choices, single=single, question=last_question(decision.generation.messages))
    said = {place: sign for place, sign in _signs(own, single=single).items() if place not in written}
    of_session = _signs([one for one in told if one.decision is None], single=single)
    out = Judged(right=list(dict.fromkeys(text for text in written.values() if text)))
    for place, text in choices.items():
        if place not in written and (said.get(place) or of_session.get(place, 0)) > 0 and text:
            out.right.append(text)
    for named, text in written.items():
        if named is None:
            continue
        pointed_out = choices.get(named) == text  # the right one of several: the others are worse
        worse = choices.keys() - {named} if pointed_out else choices.keys() & {named}
        out.pairs += [(text, choices[place]) for place in sorted(worse) if choices[place] != text]
    up = [choices[place] for place, sign in said.items() if sign > 0 and choices.get(place)]
    down = [choices[place] for place, sign in said.items() if sign < 0 and place in choices]
    out.pairs += [(better, worse) for better in up for worse in down if better != worse]
    if not out.pairs:
        out.up, out.down = up, down
    return out


def _written(
    told: Iterable[Outcome], choices: dict[int, str], *, single: int | None, question: str
) -> dict[int | None, str]:
    """The newest right answer that somebody wrote or pointed out, by the choice it speaks of (None: of no one)."""
    out: dict[int | None, str] = {}
    for one in told:
        place = single if one.item is None else int(one.item)
        text = (one.text or "").strip() or (choices.get(place, "") if place is not None else "")
        if one.kind in TAUGHT and text and not content_fault(text) and not content_fault(question):
            out[place] = text
    return out


def _signs(told: Iterable[Outcome], *, single: int | None) -> dict[int, int]:
    """+1 or -1 by choice: the newest word on each."""
    out: dict[int, int] = {}
    for one in told:
        place = single if one.item is None else int(one.item)
        sign = {OutcomeKind.ACCEPT: 1, OutcomeKind.REJECT: -1}.get(one.kind, 0)
        if one.kind is OutcomeKind.THUMB:
            sign = 1 if one.value > 0 else -1
        if sign and place is not None:
            out[place] = sign
    return out


@dataclass(slots=True, kw_only=True)
class Writer:
    """Examples as they come, decision by decision, in bounded memory.

    ``find``: a judged decision once more by its id, None where it is gone meanwhile.
    """

    format: Format
    find: Callable[[str, Rules], tuple[Decision, Judged] | None]
    waiting: OrderedDict[bytes, list[str]] = field(default_factory=OrderedDict)  # decisions by their question

    def examples(
        self, page: Iterable[Stored], outcomes: dict[str, list[StoredOutcome]], *, rules: Rules
    ) -> Iterator[Json]:
        """The examples of some decisions, oldest first."""
        for stored in page:
            decision = stored.record
            if decision.generation is None or decision.user in rules.silent:
                continue
            judged = judge(decision, outcomes.get(decision.id, []), seq=stored.seq, rules=rules)
            if self.format is Format.CHAT:
                yield from (chat(decision, text) for text in judged.right)
                continue
            write = preference if self.format is Format.PREFERENCE else openai_dpo
            pairs = iter(judged.pairs)
            if bool(judged.up) != bool(judged.down):
                pairs = self._met(decision, judged, rules)
            yield from (write(decision, better=better, worse=worse) for better, worse in pairs)

    def _met(self, decision: Decision, judged: Judged, rules: Rules) -> Iterator[tuple[str, str]]:
        """Pairs with an earlier answer to the same conversation that was judged the other way; each is used once."""
        question = question_key(decision)
        for other in self.waiting.get(question, []):
            found = self.find(other, rules)
            if found is None or bool(found[1].up) == bool(judged.up):
                continue
            up, down = (judged, found[1]) if judged.up else (found[1], judged)
            pairs = [(better, worse) for better in up.up for worse in down.down if better != worse]
            if pairs:
                self.waiting[question].remove(other)
                if not self.waiting[question]:
                    del self.waiting[question]
                yield from pairs
                return
        waiting = self.waiting.setdefault(question, [])
        self.waiting.move_to_end(question)
        waiting.append(decision.id)
        del waiting[:-MOST_ALIKE]
        if len(self.waiting) > MOST_WAITING:
            self.waiting.popitem(last=False)


def question_key(decision: Decision) -> bytes:
    """16 bytes that two decisions share when they were asked the very same: conversation and tools."""
    assert decision.generation is not None, "a language policy's"
    asked = (decision.generation.messages, decision.generation.tools)
    return hashlib.blake2b(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()


def chat(decision: Decision, answer: str) -> Json:
    """TRL's and OpenAI's format for supervised learning: the conversation with its right answer last."""
    prompt, tools = _asked(decision)
    return {"messages": [*prompt, _turn(answer)]} | tools


def preference(decision: Decision, *, better: str, worse: str) -> Json:
    """TRL's preference format, conversational, with an explicit prompt."""
    prompt, tools = _asked(decision)
    return {"prompt": prompt, "chosen": [_turn(better)], "rejected": [_turn(worse)]} | tools


def openai_dpo(decision: Decision, *, better: str, worse: str) -> Json:
    """OpenAI's format for direct preference optimization. A tool call's arguments are a string there."""
    prompt, tools = _asked(decision)
    return {
        "input": {"messages": [_closed(message) for message in prompt]} | tools,
        "preferred_output": [_turn(better)],
        "non_preferred_output": [_turn(worse)],
    }


def _asked(decision: Decision) -> tuple[list[Json], Json]:
    """The conversation as it was sent, notes not in it, and the tools where there were some."""
    assert decision.generation is not None, "a language policy's"
    tools = list(decision.generation.tools)
    return list(decision.generation.messages), {"tools": tools} if tools else {}


def _turn(text: str) -> Json:
    return {"role": "assistant", "content": text}


def _closed(message: Json) -> Json:
    if not message.get("tool_calls"):
        return message
    calls = []
    for call in message["tool_calls"]:
        function = call.get("function")
        if isinstance(function, dict) and not isinstance(function.get("arguments", ""), str):
            call = call | {"function": function | {"arguments": orjson.dumps(function["arguments"]).decode()}}
        calls.append(call)
    return message | {"tool_calls": calls}
