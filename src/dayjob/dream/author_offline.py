"""The author that needs no model: programs from recorded tool calls and corrections, with mutations.

It looks for *families*: ways of asking that were solved by the same calls, with the same kind of answer. What varied in
the request becomes a slot, what varied in the answer a slot or a field of a result. Up to four programs come of them
(`recorded_program` is what each of them is made of), easiest first: the recorded tasks, the same with other arguments
that were seen, two of them in one request, and the recorded ones with their ids renamed.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dayjob.dream import recorded_program as recorded
from dayjob.dream.excerpts import Excerpt, conversations
from dayjob.dream.propose import Proposal
from dayjob.practice.calls import Call, read_calls
from dayjob.practice.environments.program import MOST_SOURCE
from dayjob.records import Json

KINDS = ("recorded", "others", "renamed", "composed")
MOST_TASKS = 400  # of one program
MOST_CALLS = 8  # of one task
MOST_SYSTEM = 4_000  # characters
LEAST_ROOM, MOST_ROOM = 16, 512  # tokens of one thing to say
AGREE = 0.8  # of a family's conversations, that its pattern has to give again
RULE_FROM = 3  # different recorded calls of a tool, from which a rule for its answers is drawn
_SHELL = "DATA: dict[str, Any] = {}\n"
_SOURCE = Path(recorded.__file__)
_PREFERENCES = (("name", "#", "#-"), ("name", "#-", "#"), ("#", "#-", "name"))  # which of equal fields is meant


@dataclass(frozen=True, slots=True, kw_only=True)
class Solved:
    """A request with the calls that solved it, their results, and the right answer (None: the last call is all that is
    known to be right)."""

    request: str
    calls: tuple[tuple[str, dict[str, str]], ...]
    results: tuple[str, ...]
    answer: str | None


def write_programs(excerpts: Sequence[Excerpt]) -> list[Proposal]:
    """A program for each kind of task that the record has room for. None where nothing was solved in it with tools."""
    whole = conversations(excerpts)
    solved = [one for each in whole for one in _solved(each)]
    answers = _answers(whole)
    families = list(_families(solved))
    if not families:
        return []
    data: Json = {
        "answers": answers, "rules": _rules(answers), "families": families, "tools": _most_common(_tools(whole)) or [],
        "system": _most_common(_systems(whole)) or "", "plain": _is_plain(whole),
    }  # fmt: skip
    seen = [[at, slots] for at, family in enumerate(families) for slots in family["seen"]]
    data |= {"families": [{key: family[key] for key in ("request", "calls", "answer")} for family in families]}
    out = []
    for kind, tasks in _tasks(data, families, seen=seen):
        source = _program(
            data | {"kind": kind, "tasks": tasks[:MOST_TASKS], "answer_tokens": _room(data, tasks, kind=kind)}
        )
        if tasks and len(source) <= MOST_SOURCE:
            names = sorted({name for family in families for name, _ in family["calls"]})
            out.append(Proposal(name=f"{', '.join(names)[:60]}: {kind}", source=source, author="offline"))
    return out


def _program(data: Json) -> str:
    """The program's text: the shell with its data."""
    shell = _SOURCE.read_text()
    assert shell.count(_SHELL) == 1, "the shell has one place for its data"
    text = json.dumps(data, ensure_ascii=True, sort_keys=True)
    return shell.replace(_SHELL, f"DATA: dict[str, Any] = json.loads({text!r})\n")


# ---- what was solved


def _solved(conversation: Excerpt) -> Iterator[Solved]:
    """The first request of a conversation, where it was solved, and as far as it is known how."""
    if conversation.liked < 0 and not conversation.right:
        return
    messages = [one for one in conversation.messages if one["role"] != "system"]
    if not messages or messages[0]["role"] != "user":
        return
    end = next((at for at, one in enumerate(messages) if at and one["role"] == "user"), len(messages))
    turns = messages[1:end]
    if conversation.right:
        if end != len(messages):
            return
        turns = [*turns[:-1], {"role": "assistant", "content": conversation.right}]
    calls: list[tuple[str, dict[str, str]]] = []
    results: list[str] = []
    for at, turn in enumerate(turns):
        made = read_calls(str(turn["content"])) if turn["role"] == "assistant" else ()
        if any(call.error for call in made):
            return
        calls += [(call.name, _texts(call)) for call in made]
        if turn["role"] == "tool":
            results.append(str(turn["content"]))
        elif at == len(turns) - 1 and calls and len(calls) <= MOST_CALLS:
            # Words end a task; a taught call is as much of it as is known, and a call that went unanswered is none.
            answer = None if made else str(turn["content"])
            if made and not conversation.right:
                return
            if len(results) >= len(calls) - len(made):
                known = tuple(results[: len(calls)])
                yield Solved(request=str(messages[0]["content"]), calls=tuple(calls), results=known, answer=answer)


