"""Environments in worker processes: on all cores, and where one that hangs or crashes takes nothing with it.

`Workers` are a `Host` for `roll`: the actor stays here, tasks and steps go to and fro. With `Workers.play` whole
episodes of an actor that needs no model stay there.

A worker that dies, or that an environment holds up beyond its limit, is replaced. Environments are deterministic, so
the episodes it held are replayed elsewhere from their actions, and nobody notices; only the episode whose step was
running is suspect: held up, it ends with TIMEOUT; dead, it is tried once more and then ends with FAILED.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import mmap
import os
import sys
import tempfile
from collections.abc import AsyncGenerator, Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from dayjob.endings import DayjobError, EpisodeEnding, Invalid
from dayjob.practice.protocol import Action, Environment, Episode, Step, Task
from dayjob.practice.registry import digest, group_of, make
from dayjob.practice.rollout import Lost, in_parallel
from dayjob.practice.wire import step_of, task_of, trajectory_of
from dayjob.practice.worker import ACTORS, PAGE, PULSE_S
from dayjob.records import Json, Trajectory

START_TIMEOUT_S = 60.0  # to start a process, and to import an environment with what it needs
GRACE_S = 1.0  # beyond a step's own limit, before a silent process counts as held up
CHUNK = 32  # seeds of whole episodes at a time
_MAX_LINE = 1 << 28


class _Died(Exception):
    """The process is gone. ``accused``: it was at this very request."""

    def __init__(self, *, accused: bool) -> None:
        super().__init__("a worker process died")
        self.accused = accused


@dataclass(slots=True)
class _Asked:
    answer: asyncio.Future[Json]
    timeout_s: float


@dataclass(slots=True, kw_only=True, eq=False)
class _Process:
    """One worker process and what it was asked."""

    child: asyncio.subprocess.Process
    page: mmap.mmap  # the number of the request that it runs
    asked: dict[int, _Asked] = field(default_factory=dict)
    loaded: dict[str, asyncio.Task[Json]] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    episodes: set[int] = field(default_factory=set)  # open ones
    silent_s: float = 0.0
    held_up: bool = False  # it was ended for computing beyond a limit
    dead: bool = False
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @staticmethod
    async def start() -> _Process:
        """A process that is ready. Raises DayjobError when it cannot start."""
        with tempfile.TemporaryFile() as file:
            file.truncate(PAGE.size)
            page = mmap.mmap(file.fileno(), PAGE.size)
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "dayjob.practice.worker", str(file.fileno()), pass_fds=(file.fileno(),),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=_MAX_LINE,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )  # fmt: skip
        process = _Process(child=child, page=page)
        assert child.stdout is not None
        with contextlib.suppress(TimeoutError):
            if await asyncio.wait_for(child.stdout.readline(), START_TIMEOUT_S):
                process.tasks = [asyncio.create_task(process._read()), asyncio.create_task(process._watch())]
                return process
        await process.end()
        raise DayjobError("a worker process does not start: see what `python -m dayjob.practice.worker` says")

    async def ask(self, limit_s: float, **request: Any) -> Json:
        """An answer. Raises _Died; and Lost or Invalid, as the worker says."""
        if self.dead:
            raise _Died(accused=False)
        number = next(self.numbers)
        asked = self.asked[number] = _Asked(asyncio.get_running_loop().create_future(), limit_s)
        self.send(id=number, **request)
        answer = await asked.answer
        if "invalid" in answer:
            raise Invalid(answer["invalid"], param=answer["param"])
        if "lost" in answer:
            raise Lost(EpisodeEnding(answer["ending"]), answer["lost"])
        return answer

    def send(self, **request: Any) -> None:
        """A request whose answer nobody waits for, unless `ask` does."""
        assert self.child.stdin is not None
        if not self.dead and not self.child.stdin.is_closing():
            self.child.stdin.write(json.dumps(request).encode("ascii") + b"\n")

    async def load(self, spec: Json) -> str:
        """Make an environment there, once; its digest. Raises as `make` does."""
        name = digest(spec)
        task = self.loaded.get(name)
        if task is None:
            task = self.loaded[name] = asyncio.create_task(self.ask(START_TIMEOUT_S, do="load", spec=spec))
        try:
            await asyncio.shield(task)
        except (Invalid, Lost):
            self.loaded.pop(name, None)  # what it lacked may be installed by the next time
            raise
        return name

    async def end(self) -> None:
        """End the process and wait until it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self.child.kill()
        if self.child.stdin is not None:
            self.child.stdin.close()
        await self.child.wait()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, *self.loaded.values(), return_exceptions=True)

    async def _read(self) -> None:
        assert self.child.stdout is not None
        try:
            while line := await self.child.stdout.readline():
                self.silent_s = 0.0
                answer: Json = json.loads(line)
                asked = self.asked.pop(answer["id"], None)
                if asked is not None and not asked.answer.done():
                    asked.answer.set_result(answer)
        finally:
            self._lose()

    def _lose(self) -> None:
        """The process is gone: whoever waits for it hears so, and whether it was at their request."""
        self.dead = True
        at = PAGE.unpack_from(self.page)[0]
        for number, asked in self.asked.items():
            if not asked.answer.done() and number == at and self.held_up:
                late = Lost(EpisodeEnding.TIMEOUT, f"computed for longer than {asked.timeout_s:g} s")
                asked.answer.set_exception(late)
            elif not asked.answer.done():
                asked.answer.set_exception(_Died(accused=number == at))

    async def _watch(self) -> None:
        """End the process once it gave no sign of life for longer than what it runs may take.

        Silence is counted in turns of this loop: time in which this process itself was held up is not the worker's.
        """
        while not self.dead:
            await asyncio.sleep(PULSE_S)
            self.silent_s += PULSE_S
            running = self.asked.get(PAGE.unpack_from(self.page)[0])
            limit = max((one.timeout_s for one in self.asked.values()), default=START_TIMEOUT_S)
            if self.silent_s > (limit if running is None else running.timeout_s) + GRACE_S:
                self.held_up = True
                with contextlib.suppress(ProcessLookupError):
                    self.child.kill()
                return


