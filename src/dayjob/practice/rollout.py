"""Attempts at tasks, many at once: an actor speaks, an environment answers, a trajectory comes out.

Whatever goes wrong inside an environment is data: a trajectory that ended with FAILED or TIMEOUT, with the reason, and
the others go on. What goes wrong with the actor (an engine that was closed, say) is the caller's business and raised.

At most ``parallel`` episodes are open and as many trajectories wait to be taken: memory does not grow with the number
of seeds, which may be endless. A consumer that is slow holds sampling up, and no episode is dropped for being long.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from dayjob.endings import DayjobError, Ending, EpisodeEnding, Invalid
from dayjob.practice.protocol import Action, Environment, Episode, Reward, Step, Task
from dayjob.practice.registry import group_of
from dayjob.records import Json, Trajectory, Turn

J = TypeVar("J")
T = TypeVar("T")
log = logging.getLogger("dayjob.practice")


@dataclass(frozen=True, slots=True, kw_only=True)
class Acted:
    """What an actor said once: N tokens. Actors that are no language models have none (all four tuples empty).

    >>> Acted(text="7").ended.value
    'stop'
    """

    text: str
    prompt_ids: tuple[int, ...] = ()  # as it was read
    token_ids: tuple[int, ...] = ()  # N
    logprobs: tuple[float, ...] = ()  # N, of the distribution the tokens were drawn from
    versions: tuple[str, ...] = ()  # N
    ended: Ending = Ending.STOP


class Actor(Protocol):
    """Whoever takes part in episodes. Called for many at once, and holds nothing of any of them."""

    async def act(self, messages: Sequence[Json], *, tools: Sequence[Json], max_tokens: int, seed: int) -> Acted | None:
        """The next thing to say, with at most ``max_tokens`` tokens. ``seed`` (64 bits) decides about everything
        random in it. None: no room is left for an answer. Raises Lost where the task cannot be put to this actor: the
        attempt ends as its ``ending`` says, and the others go on."""
        ...


class Lost(DayjobError):
    """The environment's own code failed or took too long, or set what the actor cannot read: the episode ends here, as
    ``ending`` says."""

    def __init__(self, ending: EpisodeEnding, message: str) -> None:
        super().__init__(message)
        self.ending = ending


_SLICES = 50  # of a limit of time


class Host(Protocol):
    """Where episodes run. Everything that goes wrong there, `Invalid` specs apart, is raised as `Lost`."""

    async def begin(self, environment: Environment, seed: int, *, step_timeout_s: float) -> Episode:
        """The task of a seed, from its beginning; each call of the episode keeps to the limit of time."""
        ...


class InProcess:
    """Episodes in this process and event loop.

    A step that waits is cut off at its limit. One that computes without end holds up the loop and cannot be cut off
    from within: environments that are not known to return belong into `practice.processes.Workers`.
    """

    async def begin(self, environment: Environment, seed: int, *, step_timeout_s: float) -> Episode:
        """As `Host.begin`."""

        async def reset() -> GuardedEpisode:
            episode = environment.reset(seed)
            try:
                task = episode.task
                check_messages(task.messages)
            except BaseException:
                await episode.close()
                raise
            return GuardedEpisode(episode, task, step_timeout_s)

        return await bounded(reset(), step_timeout_s)


@dataclass(frozen=True, slots=True)
class GuardedEpisode:
    """An episode within its limits: what fails or takes too long is raised as `Lost`."""

    inner: Episode
    task: Task
    step_timeout_s: float

    async def step(self, action: Action) -> Step:
        """As `Episode.step`; raises Lost, also for a step that no learner could use."""
        return await bounded(self._step(action), self.step_timeout_s)

    async def _step(self, action: Action) -> Step:
        step = await self.inner.step(action)
        check_step(step)
        return step

    async def close(self) -> None:
        """As `Episode.close`; never fails: what an episode has already earned does not depend on its tidying up."""
        try:
            await bounded(self.inner.close(), self.step_timeout_s)
        except Lost as lost:
            log.warning("an environment could not be closed: %s", lost)


async def bounded(work: Coroutine[Any, Any, T], timeout_s: float) -> T:
    """Run code of an environment. The one place where its exceptions are caught; raises Lost for each of them.

    The limit is on the time that the environment takes. While somebody else holds the event loop (a model that writes
    a batch in this process), nothing that the environment has done can be seen, so that time counts as one fiftieth of
    the limit at most.
    """
    try:
        async with asyncio.timeout(None) as limit:
            watch = _Watch(limit, timeout_s)
            try:
                return await work
            finally:
                watch.stop()
    except (Exception, SystemExit, asyncio.CancelledError) as error:
        if isinstance(error, asyncio.CancelledError) and _cancelled():
            raise
        if isinstance(error, TimeoutError) and limit.expired():
            raise Lost(EpisodeEnding.TIMEOUT, f"took longer than {timeout_s:g} s") from error
        raise Lost(EpisodeEnding.FAILED, f"{type(error).__name__}: {error}"[:500]) from error


class _Watch:
    """Ends a limit once so many slices of it were waited through, each counted when the event loop is free to."""

    def __init__(self, limit: asyncio.Timeout, timeout_s: float) -> None:
        self._limit, self._slice_s, self._left = limit, timeout_s / _SLICES, _SLICES
        self._loop = asyncio.get_running_loop()
        self._next = self._loop.call_later(self._slice_s, self._count)

    def stop(self) -> None:
        self._next.cancel()

    def _count(self) -> None:
        self._left -= 1
        if self._left:
            self._next = self._loop.call_later(self._slice_s, self._count)
        else:
            self._limit.reschedule(self._loop.time())


def roll(
    environment: Environment,
    seeds: Iterable[int],
    *,
    actor: Actor,
    attempts: int = 1,
    parallel: int = 64,
    step_timeout_s: float = 10.0,
    seed: int = 0,
    host: Host | None = None,
) -> AsyncGenerator[Trajectory, None]:
    """Trajectories in the order in which they finish: ``attempts`` at the task of each of ``seeds``.

    Attempts of one task stand side by side, so groups are complete soon after each other. Closing the generator ends
    every open episode. ``seed`` decides about the actor's draws: equal seeds draw equal actions, whatever ``parallel``.
    ``host``: where environments run, this process unless it is given. Raises what the actor raises, and Invalid for
    numbers that make no sense.
    """
    if attempts < 1 or parallel < 1 or not step_timeout_s > 0:
        raise Invalid("attempts and parallel must be at least 1, and step_timeout_s above 0", param="attempts")
    table = _Table(environment=environment, spec=environment.spec, actor=actor, step_timeout_s=step_timeout_s,
                   host=InProcess() if host is None else host, seed=seed)  # fmt: skip

    async def work(job: tuple[int, int]) -> list[Trajectory]:
        return [await table.play(*job)]

    return in_parallel(((one, attempt) for one in seeds for attempt in range(attempts)), work, parallel=parallel)


async def in_parallel(
    jobs: Iterable[J], work: Callable[[J], Awaitable[Iterable[T]]], *, parallel: int
) -> AsyncGenerator[T, None]:
    """What ``work`` makes of each job, as it comes: ``parallel`` jobs at once, and as many results waiting at most.

    The first exception ends everything and is raised. Closing the generator cancels what is under way.
    """
    left = iter(jobs)
    finished: asyncio.Queue[Iterable[T] | BaseException | None] = asyncio.Queue(parallel)

    async def draw() -> None:
        try:
            for job in left:
                await finished.put(await work(job))
        except BaseException as error:
            if _cancelled():
                raise
            await finished.put(error)
        else:
            await finished.put(None)

    drawing = [asyncio.create_task(draw()) for _ in range(parallel)]
    try:
        active = parallel
        while active:
            made = await finished.get()
            if made is None:
                active -= 1
            elif isinstance(made, BaseException):
                raise made
            else:
                for one in made:
                    yield one
    finally:
        for task in drawing:
            task.cancel()
        await asyncio.gather(*drawing, return_exceptions=True)


def _cancelled() -> bool:
    """Whether somebody cancelled this task: an environment or an engine may raise CancelledError of its own."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@dataclass(slots=True, kw_only=True)
