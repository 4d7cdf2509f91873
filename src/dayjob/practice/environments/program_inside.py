"""What runs inside the sandbox beside an environment's program (`environment.py`): one JSON line in, one JSON line out.

Standard library only, and nothing of ours: this file is copied into the sandbox. It trusts the program with its own
episodes and with nothing else; whoever reads its lines checks them (`practice.environments.program`).

    {"reset": seed, "episode": n}                -> {"task": {...}}
    {"step": text, "calls": [...], "episode": n} -> {"messages": [...], ...}
    {"reference": seed}                          -> {"actions": [text, ...]}
    {"restore": messages, "episode": n}          -> {"restored": true}
    {"close": n}                                 -> {"closed": true}

What the program raises comes back as {"error": "the exception's type"}: its message may hold anybody's words.
"""

import json
import os
import sys
from typing import Any


def serve() -> None:
    """Answer lines until there are no more."""
    # What the program prints must not pass for an answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    sys.stdout = os.fdopen(silent, "w")
    episodes: dict[int, Any] = {}
    program, fault = _load()
    for line in sys.stdin:
        try:
            said = {"error": fault} if fault else _answer(program, json.loads(line), episodes)
            text = json.dumps(said, ensure_ascii=True, allow_nan=False)
        except BaseException as error:  # SystemExit and KeyboardInterrupt are a program's words here too
            text = json.dumps({"error": type(error).__name__})
        answers.write(text + "\n")
        answers.flush()


def _load() -> tuple[Any, str]:
    try:
        import environment  # type: ignore[import-not-found]  # it lies beside this file, in the sandbox
    except BaseException as error:
        return None, type(error).__name__
    missing = [name for name in ("reset", "step", "reference") if not callable(getattr(environment, name, None))]
    return environment, f"NameError: it has no function {missing[0]}" if missing else ""


def _answer(program: Any, asked: dict[str, Any], episodes: dict[int, Any]) -> Any:
    if "reset" in asked:
        episodes[asked["episode"]], task = program.reset(asked["reset"])
        return {"task": task}
    if "step" in asked:
        return program.step(episodes[asked["episode"]], asked["step"], calls=asked["calls"])
    if "reference" in asked:
        return {"actions": program.reference(asked["reference"])}
    if "restore" in asked:
        episodes[asked["episode"]] = program.restore(asked["restore"])
        return {"restored": True}
    episodes.pop(asked["close"], None)
    return {"closed": True}


if __name__ == "__main__":
    serve()