class Workers:
    """A number of worker processes, as a `Host`. Use with ``async with``; the processes end with it, or with us.

    POSIX. The processes import what this one can import, and see its environment variables.
    """

    def __init__(self, count: int) -> None:
        if count < 1:
            raise Invalid("there must be at least one worker process", param="count")
        self.count = count
        self._processes: list[_Process] = []
        self._starting = asyncio.Lock()
        self._episodes = itertools.count(1)
        self._open = False

    async def __aenter__(self) -> Workers:
        self._open = True
        try:
            for _ in range(self.count):
                self._processes.append(await _Process.start())
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End every process."""
        self._open = False
        processes, self._processes = self._processes, []
        await asyncio.gather(*(process.end() for process in processes))

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes there are, for whoever watches over them."""
        return tuple(process.child.pid for process in self._processes)

    async def begin(self, environment: Environment, seed: int, *, step_timeout_s: float) -> Episode:
        """As `Host.begin`. Raises Invalid for a spec that cannot be made there, and Lost."""
        episode = _WorkerEpisode(self, spec=environment.spec, seed=seed, timeout_s=step_timeout_s)
        await episode.begin()
        return episode

    def play(
        self,
        spec: Json,
        seeds: Iterable[int],
        *,
        actor: str = "reference",
        attempts: int = 1,
        step_timeout_s: float = 10.0,
        seed: int = 0,
        chunk: int = CHUNK,
    ) -> AsyncGenerator[Trajectory, None]:
        """Trajectories of "reference", "silent" or "random" in the order in which they finish; nothing but specs and
        seeds goes there, and nothing but trajectories comes back. Otherwise as `roll`."""
        if actor not in ACTORS:
            raise Invalid(f"actor must be one of: {', '.join(ACTORS)}; not {actor!r}", param="actor")
        if attempts < 1 or chunk < 1 or not step_timeout_s > 0:
            raise Invalid("attempts and chunk must be at least 1, and step_timeout_s above 0", param="attempts")
        whole = make(spec).spec
        request = {"do": "play", "actor": actor, "attempts": attempts, "timeout_s": step_timeout_s, "seed": seed}

        async def work(some: list[int]) -> list[Trajectory]:
            return await self._play(whole, some, request=request)

        return in_parallel(_chunks(seeds, chunk), work, parallel=2 * self.count)

    async def pick(self) -> _Process:
        """The process with the least to do; dead ones are replaced first."""
        if not self._open:
            raise Invalid("these workers are not running: use them within `async with`", param="workers")
        async with self._starting:
            for place, process in enumerate(self._processes):
                if process.dead:
                    await process.end()
                    self._processes[place] = await _Process.start()
        return min(self._processes, key=lambda process: len(process.episodes) + len(process.asked))

    def number(self) -> int:
        """A number that no other episode has."""
        return next(self._episodes)

    async def _play(self, spec: Json, seeds: list[int], *, request: Json) -> list[Trajectory]:
        for _ in range(2):
            process = await self.pick()
            try:
                name = await process.load(spec)
                answer = await process.ask(request["timeout_s"], environment=name, seeds=seeds, **request)
                return [trajectory_of(one) for one in answer["trajectories"]]
            except _Died as died:
                reason = Lost(EpisodeEnding.FAILED, "the process that ran it died")
                if not died.accused:
                    return await self._play(spec, seeds, request=request)
            except Lost as lost:
                reason = lost
            if len(seeds) > 1:  # one of them is to blame, the others are not
                alone = [await self._play(spec, [one], request=request) for one in seeds]
                return [one for some in alone for one in some]
            if reason.ending is EpisodeEnding.TIMEOUT:
                break
        lost_one = Trajectory(
            spec=spec, seed=seeds[0], group=group_of(spec, seeds[0]), turns=(), messages=(), reward=0.0, parts=(),
            ending=reason.ending, error=str(reason),
        )  # fmt: skip
        return [lost_one] * request["attempts"]