class _Story:
    """What has happened in an episode so far."""

    messages: list[Json] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    environment: Environment
    spec: Json
    actor: Actor
    host: Host
    step_timeout_s: float
    seed: int

    async def play(self, task_seed: int, attempt: int) -> Trajectory:
        story = _Story()
        reward, error = Reward(value=0.0), ""
        try:
            episode = await self.host.begin(self.environment, task_seed, step_timeout_s=self.step_timeout_s)
            try:
                reward, ending = await self._converse(episode, story, key=(task_seed, attempt))
            finally:
                await episode.close()
        except Lost as lost:
            reward, ending, error = Reward(value=0.0), lost.ending, str(lost)
        return Trajectory(
            spec=self.spec, seed=task_seed, group=group_of(self.spec, task_seed),
            turns=tuple(story.turns), messages=tuple(story.messages), reward=reward.value,
            parts=tuple(reward.parts.items()), ending=ending, error=error,
        )  # fmt: skip

    async def _converse(self, episode: Episode, story: _Story, *, key: tuple[int, int]) -> tuple[Reward, EpisodeEnding]:
        task = episode.task
        story.messages.extend(task.messages)
        for turn in range(task.max_turns):
            await asyncio.sleep(0)  # the others' turn, also where neither actor nor environment ever waits
            acted = await self.actor.act(
                story.messages, tools=task.tools, max_tokens=task.answer_tokens, seed=draw_seed(self.seed, *key, turn)
            )
            if acted is None or acted.ended is Ending.ABORTED:
                return Reward(value=0.0), EpisodeEnding.TOKENS if acted is None else EpisodeEnding.ABORTED
            story.messages.append({"role": "assistant", "content": acted.text})
            # Kept before it is answered: what the environment could not stand belongs to the record.
            said = Turn(prompt_ids=acted.prompt_ids, token_ids=acted.token_ids, logprobs=acted.logprobs,
                        versions=acted.versions, text=acted.text)  # fmt: skip
            story.turns.append(said)
            step = await episode.step(Action(text=acted.text))
            story.turns[-1] = replace(said, reward=step.progress)
            story.messages.extend(step.messages)
            if step.reward is not None and step.ending is not None:
                return step.reward, step.ending
        raise Lost(EpisodeEnding.FAILED, f"did not end after its {task.max_turns} turns")


