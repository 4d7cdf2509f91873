"""The environment that the offline author writes: a recorded application, answering from what it was seen to answer.

Standard library only, and nothing of ours: with its ``DATA`` filled in, this file is the program that runs in the
sandbox (`practice.environments.program` says what its functions are). `author_offline` finds the data.

A *family* is a way of asking with the calls that solve it and the answer that is right. Its texts are lists of pieces:
``["text", words]``, ``["slot", name]`` (a word of the request) and ``["field", n, key]`` (a field of the n-th result).
"""

import json
import random
import re
from typing import Any

DATA: dict[str, Any] = {}

_PAIR = re.compile(r"([A-Za-z_{][\w{} -]{0,40}?)\s*[:=]\s*([^,;|\n]+)")
NOT_FOUND = "error: not found"
LONG_ANSWER = 8  # words; a longer one is right when it has the words that matter


# ---- texts


def words(text: str) -> list[str]:
    """What of an answer counts: its words, whatever their case and punctuation."""
    return [one.strip(".,;:!?()[]{}'\"") for one in text.casefold().split() if one.strip(".,;:!?()[]{}'\"")]


def swap(text: str, names: dict[str, str]) -> str:
    """Whole words (or runs of them) exchanged, all at once."""
    if not names:
        return text
    found = "|".join(re.escape(one) for one in sorted(names, key=len, reverse=True))
    return re.sub(rf"(?<!\w)(?:{found})(?!\w)", lambda match: names[match[0]], text)


def fields(result: str, arguments: dict[str, str]) -> dict[str, str]:
    """The parts of a result by name: of a JSON object its members, else what stands behind a colon or an equals sign;
    and the words by their place from the front (``#0``) and from the back (``#-1``)."""
    split = [one.strip(".,;:!?") for one in result.split()]
    out = {f"#{at}": one for at, one in enumerate(split)}
    out |= {f"#{at - len(split)}": one for at, one in enumerate(split)}
    try:
        read = json.loads(result)
    except ValueError:
        read = None
    if isinstance(read, dict):
        return out | {str(key): str(value) for key, value in read.items() if isinstance(value, str | int | float)}
    holes = {value: "{" + name + "}" for name, value in arguments.items() if value}
    for key, value in _PAIR.findall(swap(result, holes)):
        back = {hole: value for value, hole in holes.items()}
        for hole, real in back.items():
            value = value.replace(hole, real)
        out[key.strip()] = value.strip().rstrip(".")
    return out


def fill(pieces: list[Any], slots: dict[str, str], *, found: list[dict[str, str]]) -> str | None:
    """A text from its pieces; None where a field is missing. ``found``: the fields of every result so far."""
    out = []
    for piece in pieces:
        if piece[0] == "text":
            out.append(piece[1])
        elif piece[0] == "slot":
            out.append(slots[piece[1]])
        elif piece[1] < len(found) and piece[2] in found[piece[1]]:
            out.append(found[piece[1]][piece[2]])
        else:
            return None
    return "".join(out)


# ---- what the application answers


def key_of(name: str, arguments: dict[str, Any]) -> str:
    """What makes two calls the same: the notation does not."""
    return json.dumps([name, sorted((key, plain(value).casefold()) for key, value in arguments.items())])


def plain(value: Any) -> str:
    """An argument as text."""
    return value.strip() if isinstance(value, str) else json.dumps(value, sort_keys=True)


class Application:
    """Answers calls: as it did before in this conversation, else as recorded, else by a rule that every recorded answer
    of the tool fits; else it is not sure."""

    def __init__(self, data: dict[str, Any]) -> None:
        self._known = {key_of(name, arguments): result for name, arguments, result in data["answers"]}
        self._rules = {(name, *sorted(names)): pieces for name, names, pieces in data["rules"]}
        self._said: dict[str, str] = {}

    def heard(self, name: str, arguments: dict[str, Any], *, result: str) -> None:
        """What was answered in the conversation that is gone on with."""
        self._said[key_of(name, arguments)] = result

    def answer(self, name: str, arguments: dict[str, Any]) -> tuple[str, bool]:
        """(what it answers, whether that is known)."""
        key = key_of(name, arguments)
        if key in self._said or key in self._known:
            return self._said.get(key, self._known.get(key, "")), True
        rule = self._rules.get((name, *sorted(arguments)))
        if rule is not None:
            return fill(rule, {one: plain(value) for one, value in arguments.items()}, found=[]) or "", True
        return NOT_FOUND, False


# ---- tasks


def solve(family: dict[str, Any], slots: dict[str, str], *, application: Application) -> dict[str, Any] | None:
    """A family's task for these slots: request, calls with their results and the answer; None where the record does not
    say what the application would answer."""
    calls: list[list[Any]] = []
    found: list[dict[str, str]] = []
    for name, arguments in family["calls"]:
        filled = {key: fill(pieces, slots, found=found) for key, pieces in arguments.items()}
        given = {key: value for key, value in filled.items() if value is not None}
        if len(given) < len(filled):
            return None
        result, known = application.answer(name, given)
        if not known:
            return None
        calls.append([name, given])
        found.append(fields(result, given))
    answer = None if family["answer"] is None else fill(family["answer"], slots, found=found)
    if family["answer"] is not None and answer is None:
        return None
    needed = [piece for piece in family["answer"] or [] if piece[0] != "text"]
    vital = [fill([piece], slots, found=found) or "" for piece in needed]
    return {"request": fill(family["request"], slots, found=found), "calls": calls, "answer": answer, "vital": vital}


