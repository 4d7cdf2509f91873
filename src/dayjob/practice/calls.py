"""Tool calls as they stand in what an actor says: read, and written.

Two notations. Qwen's blocks, any number of them, as its chat template writes them:

    <tool_call>
    {"name": "search", "arguments": {"query": "blue lamp"}}
    </tool_call>

and, where there is no such block, one plain line that a very small model can learn:

    call search query=blue lamp limit=3

in which every value is text and reaches to the next `` key=`` or the end of the line. What cannot be read becomes a
`Call` with an ``error`` to show to the actor; reading never raises.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from dayjob.endings import Invalid
from dayjob.records import Json

MAX_CALLS = 32  # in one action; what comes after is not read, and said so
MAX_CALL_CHARS = 100_000
_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_NAME = re.compile(r"[A-Za-z_][\w.-]{0,63}", re.ASCII)
_PLAIN = re.compile(r"^[ \t]*call[ \t]+(.*)$", re.MULTILINE)
_KEY = re.compile(r"(?:^|[ \t])([A-Za-z_]\w*)=", re.ASCII)
_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a tool. With an ``error``, what to tell the actor, there is nothing to run.

    >>> read_calls("call search query=blue lamp")[0].arguments
    {'query': 'blue lamp'}
    """

    name: str
    arguments: Json = field(default_factory=dict)
    error: str = ""

    def text(self, key: str) -> str:
        """An argument as text, whatever the notation gave; "" where it is missing."""
        value = self.arguments.get(key, "")
        return value if isinstance(value, str) else json.dumps(value)


def read_calls(text: str) -> tuple[Call, ...]:
    """The calls in an action, in their order; none where it makes none. Never raises.

    What stands in ``<think>`` is no call. A block that its writer did not close is read if it is whole otherwise.
    """
    text = _THOUGHT.sub("", text)
    blocks = [block.partition(_CLOSE)[0] for block in text.split(_OPEN)[1:]]
    if blocks:
        calls = [_read_block(block) for block in blocks[:MAX_CALLS]]
        if len(blocks) > MAX_CALLS:
            calls.append(Call(name="", error=f"only the first {MAX_CALLS} calls of an answer are read"))
        return tuple(calls)
    plain = _PLAIN.search(text)
    return () if plain is None else (_read_plain(plain[1]),)


def write_call(call: Call, *, plain: bool) -> str:
    """A call as an actor would write it, in either notation; :func:`read_calls` gives it back (plainly, as texts).

    Raises Invalid for a value that the plain notation cannot hold.
    """
    if not plain:
        body = json.dumps({"name": call.name, "arguments": call.arguments}, ensure_ascii=False)
        return f"{_OPEN}\n{body}\n{_CLOSE}"
    words = [f"call {call.name}"]
    for key in call.arguments:
        value = call.text(key)
        if "\n" in value or "\r" in value or _KEY.search(" " + value) or value != value.strip():
            message = f"the plain notation cannot hold {key}={value!r}: one line, no key= in it, no space around it"
            raise Invalid(message, param=key)
        words.append(f"{key}={value}")
    return " ".join(words)


def describe_tool(name: str, description: str, *, parameters: Mapping[str, str]) -> Json:
    """A tool in OpenAI's shape, for `Task.tools`; all ``parameters`` (name -> what it is) are texts and required."""
    properties = {key: {"type": "string", "description": said} for key, said in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


def _read_block(block: str) -> Call:
    if len(block) > MAX_CALL_CHARS:
        return Call(name="", error=f"a call may have at most {MAX_CALL_CHARS} characters")
    try:
        # RecursionError: brackets nested thousands deep.
        read: Any = json.loads(block, parse_constant=_refuse)
        inner = read.get("arguments", {}) if isinstance(read, dict) else None
        arguments: Any = json.loads(inner, parse_constant=_refuse) if isinstance(inner, str) else inner
    except (ValueError, RecursionError):
        return Call(name="", error='a call must be JSON such as {"name": "...", "arguments": {...}}')
    if not isinstance(read, dict) or not isinstance(arguments, dict):
        return Call(name="", error='a call must be an object with "name" and an object "arguments"')
    return _checked(read.get("name"), _clean(arguments))


def _read_plain(line: str) -> Call:
    if len(line) > MAX_CALL_CHARS:
        return Call(name="", error=f"a call may have at most {MAX_CALL_CHARS} characters")
    name, _, rest = line.strip().partition(" ")
    keys = list(_KEY.finditer(rest))
    if rest.strip() and (not keys or rest[: keys[0].start()].strip()):
        return Call(name="", error="a call is written: call NAME key=value key=value")
    ends = [*(key.start() for key in keys[1:]), len(rest)][: len(keys)]
    values = {key[1]: rest[key.end() : end].strip() for key, end in zip(keys, ends, strict=True)}
    return _checked(name, _clean(values))


def _checked(name: object, arguments: Json) -> Call:
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        return Call(name="", error="a call needs the name of a tool: letters, digits, _ . - and at most 64 of them")
    return Call(name=name, arguments=arguments)


def _clean(value: Any) -> Any:
    """JSON may escape halves of characters that no UTF-8 can hold; an environment may show what it was given."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_clean(key): _clean(inner) for key, inner in value.items()}
    return [_clean(inner) for inner in value] if isinstance(value, list) else value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
