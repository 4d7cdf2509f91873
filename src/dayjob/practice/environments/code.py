"""Code: a small Python function is asked for, and what was written is run against hidden tests in the sandbox.

The verdict is made here, outside: the program in the box gets the arguments of one test at a time and answers with what
its function returned. What would have been right never enters the box, so no trick inside can find or fake it
(`code_inside`, `practice.sandbox`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from dayjob.endings import DayjobError, EpisodeEnding, Invalid, SandboxEnding
from dayjob.practice import sandbox
from dayjob.practice.environments.code_families import FAMILIES, problem
from dayjob.practice.environments.code_problems import NAME, Problem
from dayjob.practice.protocol import Action, Direction, Episode, Mutation, Reward, Step, Task
from dayjob.practice.questions import check_choice, check_seed, check_whole, neighbours, rng_of, spec_of
from dayjob.records import Json

STYLES = ("expression", "function")
LIMITS = sandbox.Limits(wall_s=8.0, cpu_s=2, memory_bytes=192 << 20, output_bytes=1 << 16, disk_bytes=0)
DRAWS = 200  # of a problem and its inputs, until they tell solutions apart
_FENCED = re.compile(r"```[ \t]*(?:python|py)?[ \t]*\r?\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Case:
    """One call of the function and what it must return."""

    arguments: tuple[Any, ...]
    expected: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """One function to write, judged by ``tests`` hidden tests: a reward of 1 when all pass, the share as a part.

    ``families``: kinds of problems to draw from; all by default. ``conditions``: that numbers, letters or words must
    meet, where a family has any. ``size``: of the inputs, at most. ``examples``: calls shown with their results; hidden
    tests are others. ``style``: "expression" asks for one expression, "function" for a definition; either is taken.
    ``shown``: lines of the reference's body that the question gives away (with "function"). Raises Invalid for values
    outside their range; `reset` does where the sandbox is missing.
    """

    families: Sequence[str] = tuple(sorted(FAMILIES))
    conditions: int = 1
    size: int = 6
    tests: int = 8
    examples: int = 3
    style: str = "function"
    shown: int = 0

    def __post_init__(self) -> None:
        check_whole(self, {"conditions": (0, 4), "size": (3, 12), "tests": (3, 24), "examples": (0, 6),
                           "shown": (0, 8)})  # fmt: skip
        object.__setattr__(self, "families", check_choice(self, "families", known=tuple(FAMILIES)))
        if self.style not in STYLES:
            raise Invalid(f"style must be one of {', '.join(STYLES)}, not {self.style!r}", param="style")

    @property
    def spec(self) -> Json:
        return spec_of("code", self)

    def reset(self, seed: int) -> Episode:
        """As `Environment.reset`. Raises Invalid, with the install line, where the sandbox is missing."""
        found, examples, tests = _drawn(self, check_seed(seed))
        missing = sandbox.available()
        if missing is not None:
            raise Invalid(f"what is written for a code task is run in the sandbox only, and {missing}", param="env")
        content = _question(self, found, examples)
        answer_tokens = 64 if self.style == "expression" else 256
        return CodeEpisode(
            Task(messages=({"role": "user", "content": content},), answer_tokens=answer_tokens), found, tests=tests
        )

    def reference(self, seed: int) -> Sequence[Action]:
        """As `Environment.reference`."""
        found, _, _ = _drawn(self, check_seed(seed))
        return (Action(text=found.expression if self.style == "expression" else fenced(definition(found))),)

    def mutations(self) -> Sequence[Mutation]:
        """As `Environment.mutations`."""
        easier, harder = Direction.EASIER, Direction.HARDER
        changes: list[tuple[str, Direction, Json]] = [
            ("one condition less", easier, {"conditions": self.conditions - 1}),
            ("one condition more", harder, {"conditions": self.conditions + 1}),
            ("fewer tests", easier, {"tests": max(3, self.tests // 2)}),
            ("more tests", harder, {"tests": min(24, self.tests * 2)}),
            ("smaller inputs", easier, {"size": self.size - 2}),
            ("larger inputs", harder, {"size": self.size + 2}),
            ("one example more", easier, {"examples": self.examples + 1}),
            ("one example less", harder, {"examples": self.examples - 1}),
            ("an expression will do", easier, {"style": "expression", "shown": 0}),
            ("a whole function", harder, {"style": "function"}),
        ]
        if self.style == "function":
            changes += [
                ("show a line of the solution", easier, {"shown": self.shown + 1}),
                ("show a line less", harder, {"shown": self.shown - 1}),
            ]
        if len(self.families) > 1:
            changes.append(("one family alone", easier, {"families": list(self.families[:1])}))
        if len(self.families) < len(FAMILIES):
            changes.append(("all families", harder, {"families": sorted(FAMILIES)}))
        return neighbours(self.spec, changes, make=lambda settings: Code(**settings))


class CodeEpisode:
    """One attempt at one function."""

    def __init__(self, task: Task, found: Problem, *, tests: Sequence[Case]) -> None:
        self._task, self._problem, self._tests, self._over = task, found, tests, False

    @property
    def task(self) -> Task:
        return self._task

    async def step(self, action: Action) -> Step:
        """As `Episode.step`. Parts: "tests", the share that pass; "form", whether the code defines the function."""
        if self._over:
            raise Invalid("this episode is over: reset for another", param="action")
        self._over = True
        verdicts = await judge(source_of(action.text), self._problem.parameters, tests=self._tests)
        if verdicts is None:
            return Step(reward=Reward(value=0.0, parts={"tests": 0.0, "form": 0.0}), ending=EpisodeEnding.UNREADABLE)
        parts = {"tests": sum(verdicts) / len(verdicts), "form": 1.0}
        return Step(reward=Reward(value=float(all(verdicts)), parts=parts), ending=EpisodeEnding.DONE)

    async def close(self) -> None:
        """As `Episode.close`; a step that runs closes its box itself, also when it is cancelled."""
        self._over = True


async def judge(source: str, parameters: Sequence[str], *, tests: Sequence[Case]) -> list[bool] | None:
    """Whether each test passes; None where ``source`` is no code that defines the function.

    A program that ends, hangs or says something else than one answer for each test fails that test and all behind it.
    """
    if not source.strip():
        return None
    verdicts: list[bool] = []
    async with sandbox.place():
        files = {"inside.py": inside()}
        async with await sandbox.Session.open(files, ["inside.py"], limits=LIMITS) as box:
            try:
                await box.ask(None, timeout_s=LIMITS.wall_s)
            except sandbox.Failed as error:  # before any of the model's code was in it
                raise DayjobError(f"the sandbox failed ({error}): {error.result.stderr[-300:]!r}") from error
            try:
                ready = await box.ask(
                    {"source": source, "name": NAME, "parameters": list(parameters)}, timeout_s=LIMITS.wall_s
                )
                if ready != {"ready": True}:
                    return None
                for test in tests:
                    answer = await box.ask(list(test.arguments), timeout_s=LIMITS.wall_s)
                    verdicts.append(
                        isinstance(answer, dict) and "value" in answer and same(answer["value"], test.expected)
                    )
            except sandbox.Failed as error:
                if error.result.ending is SandboxEnding.CLOSED:
                    raise
    return verdicts + [False] * (len(tests) - len(verdicts))


def same(one: Any, other: Any) -> bool:
    """Equal as JSON, kinds included: True is not 1, and 1.0 is not 1."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