def _task(seed: int, application: Application) -> dict[str, Any]:
    """The task of a seed."""
    rng = random.Random(f"task {seed}")
    kind = DATA["kind"]
    if kind == "composed":
        first, second = rng.sample(range(len(DATA["tasks"])), 2)
        return _joined(_made(DATA["tasks"][first], application), _made(DATA["tasks"][second], application))
    task = _made(rng.choice(DATA["tasks"]), application)
    return _renamed(task, rng) if kind == "renamed" else task


def _made(which: list[Any], application: Application) -> dict[str, Any]:
    task = solve(DATA["families"][which[0]], which[1], application=application)
    assert task is not None, "the author lists only tasks that it solved"
    return task | {"ids": sorted({one for one in which[1].values() if re.search(r"\d", one)})}


def _joined(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    then = other["request"][:1].lower() + other["request"][1:]
    return {
        "request": one["request"].rstrip(" .?!") + ", and then " + then,
        "calls": one["calls"] + other["calls"],
        "answer": f"{one['answer']}, {other['answer']}",
        "vital": one["vital"] + other["vital"],
        "ids": [],
    }


def _renamed(task: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """The same task with other numbers in its ids, which nobody can know by heart."""
    taken = set(re.findall(r"\w+", json.dumps([DATA["answers"], task])))
    fresh: dict[str, str] = {}
    for one in task["ids"]:
        new, size = one, 0
        while new in taken or new == one:
            new = re.sub(r"\d", lambda _: str(rng.randrange(1, 10)), one) + str(rng.randrange(1, 10)) * (size // 20)
            size += 1
        taken.add(new)
        fresh[one] = new
    return task | {
        "request": swap(task["request"], fresh),
        "answer": None if task["answer"] is None else swap(task["answer"], fresh),
        "vital": [swap(one, fresh) for one in task["vital"]],
        "fresh": fresh,
    }


# ---- the program


def reset(seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A task: the recorded request, or one made of it."""
    application = Application(DATA)
    task = _task(seed, application)
    system = [{"role": "system", "content": DATA["system"]}] if DATA["system"] else []
    state = {"application": application, "task": task, "made": []}
    return state, {
        "messages": [*system, {"role": "user", "content": task["request"]}],
        "tools": DATA["tools"],
        "max_turns": 2 * len(task["calls"]) + 2,
        "answer_tokens": DATA["answer_tokens"],
    }


def step(state: dict[str, Any], text: str, *, calls: list[dict[str, Any]]) -> dict[str, Any]:
    """A call is answered; words end the task."""
    task = state["task"]
    fresh = {} if task is None else task.get("fresh", {})
    back = {new: old for old, new in fresh.items()}
    said, sure = [], True
    for call in calls:
        if call["error"]:
            said.append("error: " + call["error"])
            continue
        arguments = {key: swap(plain(value), back) for key, value in call["arguments"].items()}
        # The real name of what was renamed is not known to this application.
        hidden = any(plain(value) in fresh for value in call["arguments"].values())
        result, known = (NOT_FOUND, False) if hidden else state["application"].answer(call["name"], arguments)
        state["made"].append(key_of(call["name"], arguments) if not hidden else "")
        said.append(swap(result, fresh))
        sure = sure and known
    if task is None:
        return {"messages": [{"role": "tool", "content": one} for one in said], "sure": sure}
    needed = [key_of(name, arguments) for name, arguments in task["calls"]]
    made = sum(one in state["made"] for one in needed) / len(needed)
    if calls and not (task["answer"] is None and made == 1.0):
        return {"messages": [{"role": "tool", "content": one} for one in said]}
    right = 1.0 if task["answer"] is None or _is_right(text, task) else 0.0
    return {"reward": float(made == 1.0 and right == 1.0), "parts": {"calls": made, "answer": right if made else 0.0}}


def _is_right(text: str, task: dict[str, Any]) -> bool:
    said, wanted = words(text), words(task["answer"])
    if said == wanted:
        return True
    if len(wanted) <= LONG_ANSWER or not task["vital"] or len(said) > 2 * len(wanted):
        return False
    return all(set(words(one)) <= set(said) for one in task["vital"])


def reference(seed: int) -> list[str]:
    """The recorded calls, then the answer."""
    task = _task(seed, Application(DATA))
    fresh = task.get("fresh", {})
    calls = [(name, {key: swap(value, fresh) for key, value in given.items()}) for name, given in task["calls"]]
    out = [written(name, given, in_one_line=DATA["plain"]) for name, given in calls]
    return out if task["answer"] is None else [*out, task["answer"]]


def written(name: str, arguments: dict[str, str], *, in_one_line: bool) -> str:
    """A call as an actor writes it."""
    if in_one_line:
        return " ".join(["call", name, *(f"{key}={value}" for key, value in arguments.items())])
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments}, ensure_ascii=False)}\n</tool_call>"


def restore(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """As after a recorded conversation: what was answered in it, is answered again."""
    application = Application(DATA)
    waiting: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] == "tool" and waiting:
            call = waiting.pop(0)
            application.heard(call["name"], call["arguments"], result=message["content"])
        elif message["role"] == "assistant":
            waiting = list(message["calls"])
    return {"application": application, "task": None, "made": []}
