"""What environments share: seeds, settings that are checked, final answers, and episodes of one question."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from random import Random
from typing import Any

from dayjob.endings import EpisodeEnding, Invalid
from dayjob.practice.protocol import Action, Direction, Environment, Mutation, Reward, Step, Task
from dayjob.records import Json

MAX_SEED = (1 << 63) - 1
_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_SAID = re.compile(r"\banswer\s*(?:is)?\s*[:=]", re.IGNORECASE)
_AROUND = " \t\r\n\"'`*_$.!;"


def rng_of(*parts: str | int) -> Random:
    """A generator that depends on these parts alone, in every process and on every machine.

    >>> rng_of("sum", 1).random() == rng_of("sum", 1).random()
    True
    """
    return Random("/".join(str(part) for part in parts))  # a text seeds by its SHA-512, never by hash()


def check_seed(seed: int) -> int:
    """Raises Invalid for what is no seed of a task."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise Invalid("a task's seed is a whole number from 0 to 2**63 - 1", param="seed")
    return seed


def check_whole(environment: Any, bounds: dict[str, tuple[int, int]]) -> None:
    """Raises Invalid unless each of these settings is a whole number within its bounds, ends included."""
    for name, (low, high) in bounds.items():
        value = getattr(environment, name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise Invalid(f"{name} must be a whole number from {low} to {high}, not {value!r}", param=name)


def check_choice(environment: Any, name: str, *, known: Sequence[str]) -> tuple[str, ...]:
    """The texts of a setting as a tuple. Raises Invalid unless it is a list of some of the known ones, each once."""
    value = getattr(environment, name)
    listed = isinstance(value, list | tuple)
    if not listed or not value or len(set(map(str, value))) < len(value) or not set(map(str, value)) <= set(known):
        raise Invalid(f"{name} must be a list of one or more of: {', '.join(known)}; not {value!r}", param=name)
    return tuple(value)


def spec_of(name: str, environment: Any) -> Json:
    """``{"env": name, **settings}`` of a dataclass of settings: all of them, so that equal environments have equal
    specs whether or not a default was written out."""
    settings = {field.name: getattr(environment, field.name) for field in fields(environment)}
    return {"env": name} | {key: list(one) if isinstance(one, tuple) else one for key, one in settings.items()}


def neighbours(
    spec: Json, changes: Sequence[tuple[str, Direction, Json]], *, make: Callable[[Json], Environment]
) -> tuple[Mutation, ...]:
    """Mutations from (name, direction, changed settings); those the environment itself refuses are left out."""
    found = []
    for name, direction, changed in changes:
        try:
            made = make({key: one for key, one in (spec | changed).items() if key != "env"})
        except Invalid:
            continue
        if made.spec != spec:
            found.append(Mutation(name=name, direction=direction, spec=made.spec))
    return tuple(found)


def final_answer(text: str) -> str:
    """What an action gives as its answer: the last ``<answer>``, else what follows the last "answer:", else its last
    line; without thoughts, quotes and a full stop around it.

    >>> final_answer("Three and four make seven.\\nAnswer: 7.")
    '7'
    """
    text = _THOUGHT.sub("", text)
    tagged = _TAGGED.findall(text)
    if tagged:
        return str(tagged[-1]).strip(_AROUND)
    said = list(_SAID.finditer(text))
    if said:
        text = text[said[-1].end() :].strip()
        return text.partition("\n")[0].strip(_AROUND)
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip(_AROUND) if lines else ""


class QuestionEpisode:
    """An episode of one question. ``judge``: final answer -> whether it is right; None where it cannot be read."""

    def __init__(self, task: Task, judge: Callable[[str], bool | None]) -> None:
        self._task, self._judge, self._over = task, judge, False

    @property
    def task(self) -> Task:
        return self._task

    async def step(self, action: Action) -> Step:
        """As `Episode.step`. Parts: "answer", whether it is right; "form", whether it could be read at all."""
        if self._over:
            raise Invalid("this episode is over: reset for another", param="action")
        self._over = True
        right = self._judge(final_answer(action.text))
        reward = Reward(
            value=float(right is True), parts={"answer": float(right is True), "form": float(right is not None)}
        )
        return Step(reward=reward, ending=EpisodeEnding.UNREADABLE if right is None else EpisodeEnding.DONE)

    async def close(self) -> None:
        """As `Episode.close`."""
        self._over = True
