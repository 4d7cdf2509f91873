"""Runs inside the sandbox, beside code that a model wrote: takes the code, then arguments line by line, and answers
with what the code's function returns.

It knows no expected answer and gives no verdict, so there is nothing here that the code could fake: all it could do is
to answer otherwise. Not imported by dayjob; its bytes are put into the box. It imports nothing that Python has not
loaded already: json and what it needs would take as long to load as all the rest.

First line in: ``{"source", "name", "parameters"}``; out: ``{"ready": true}`` or ``{"error"}``. Then for each list of
arguments: ``{"value"}`` or ``{"error"}``. Before the first line ``null`` may come, which asks whether the box is up.
"""

import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LONGEST_ERROR = 200
JSON_WORDS: "dict[str, Any]" = {"null": None, "true": True, "false": False, "__builtins__": {}}


def function_of(source: str, *, name: str, parameters: "list[str]") -> "Callable[..., Any]":
    """The function that ``source`` defines; or it is one expression in the parameters, or a lambda."""
    source = source.encode("utf-16", "surrogatepass").decode("utf-16")  # JSON writes a rare character as two halves
    expression = source.strip()
    try:
        compile(expression, "answer", "eval")
    except SyntaxError:
        space: dict[str, Any] = {"__name__": "answer"}
        exec(compile(source, "answer", "exec"), space)
        found = space[name]
    else:
        is_function = expression.startswith("lambda")
        found = eval(expression if is_function else f"lambda {', '.join(parameters)}: (\n{expression}\n)", {})
    if not callable(found):
        raise TypeError(f"{name} is no function")
    return found  # type: ignore[no-any-return]


def json_of(value: "Any") -> str:
    """Raises TypeError and ValueError for what JSON cannot say."""
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        if value - value != 0:
            raise ValueError("a number that is not finite")
        return float.__repr__(value)
    if isinstance(value, str):
        units = value.encode("utf-16-be", "surrogatepass")
        codes = (256 * units[at] + units[at + 1] for at in range(0, len(units), 2))
        return '"' + "".join(chr(c) if 32 <= c < 127 and c not in (34, 92) else f"\\u{c:04x}" for c in codes) + '"'
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(json_of, value)) + "]"
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return "{" + ", ".join(f"{json_of(key)}: {json_of(one)}" for key, one in value.items()) + "}"
    raise TypeError(f"{type(value).__name__} is nothing that JSON can say")


def said(answer: "Callable[[str], Any]", line: str) -> str:
    """The answer to a line, as one, or the error that it raised; SystemExit is one too."""
    try:
        return json_of(answer(line))
    except BaseException as error:
        return json_of({"error": f"{type(error).__name__}: {error}"[:LONGEST_ERROR]})


def main() -> None:
    """Keeps the two ends for itself, so that printing and reading by the code do no harm."""
    lines, answers = open(posix.dup(0), encoding="utf-8"), open(posix.dup(1), "w", encoding="utf-8")  # noqa: SIM115
    nothing = posix.open("/dev/null", posix.O_RDWR)
    for descriptor in (0, 1, 2):
        posix.dup2(nothing, descriptor)
    call: list[Callable[..., Any]] = []

    def answer(line: str) -> "dict[str, Any]":
        request = eval(line, dict(JSON_WORDS))  # JSON that we wrote is Python too
        if request is None:
            return {"ready": False}
        if not call:
            call.append(function_of(**request))
            return {"ready": True}
        return {"value": call[0](*request)}

    for line in lines:
        answers.write(said(answer, line) + "\n")
        answers.flush()


if __name__ == "__main__":
    sys.setrecursionlimit(10_000)
    main()
