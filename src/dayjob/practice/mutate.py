"""Mutations that need no knowledge of an environment: part of the solution shown, and two tasks as one.

Both are environments themselves, made from specs like any other, so a curriculum, a journal or a worker process can
name them. `Shown` is what leads out of a regime without rewards: with all but the last steps done, even a beginner
sometimes finishes, and what is shown is then taken back half by half (a curriculum from the goal backwards: Florensa
et al., "Reverse Curriculum Generation", 2017; Salimans & Chen, "Learning Montezuma's Revenge from a Single
Demonstration", 2018). `neighbours` is what a curriculum asks: an environment's own mutations and these.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from dayjob.endings import EpisodeEnding, Invalid
from dayjob.practice.protocol import Action, Direction, Environment, Episode, Mutation, Reward, Step, Task
from dayjob.practice.questions import check_seed, rng_of
from dayjob.practice.registry import make
from dayjob.records import Json

HOW = ("prefix", "hint")
MOST_SHOWN = 63 / 64
LEAST_SHOWN = 1 / 64
_WRAPPERS = ("shown", "both")
_PROBE = 0  # the seed that says whether an environment knows solutions, and how long they are


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """An environment with a share of each reference solution given away.

    ``how`` "prefix": the first turns of the solution are done already, and the episode begins after them. "hint": they
    stand in the last message, and nothing is done; of a solution of one turn, the first characters. At least the last
    turn, or character, stays to be done. ``share`` is between 1/64 and 63/64. Raises Invalid for an inner environment
    without a reference solution, or a ``how`` that does not suit it.

    >>> inner = {"env": "arithmetic", "digits": 4}
    >>> Shown(inner=inner, share=0.5, how="hint").reset(0).task.messages[-1]["content"].splitlines()[-1]
    '(The answer begins: 57)'
    """

    inner: Json
    share: float
    how: str = "prefix"

    def __post_init__(self) -> None:
        if self.how not in HOW:
            raise Invalid(f"how must be one of {', '.join(HOW)}, not {self.how!r}", param="how")
        if isinstance(self.share, bool) or not isinstance(self.share, int | float):
            raise Invalid("share must be a number", param="share")
        if not LEAST_SHOWN <= self.share <= MOST_SHOWN:
            raise Invalid("share must be between 1/64 and 63/64: something is shown, something is left", param="share")
        made = _inner(self.inner)
        solution = made.reference(_PROBE)
        if not solution:
            raise Invalid(f"{made.spec['env']} knows no solutions, so none can be shown", param="inner")
        if self.how == "prefix" and len(solution) == 1:
            raise Invalid("a solution of one turn has no first turns: use how = hint", param="how")
        object.__setattr__(self, "inner", made.spec)

    @property
    def spec(self) -> Json:
        return {"env": "shown", "inner": self.inner, "share": self.share, "how": self.how}

    def reset(self, seed: int) -> Episode:
        """As `Environment.reset`."""
        inner = make(self.inner)
        solution = inner.reference(check_seed(seed))
        episode = inner.reset(seed)
        return self._after(episode, solution) if self.how == "prefix" else self._hinted(episode, solution)

    def reference(self, seed: int) -> Sequence[Action]:
        """As `Environment.reference`."""
        solution = make(self.inner).reference(seed)
        return solution[self._count(solution) :] if self.how == "prefix" else solution

    def mutations(self) -> Sequence[Mutation]:
        """Half of what was left is shown too; or twice as much is left, which at last is everything."""
        less, more = 1 - 2 * (1 - self.share), 1 - (1 - self.share) / 2
        harder = self.inner if less < LEAST_SHOWN else self.spec | {"share": less}
        found = [Mutation(name="less shown", direction=Direction.HARDER, spec=harder)]
        if more <= MOST_SHOWN:
            found.append(Mutation(name="more shown", direction=Direction.EASIER, spec=self.spec | {"share": more}))
        return tuple(found)

    def _count(self, solution: Sequence[Action]) -> int:
        """Turns that are shown; the last never is."""
        return min(len(solution) - 1, ceil(len(solution) * self.share))

    def _after(self, episode: Episode, solution: Sequence[Action]) -> Episode:
        task = episode.task
        said = list(task.messages)
        count = self._count(solution)
        for action in solution[:count]:
            step = _at_once(episode.step(action))
            assert not step.ending, "a reference solution ended before its last turn"
            said += [{"role": "assistant", "content": action.text}, *step.messages]
        return _Begun(
            episode,
            Task(
                messages=tuple(said),
                tools=task.tools,
                max_turns=task.max_turns - count,
                answer_tokens=task.answer_tokens,
            ),
        )

    def _hinted(self, episode: Episode, solution: Sequence[Action]) -> Episode:
        task = episode.task
        if len(solution) == 1:
            text = solution[0].text
            begins = text[: min(len(text) - 1, ceil(len(text) * self.share))]
            hint = f"(The answer begins: {begins})" if begins else ""
        else:
            hint = f"(The first steps: {'; '.join(one.text for one in solution[: self._count(solution)])})"
        if not hint:
            return episode
        last = task.messages[-1]
        messages = (*task.messages[:-1], last | {"content": f"{last['content']}\n{hint}"})
        return _Begun(
            episode,
            Task(messages=messages, tools=task.tools, max_turns=task.max_turns, answer_tokens=task.answer_tokens),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Both:
    """Two tasks, one after the other in one episode; solved when both are.

    The reward is the product of the two, and each part is named by whose it is. Both are always played: what the second
    earned is known when the first failed. Raises Invalid for a spec that makes no environment.
    """

    first: Json
    second: Json

    def __post_init__(self) -> None:
        object.__setattr__(self, "first", _inner(self.first).spec)
        object.__setattr__(self, "second", _inner(self.second).spec)

    @property
    def spec(self) -> Json:
        return {"env": "both", "first": self.first, "second": self.second}

    def reset(self, seed: int) -> Episode:
        """As `Environment.reset`."""
        first = make(self.first).reset(check_seed(seed))
        return _BothEpisode(first, make(self.second).reset(_second_seed(seed)))

    def reference(self, seed: int) -> Sequence[Action]:
        """As `Environment.reference`."""
        first, second = make(self.first).reference(seed), make(self.second).reference(_second_seed(seed))
        return (*first, *second) if first and second else ()

    def mutations(self) -> Sequence[Mutation]:
        """Each of the two alone."""
        alone = {"the first alone": self.first, "the second alone": self.second}
        if self.first == self.second:
            alone.pop("the second alone")
        return tuple(Mutation(name=name, direction=Direction.EASIER, spec=spec) for name, spec in alone.items())


def neighbours(spec: Json) -> tuple[Mutation, ...]:
    """An environment's own mutations and the generic ones: half of the solution shown where one is known; the task
    twice in one episode where the environment has nothing harder. Raises Invalid as `registry.make`."""
    environment = make(spec)
    found = list(environment.mutations())
    if spec["env"] in _WRAPPERS:
        return tuple(found)
    solution = environment.reference(_PROBE)
    if solution:
        half = Shown(inner=spec, share=0.5, how="prefix" if len(solution) > 1 else "hint")
        found.append(Mutation(name="half shown", direction=Direction.EASIER, spec=half.spec))
    if not any(one.direction is Direction.HARDER for one in found):
        twice = Both(first=spec, second=spec)
        found.append(Mutation(name="twice", direction=Direction.HARDER, spec=twice.spec))
    return tuple(found)


def tasks_in(spec: Json, seed: int) -> tuple[tuple[Json, int], ...]:
    """The task of a seed, and those that it is made of: (spec, seed) each. Shown in part it is made of the whole one.

    >>> [one["env"] for one, _ in tasks_in({"env": "both", "first": {"env": "strings"}, "second": {"env": "code"}}, 3)]
    ['both', 'strings', 'code']
    """
    whole = (spec, seed)
    match spec["env"]:
        case "shown":
            return whole, (spec["inner"], seed)
        case "both":
            return whole, (spec["first"], seed), (spec["second"], _second_seed(seed))
        case "program" if spec.get("shown"):
            return whole, (spec | {"shown": 0}, seed)
    return (whole,)


class _Begun:
    """An episode whose task is told otherwise, with what has happened before."""

    def __init__(self, inner: Episode, task: Task) -> None:
        self._inner, self._task = inner, task

    @property
    def task(self) -> Task:
        return self._task

    async def step(self, action: Action) -> Step:
        """As `Episode.step`."""
        return await self._inner.step(action)

    async def close(self) -> None:
        """As `Episode.close`."""
        await self._inner.close()


class _BothEpisode:
    """The first episode to its end, then the second."""

    def __init__(self, first: Episode, second: Episode) -> None:
        self._first, self._second = first, second
        self._earned: Reward | None = None  # by the first, once it is over
        one, other = first.task, second.task
        # One system message in front, as chat templates want it.
        systems = [m["content"] for task in (one, other) for m in task.messages if m["role"] == "system"]
        opening: list[Json] = [{"role": "system", "content": "\n".join(dict.fromkeys(systems))}] if systems else []
        self._later = tuple(m for m in other.messages if m["role"] != "system")
        self._task = Task(
            messages=(*opening, *(m for m in one.messages if m["role"] != "system")),
            tools=tuple({str(tool): tool for tool in (*one.tools, *other.tools)}.values()),
            max_turns=one.max_turns + other.max_turns,
            answer_tokens=max(one.answer_tokens, other.answer_tokens),
        )

    @property
    def task(self) -> Task:
        return self._task

    async def step(self, action: Action) -> Step:
        """As `Episode.step`. A turn's own part counts half."""
        if self._earned is None:
            step = await self._first.step(action)
            if step.reward is None:
                return Step(messages=step.messages, progress=step.progress / 2)
            self._earned = step.reward
            return Step(messages=self._later, progress=step.progress / 2)
        step = await self._second.step(action)
        if step.reward is None:
            return Step(messages=step.messages, progress=step.progress / 2)
        parts: Mapping[str, float] = {
            "first": self._earned.value,
            "second": step.reward.value,
            **{f"first.{name}": value for name, value in self._earned.parts.items()},
            **{f"second.{name}": value for name, value in step.reward.parts.items()},
        }
        reward = Reward(value=self._earned.value * step.reward.value, parts=parts)
        return Step(progress=step.progress / 2, reward=reward, ending=step.ending or EpisodeEnding.DONE)

    async def close(self) -> None:
        """As `Episode.close`."""
        await self._first.close()
        await self._second.close()


def _inner(spec: Json) -> Environment:
    if not isinstance(spec, dict):
        raise Invalid('an inner environment is a spec, such as {"env": "arithmetic"}', param="inner")
    if spec.get("env") in _WRAPPERS:
        raise Invalid(f"{spec['env']} cannot stand inside another wrapper: name its inner environment", param="inner")
    return make(spec)


def _second_seed(seed: int) -> int:
    """Another task than the first, though both are of one environment."""
    return rng_of("both", seed).getrandbits(63)


def _at_once(step: Coroutine[Any, Any, Step]) -> Step:
    """The result of a step that waits for nothing. Raises Invalid for one that would."""
    try:
        step.send(None)
    except StopIteration as done:
        found: Step = done.value
        return found
    step.close()
    raise Invalid("this environment's steps wait for something, so none can be done beforehand: use how = hint",
                  param="how")  # fmt: skip