def source_of(text: str) -> str:
    """The code in an answer: its last fenced block, else what an <answer> holds, else all of it; without thoughts."""
    text = _THOUGHT.sub("", text)
    blocks = _FENCED.findall(text) or _TAGGED.findall(text)
    return str(blocks[-1]) if blocks else text.strip().strip("`")


def definition(found: Problem) -> str:
    """The reference as a function."""
    return "\n".join([f"def {NAME}({', '.join(found.parameters)}):", *(f"    {line}" for line in found.lines)])


def fenced(source: str) -> str:
    """A block of code as models write them."""
    return f"```python\n{source}\n```"


@functools.cache
def inside() -> bytes:
    """The program that runs beside the model's code."""
    return Path(__file__).with_name("code_inside.py").read_bytes()


def _drawn(settings: Code, seed: int) -> tuple[Problem, list[Case], list[Case]]:
    """The problem of a seed, its examples and its hidden tests: all different, and with answers that differ, so that
    no fixed answer passes. The empty input is among the hidden tests where the family has one."""
    rng = rng_of("code", seed, *settings.families, settings.conditions, settings.size)
    best: tuple[int, Problem, list[Case]] | None = None
    for _ in range(DRAWS):
        found = problem(rng.choice(list(settings.families)), rng, conditions=settings.conditions)
        every = _inputs(found, rng, size=settings.size, count=settings.tests + settings.examples)
        if len(every) < settings.tests + settings.examples:
            continue
        answers = len({repr(test.expected) for test in every[: settings.tests]})
        if best is None or answers > best[0]:
            best = answers, found, every
        if answers >= (2 if isinstance(every[0].expected, bool) else 3):
            break
    assert best is not None, f"inputs are too few in {settings.families}"
    _, found, every = best
    return found, every[settings.tests :], every[: settings.tests]


def _inputs(found: Problem, rng: Random, *, size: int, count: int) -> list[Case]:
    """``count`` different ones, the empty one first; fewer where the family has no more."""
    seen: dict[str, Case] = {}
    for place in range(20 * count):
        arguments = found.draw(rng, 0 if place == 0 else rng.randint(2, size))
        if repr(arguments) not in seen:
            seen[repr(arguments)] = Case(arguments, found.expected(arguments))
        if len(seen) == count:
            break
    return list(seen.values())


def _question(settings: Code, found: Problem, examples: Sequence[Case]) -> str:
    signature = f"{NAME}({', '.join(found.parameters)})"
    if settings.style == "expression":
        given = " and ".join(found.parameters)
        lines = [f"Write one Python expression in {given}. {found.text.replace('Return', 'It is', 1)}"]
    else:
        lines = [f"Write a Python function {signature}. {found.text}"]
    for test in examples:
        if settings.style == "expression":
            given = ", ".join(
                f"{name} = {value!r}" for name, value in zip(found.parameters, test.arguments, strict=True)
            )
            lines.append(f"For {given} it is {test.expected!r}.")
        else:
            lines.append(f"{NAME}({', '.join(map(repr, test.arguments))}) returns {test.expected!r}.")
    if settings.shown:
        shown = definition(found).split("\n")[: 1 + settings.shown]
        lines.append("It may begin like this:\n" + fenced("\n".join(shown)))
    lines.append("Write the code alone.")
    return "\n".join(lines)
