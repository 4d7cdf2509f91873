"""What an environment's program said, read: nothing of it is believed before it fits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dayjob.endings import DayjobError, EpisodeEnding
from dayjob.practice.protocol import Reward, Step, Task
from dayjob.records import Json

MOST_TEXT = 64 << 10  # characters of one message
MOST_MESSAGES = 64
MOST_TURNS = 100
MOST_ANSWER_TOKENS = 4_096
_ROLES = frozenset(("system", "user", "assistant", "tool"))


class ProgramFault(DayjobError):
    """The program raised, died, took too long, or said what is no answer."""


def task_of(told: Any) -> Task:
    """What ``reset`` said. Raises ProgramFault."""
    if not isinstance(told, dict):
        raise ProgramFault("its task is no object with messages")
    tools = told.get("tools") or ()
    if not isinstance(tools, list | tuple) or len(tools) > MOST_MESSAGES or not all(isinstance(x, dict) for x in tools):
        raise ProgramFault("its tools are no list of objects")
    messages = _messages_of(told.get("messages"))
    if not messages or messages[-1]["role"] not in ("user", "tool"):
        raise ProgramFault("its task has no message of a user to begin with")
    return Task(
        messages=messages, tools=tuple(tools), max_turns=_whole(told, "max_turns", 6, most=MOST_TURNS),
        answer_tokens=_whole(told, "answer_tokens", 64, most=MOST_ANSWER_TOKENS),
    )  # fmt: skip


def step_of(told: Json) -> Step:
    """What ``step`` said. Raises ProgramFault."""
    if "reward" in told:
        parts = told.get("parts") or {}
        if not isinstance(parts, dict) or len(parts) > MOST_MESSAGES:
            raise ProgramFault("the parts of its reward are no object")
        value, whole = _share(told["reward"]), {str(name)[:64]: _share(part) for name, part in parts.items()}
        return Step(reward=Reward(value=value, parts=whole), ending=EpisodeEnding.DONE)
    messages = _messages_of(told.get("messages"))
    if not messages:
        raise ProgramFault("a step says nothing and ends nothing")
    return Step(messages=messages, progress=_share(told.get("progress", 0.0)))


def _messages_of(told: Any) -> tuple[Json, ...]:
    if not isinstance(told, list) or len(told) > MOST_MESSAGES:
        raise ProgramFault(f"its messages are no list of at most {MOST_MESSAGES}")
    for one in told:
        if not isinstance(one, dict) or one.get("role") not in _ROLES or not is_text(one.get("content")):
            raise ProgramFault("a message is no object with a role and a content of text")
    return tuple({"role": one["role"], "content": one["content"]} for one in told)


def is_text(value: Any) -> bool:
    """Whether it may be shown to an actor."""
    return isinstance(value, str) and len(value) <= MOST_TEXT and not is_broken(value)


def is_broken(text: str) -> bool:
    """Whether it holds half a character, which no file and no tokenizer takes."""
    return any("\ud800" <= one <= "\udfff" for one in text)


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
        raise ProgramFault("a reward, a part of one or a progress is no number from 0 to 1")
    return float(value)


def _whole(told: Mapping[str, Any], name: str, usual: int, *, most: int) -> int:
    value = told.get(name, usual)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ProgramFault(f"{name} of its task is no whole number from 1 to {most}")
    return value