def draw_seed(*numbers: int) -> int:
    """64 bits that depend on all of these numbers and on nothing else.

    >>> draw_seed(0, 1) == draw_seed(0, 1) != draw_seed(1, 0)
    True
    """
    text = " ".join(str(number) for number in numbers)
    return int.from_bytes(hashlib.blake2b(text.encode("ascii"), digest_size=8).digest(), "big")


def check_step(step: Step) -> None:
    """Raises Invalid for half an ending, numbers outside [0, 1], and messages that are none."""
    if (step.reward is None) != (step.ending is None):
        raise Invalid("a reward comes with the ending, and only then", param="reward")
    numbers = {"progress": step.progress}
    if step.reward is not None:
        numbers |= {"the reward": step.reward.value, **{f"part {k!r}": v for k, v in step.reward.parts.items()}}
    for name, number in numbers.items():
        if not (math.isfinite(number) and 0 <= number <= 1):
            raise Invalid(f"{name} is {number}, not between 0 and 1", param="reward")
    check_messages(step.messages)


def check_messages(messages: Sequence[Json]) -> None:
    """Raises Invalid for a message without a known role, or with content that is not text."""
    for message in messages:
        known = message.get("role") in ("system", "user", "assistant", "tool")
        if not known or not isinstance(message.get("content"), str):
            raise Invalid(f"a message needs a role and content that is text: {message}", param="messages")
