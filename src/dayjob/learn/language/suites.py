"""Questions that no night may lose: files of JSON lines, the user's own and one that ships with the package."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dayjob.config import BASICS, Suite
from dayjob.endings import Invalid
from dayjob.learn.language.table import Question
from dayjob.policies.tokens import Tokens
from dayjob.records import Json

MOST_QUESTIONS = 2_000  # of one suite
BUNDLED = Path(__file__).with_name("basics.jsonl")
_SHAPE = 'a line is {"messages": [{"role": "user", "content": "..."}], "answer": "..."}'


def with_bundled(suites: Iterable[Suite]) -> dict[str, Path]:
    """The files of suites by name: those that are configured, and the bundled one unless they put another in its place,
    or none."""
    paths = {BASICS: str(BUNDLED)} | {suite.name: suite.path for suite in suites}
    return {name: Path(path) for name, path in paths.items() if path}


def read_suites(
    paths: Mapping[str, Path], tokens: Tokens, *, room: int, answer_tokens: int
) -> dict[str, tuple[Question, ...]]:
    """The questions of every suite by its name. ``room``: tokens of a prompt and its answer.

    Raises Invalid, naming file and line, for one that cannot be read or asked. Of the bundled suite the questions that
    do not fit a model are left out: nobody can shorten them.
    """
    found = {name: _read(path, tokens, room=room, answer_tokens=answer_tokens) for name, path in sorted(paths.items())}
    return {name: questions for name, questions in found.items() if questions}


def _read(path: Path, tokens: Tokens, *, room: int, answer_tokens: int) -> tuple[Question, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise Invalid(
            f"the suite {path} cannot be read ({error.strerror}): name another file", param="suites"
        ) from None
    except ValueError:
        raise Invalid(f"the suite {path} is not UTF-8: save it as that", param="suites") from None
    questions = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                questions.append(_question(line, tokens, room=room, answer_tokens=answer_tokens))
            except ValueError as error:
                if path != BUNDLED:
                    raise Invalid(f"{path}, line {number}: {error}", param="suites") from None
    if path != BUNDLED and not 1 <= len(questions) <= MOST_QUESTIONS:
        raise Invalid(f"{path} has {len(questions)} questions: give 1 to {MOST_QUESTIONS}", param="suites")
    return tuple(questions)


def _question(line: str, tokens: Tokens, *, room: int, answer_tokens: int) -> Question:
    try:
        told: Any = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError(f"it is not JSON; {_SHAPE}") from None
    if not isinstance(told, dict) or set(told) != {"messages", "answer"}:
        raise ValueError(f"it needs messages and answer, and nothing else; {_SHAPE}")
    messages, answer = told["messages"], told["answer"]
    if not isinstance(answer, str) or not answer.strip():
        raise ValueError(f"answer must be a text; {_SHAPE}")
    if not isinstance(messages, list) or not messages or not all(map(_is_message, messages)):
        raise ValueError(f"messages must be a list of objects with role and content; {_SHAPE}")
    if messages[-1]["role"] != "user":
        raise ValueError("the last message must be the user's: what is asked")
    prompt, wanted = tokens.render(messages), tokens.encode(answer)
    if len(wanted) >= answer_tokens:
        raise ValueError(f"its answer is {len(wanted)} tokens, and nights write fewer than {answer_tokens}: shorten it")
    if len(prompt) + answer_tokens > room:
        raise ValueError(f"its messages are {len(prompt)} tokens, and there is room for {room - answer_tokens}")
    return Question(messages=tuple(messages), answer=answer)


def _is_message(one: Any) -> bool:
    message: Json = one if isinstance(one, dict) else {}
    return message.get("role") in ("system", "user", "assistant") and isinstance(message.get("content"), str)