def _texts(call: Call) -> dict[str, str]:
    return {key: recorded.plain(value) for key, value in call.arguments.items()}


def _answers(whole: Iterable[Excerpt]) -> list[list[Any]]:
    """Every recorded call with what was answered last."""
    out: dict[str, list[Any]] = {}
    for one in whole:
        waiting: list[Call] = []
        for message in one.messages:
            if message["role"] == "assistant":
                waiting = [call for call in read_calls(str(message["content"])) if not call.error]
            elif message["role"] == "tool" and waiting:
                call = waiting.pop(0)
                out[recorded.key_of(call.name, call.arguments)] = [call.name, _texts(call), str(message["content"])]
    return list(out.values())


def _rules(answers: Sequence[list[Any]]) -> list[list[Any]]:
    """Tools whose every recorded answer is one text with the arguments put in."""
    shapes: defaultdict[tuple[str, ...], list[tuple[str, dict[str, str]]]] = defaultdict(list)
    for name, arguments, result in answers:
        shapes[name, *sorted(arguments)].append((result, arguments))
    out = []
    for (name, *names), rows in shapes.items():
        patterns = {json.dumps(_pieces(result, _slots_of(arguments), [])) for result, arguments in rows}
        if len(rows) >= RULE_FROM and len(patterns) == 1:
            out.append([name, names, json.loads(patterns.pop())])
    return out


def _slots_of(arguments: dict[str, str]) -> dict[str, str]:
    return {value: key for key, value in arguments.items() if value}


# ---- families


def _families(solved: Sequence[Solved]) -> Iterator[Json]:
    """Requests of one wording, solved by the same calls, whose answers follow one pattern."""
    groups: defaultdict[str, list[tuple[Solved, dict[str, str]]]] = defaultdict(list)
    for one in solved:
        request, calls, slots = _opened(one)
        groups[json.dumps([request, calls, one.answer is None])].append((one, slots))
    for key, members in groups.items():
        request, calls, is_open = json.loads(key)
        family = {"request": request, "calls": calls, "answer": None}
        ranked = [family] if is_open else [family | {"answer": one} for one in _patterns(members)]
        shares = [(_share(each, members), -place) for place, each in enumerate(ranked)]
        best, place = max(shares, default=(0.0, 0))
        if best >= AGREE:
            chosen = ranked[-place]
            unique = {json.dumps(slots, sort_keys=True): slots for one, slots in members if _gives(chosen, one, slots)}
            yield chosen | {"seen": list(unique.values())}


def _opened(one: Solved) -> tuple[list[Any], list[Any], dict[str, str]]:
    """(request, calls, slots): values of arguments that stand in the request become slots, those that stand in an
    earlier result fields of it."""
    slots: dict[str, str] = {}  # by name
    found: list[dict[str, str]] = []
    calls: list[Any] = []
    for at, (name, arguments) in enumerate(one.calls):
        opened = {}
        for key, value in arguments.items():
            if value and _stands(value, one.request):
                opened[key] = [["slot", _slot(slots, key, value)]]
            else:
                field = _field(value, found, _PREFERENCES[0])
                opened[key] = [["text", value]] if field is None else [field]
        calls.append([name, opened])
        found.append(recorded.fields(one.results[at], arguments) if at < len(one.results) else {})
    return _pieces(one.request, {value: name for name, value in slots.items()}, []), calls, slots


def _slot(slots: dict[str, str], key: str, value: str) -> str:
    """The slot of a value, a new one where there is none."""
    for name, held in slots.items():
        if held == value:
            return name
    name = key if key not in slots else f"{key}{len(slots)}"
    slots[name] = value
    return name


def _stands(value: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text) is not None


def _patterns(members: Sequence[tuple[Solved, dict[str, str]]]) -> list[list[Any]]:
    """What the answers may be made of, the commonest first; every field that equals a value is a guess."""
    counts: Counter[str] = Counter()
    for order in _PREFERENCES:
        for one, slots in members:
            found = [recorded.fields(result, call[1]) for result, call in zip(one.results, one.calls, strict=False)]
            values = {value: name for name, value in slots.items()}
            counts[json.dumps(_pieces(one.answer or "", values, found, order))] += 1
    return [json.loads(one) for one, _ in counts.most_common(12)]


def _pieces(
    text: str, slots: dict[str, str], found: Sequence[dict[str, str]], order: Sequence[str] = _PREFERENCES[0]
) -> list[Any]:
    """A text in pieces: whole words that are a slot's value, or a result's field, longest first."""
    values = {*slots, *(value for each in found for value in each.values() if len(value) > 1 or value.isdigit())}
    named = "|".join(re.escape(one) for one in sorted(values, key=lambda one: (-len(one), one)) if one)
    out: list[Any] = []
    for place, part in enumerate(re.split(rf"(?<!\w)({named})(?!\w)", text) if named else [text]):
        if place % 2 == 0:
            out += [["text", part]] if part else []
        else:
            out.append(["slot", slots[part]] if part in slots else _field(part, found, order))
    return out


