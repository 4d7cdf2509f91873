"""What a dream is made from: recorded conversations, and the real transitions in them. Pure.

Whoever reads the journal decides whose words are among the excerpts (the rules of a night, and nothing that the gate
will ask); here they are only taken apart. A tool call is written as text, in the notation that actors use, whichever
way the application sent it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from dayjob.practice.calls import Call, read_calls, write_call
from dayjob.records import Json

HELD_SHARE = 0.3  # of the conversations, kept from the author for the proof


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpt:
    """One answer in its conversation, as the journal has it.

    ``messages`` ends with the answer. ``liked``: +1, -1 or 0 where nobody said anything; ``right``: what somebody
    taught instead of the last answer, where it was an answer, else "".
    """

    id: str  # of the decision
    messages: tuple[Json, ...]
    tools: tuple[Json, ...] = ()
    liked: int = 0
    right: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """What a real application answered: ``before`` ends with the call, in the actor's words, that ``answer`` is to."""

    before: tuple[Json, ...]
    calls: tuple[Call, ...]
    answer: str


def plain(messages: Iterable[Json]) -> tuple[Json, ...]:
    """Messages with role and text alone: tool calls of OpenAI's shape become text."""
    return tuple({"role": str(one["role"]), "content": _text(one)} for one in messages)


def _text(message: Json) -> str:
    said = str(message.get("content") or "")
    blocks = []
    for each in message.get("tool_calls") or ():
        function = each.get("function") if isinstance(each, dict) else None
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            blocks.append(write_call(Call(name=function["name"], arguments=_arguments(function)), plain=False))
    return "\n".join([said, *blocks] if said else blocks)


def _arguments(function: Json) -> Json:
    given = function.get("arguments")
    try:
        given = json.loads(given) if isinstance(given, str) else given
    except ValueError:
        given = None
    return given if isinstance(given, dict) else {}


def conversations(excerpts: Iterable[Excerpt]) -> list[Excerpt]:
    """Whole conversations, in the order in which they ended: what goes on in a longer one is left out, except where
    somebody said what would have been right."""
    found = [replace(one, messages=plain(one.messages)) for one in excerpts]
    keys = [_keys(one.messages) for one in found]
    went_on = {key for some in keys for key in some[:-1]}
    whole: dict[bytes, Excerpt] = {}
    for one, some in zip(found, keys, strict=True):
        key = some[-1] if some else b""
        if one.right or key not in went_on:
            whole.pop(key, None)  # the same once more: what was said of it last counts
            whole[key] = one
    return list(whole.values())


def transitions(conversation: Excerpt) -> list[Transition]:
    """Every call that was made in a conversation, with what the application answered."""
    messages, out = conversation.messages, []
    for at in range(1, len(messages)):
        if messages[at]["role"] != "tool" or messages[at - 1]["role"] != "assistant":
            continue
        answers = [str(one["content"]) for one in _tools_from(messages, at)]
        calls = read_calls(str(messages[at - 1]["content"]))
        if calls and not any(call.error for call in calls):
            out.append(Transition(before=messages[:at], calls=calls, answer="\n".join(answers)))
    return out


def _tools_from(messages: Sequence[Json], at: int) -> list[Json]:
    end = at
    while end < len(messages) and messages[end]["role"] == "tool":
        end += 1
    return list(messages[at:end])


def hold_out(whole: Sequence[Excerpt], *, share: float = HELD_SHARE) -> tuple[list[Excerpt], list[Excerpt]]:
    """(what an author may read, what is kept from it), by a hash of the first thing that was said: a conversation and
    its variants fall on the same side."""
    read: list[Excerpt] = []
    kept: list[Excerpt] = []
    for one in whole:
        (kept if _place(first_question(one)) < share else read).append(one)
    return read, kept


def first_question(one: Excerpt) -> str:
    """The text of the first thing that a user said, "" where nobody did."""
    return next((str(each["content"]) for each in one.messages if each["role"] == "user"), "")


def _place(text: str) -> float:
    digest = hashlib.sha256(" ".join(text.casefold().split()).encode()).digest()
    return int.from_bytes(digest[:6], "big") / (1 << 48)


def _keys(messages: Sequence[Json]) -> list[bytes]:
    """Of the first message, the first two, and so on: each is read once, however long the conversation."""
    state, found = hashlib.sha256(), []
    for one in messages:
        state.update(json.dumps([one["role"], one["content"]]).encode() + b"\n")
        found.append(state.digest())
    return found