class _WorkerEpisode:
    """An episode in a worker; when that dies, it goes on in another one from its recorded actions."""

    def __init__(self, workers: Workers, *, spec: Json, seed: int, timeout_s: float) -> None:
        self._workers, self._spec, self._seed, self._timeout_s = workers, spec, seed, timeout_s
        self._process: _Process | None = None
        self._number = 0
        self._said: list[str] = []
        self._accused = 0
        self._task: Task | None = None

    @property
    def task(self) -> Task:
        assert self._task is not None, "begin() comes first"
        return self._task

    async def begin(self) -> None:
        """Have the task set. Raises Invalid and Lost."""
        while self._process is None:
            await self._place()

    async def step(self, action: Action) -> Step:
        """As `Episode.step`; raises Lost."""
        while True:
            if self._process is not None:
                try:
                    step = await self._ask(self._process, do="step", text=action.text)
                    self._said.append(action.text)
                    return step_of(step["step"])
                except _Died as died:
                    self._blame(died)
            await self._place()

    async def close(self) -> None:
        """As `Episode.close`."""
        if self._process is not None:
            self._leave(self._process)
            self._process = None

    async def _place(self) -> None:
        """Begin in some process, and do again what was done; leaves no process behind if that one dies too."""
        process, self._number = await self._workers.pick(), self._workers.number()
        process.episodes.add(self._number)
        try:
            name = await process.load(self._spec)
            found = await self._ask(process, do="begin", environment=name, seed=self._seed, timeout_s=self._timeout_s)
            self._task = task_of(found["task"])
            for text in self._said:
                await self._ask(process, do="step", text=text)
            self._process = process
        except _Died as died:
            self._blame(died)
        except BaseException:
            self._leave(process)
            raise

    def _leave(self, process: _Process) -> None:
        process.episodes.discard(self._number)
        process.send(id=0, do="close", episode=self._number)

    async def _ask(self, process: _Process, **request: Any) -> Json:
        return await process.ask(self._timeout_s, episode=self._number, **request)

    def _blame(self, died: _Died) -> None:
        self._process = None
        self._accused += died.accused
        if self._accused > 1:
            raise Lost(EpisodeEnding.FAILED, "the process that ran this step died, twice") from died


def _chunks(seeds: Iterable[int], size: int) -> Iterator[list[int]]:
    left = iter(seeds)
    while some := list(itertools.islice(left, size)):
        yield some