def _field(value: str, found: Sequence[dict[str, str]], order: Sequence[str]) -> list[Any] | None:
    """The field with this value: of the last result first."""
    if not value:
        return None
    for sort in order:
        for at in range(len(found) - 1, -1, -1):
            for key, held in found[at].items():
                if held == value and _sort(key) == sort:
                    return ["field", at, key]
    return None


def _sort(key: str) -> str:
    return "#-" if key.startswith("#-") else "#" if key.startswith("#") else "name"


def _share(family: Json, members: Sequence[tuple[Solved, dict[str, str]]]) -> float:
    return sum(_gives(family, one, slots) for one, slots in members) / len(members)


def _gives(family: Json, one: Solved, slots: dict[str, str]) -> bool:
    """Whether a family gives a recorded task again."""
    if family["answer"] is None:
        return True
    found = [recorded.fields(result, call[1]) for result, call in zip(one.results, one.calls, strict=False)]
    said = recorded.fill(family["answer"], slots, found=found)
    return said is not None and recorded.words(said) == recorded.words(one.answer or "")


# ---- tasks


def _tasks(data: Json, families: Sequence[Json], *, seen: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    """The tasks of each kind that the application, as far as it is known, can be asked."""
    application = recorded.Application(data)
    known = [one for one in seen if recorded.solve(families[one[0]], one[1], application=application) is not None]
    yield "recorded", known
    others = [
        [at, slots]
        for at, family in enumerate(families)
        for slots in _others(family, data["answers"])
        if recorded.solve(family, slots, application=application) is not None
    ]
    yield "others", others
    ids = [one for one in [*known, *others] if any(re.search(r"\d", value) for value in one[1].values())]
    yield "renamed", ids
    answered = [one for one in [*known, *others] if families[one[0]]["answer"] is not None]
    yield "composed", answered if len(answered) > 1 else []


def _others(family: Json, answers: Sequence[list[Any]]) -> Iterator[dict[str, str]]:
    """Slots as other recorded calls of the family's first tool would fill them."""
    done = {json.dumps(slots, sort_keys=True) for slots in family["seen"]}
    name, arguments = family["calls"][0]
    holes = {key: pieces[0][1] for key, pieces in arguments.items() if pieces[0][0] == "slot"}
    fixed = {key: pieces[0][1] for key, pieces in arguments.items() if pieces[0][0] == "text"}
    if not holes or len(holes) + len(fixed) < len(arguments):
        return
    for other, given, _ in answers:
        if other != name or given.keys() != arguments.keys() or any(given[key] != fixed[key] for key in fixed):
            continue
        slots = family["seen"][0] | {slot: given[key] for key, slot in holes.items()}
        mark = json.dumps(slots, sort_keys=True)
        if mark not in done and all(slots.values()):
            done.add(mark)
            yield slots


def _room(data: Json, tasks: Sequence[Any], *, kind: str) -> int:
    """Tokens that the longest thing to say may take: never more than its characters, its end included."""
    application = recorded.Application(data)
    longest = 0
    for at, slots in tasks[:MOST_TASKS]:
        task = recorded.solve(data["families"][at], slots, application=application)
        assert task is not None, "only what can be solved is a task"
        said = [recorded.written(name, given, in_one_line=data["plain"]) for name, given in task["calls"]]
        answer = len(task["answer"] or "") * (2 if kind == "composed" else 1)
        longest = max(longest, 4 + answer, *(len(one) + 1 for one in said))
    return max(LEAST_ROOM, min(MOST_ROOM, longest))


# ---- what is common to the conversations


def _tools(whole: Iterable[Excerpt]) -> list[Any]:
    return [list(one.tools) for one in whole if one.tools]


def _systems(whole: Iterable[Excerpt]) -> list[Any]:
    """What the application tells the model first: the same to everybody, or it is somebody's."""
    said = [
        str(one.messages[0]["content"])[:MOST_SYSTEM] if one.messages[0]["role"] == "system" else "" for one in whole
    ]
    return [one for one, times in Counter(said).items() for _ in range(times) if times > 1 or len(said) == 1]


def _most_common(found: Sequence[Any]) -> Any:
    counts = Counter(json.dumps(one, sort_keys=True) for one in found)
    return json.loads(counts.most_common(1)[0][0]) if counts else None


def _is_plain(whole: Iterable[Excerpt]) -> bool:
    """Whether calls are written in the plain notation."""
    said = [str(each["content"]) for one in whole for each in one.messages if each["role"] == "assistant"]
    said += [one.right for one in whole if one.right]
    plain = sum("<tool_call>" not in one and bool(read_calls(one)) for one in said)
    return plain > sum("<tool_call>" in one for one in said)
