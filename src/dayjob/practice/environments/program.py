"""An environment that is a Python program: one file with ``reset``, ``step`` and ``reference``, run in the sandbox.

The program, which a model may have written, is never imported here. It answers JSON lines inside the sandbox
(`program_inside`), and everything that it says is checked: what does not fit raises `ProgramFault`, which whoever rolls
out turns into an episode that failed. Its functions:

    reset(seed)               -> (state, task)   task: {"messages": [...], "tools": [...], "max_turns": 6,
                                                 "answer_tokens": 64}, all but the messages may be left out
    step(state, text, calls)  -> {"messages": [...]} to go on; {"reward": 1.0, "parts": {...}} to end; with the former
                                 "progress", in [0, 1]. ``calls``: the tool calls in ``text``, read already, each
                                 {"name", "arguments", "error"}
    reference(seed)           -> the texts that solve the task of this seed
    restore(messages)         -> a state as after that recorded conversation, for the proof that its answers agree with
                                 the real application's (`dream.faithful`); may be left out. A step after it may say
                                 "sure": false where the program does not claim to know the answer

The seed that a program gets is no seed of anybody's: it is drawn from that and a key which the sandbox never sees, so
that no program can tell the tasks on which it is proved.

One sandbox is shared by the episodes of one program in this process. It is renewed after so many episodes, and when it
is old: those who are in it stay to their end, whoever begins gets the new one.
"""

from __future__ import annotations

import asyncio
import atexit
import builtins
import hashlib
import itertools
import math
import threading
from collections import OrderedDict
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from dayjob.endings import EpisodeEnding, Invalid, SandboxEnding
from dayjob.practice.calls import read_calls
from dayjob.practice.environments.program_wire import (
    MOST_TURNS,
    ProgramFault,
    is_broken,
    is_text,
    step_of,
    task_of,
)
from dayjob.practice.protocol import Action, Direction, Mutation, Reward, Step, Task
from dayjob.practice.questions import check_seed
from dayjob.practice.sandbox import Failed, Limits, Session
from dayjob.records import Json

MOST_SOURCE = 256 << 10  # characters of a program
MOST_SHOWN = 100
ANSWER_S = 5.0  # for one line
START_S = 20.0  # for the first: python starts, and the program is read
IDLE = 4  # sandboxes that stay alive without an episode
EPISODES = 128  # begun in one sandbox
LIFE_S = 3_600.0  # of one that begins episodes
MOST_KEY = 64  # characters
LIMITS = Limits(wall_s=86_400, cpu_s=3_600, memory_bytes=256 << 20, output_bytes=1 << 20, disk_bytes=0)
_MISSING = tuple(f"NameError: it has no function {name}" for name in ("reset", "step", "reference"))
_INSIDE = Path(__file__).with_name("program_inside.py")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Tasks that a program sets, one a seed. ``shown``: so many of the reference's actions are done already when the
    task begins, the last one never. ``key``: what the seeds that the program sees are drawn with.

    Raises Invalid for a program that is too long or holds what no file can.
    """

    source: str
    name: str = "program"
    shown: int = 0
    key: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.source, str) or not 0 < len(self.source) <= MOST_SOURCE:
            raise Invalid(f"source must be a program of 1 to {MOST_SOURCE} characters", param="source")
        if "\0" in self.source or is_broken(self.source):
            raise Invalid("source holds what no file of Python can: a zero, or half a character", param="source")
        if not isinstance(self.name, str) or not self.name.isprintable() or not 0 < len(self.name) <= 100:
            raise Invalid("name must be 1 to 100 printable characters", param="name")
        if isinstance(self.shown, bool) or not isinstance(self.shown, int) or not 0 <= self.shown <= MOST_SHOWN:
            raise Invalid(f"shown must be a whole number from 0 to {MOST_SHOWN}", param="shown")
        if not isinstance(self.key, str) or not self.key.isascii() or len(self.key) > MOST_KEY:
            raise Invalid(f"key must be ASCII text of at most {MOST_KEY} characters", param="key")

    @property
    def spec(self) -> Json:
        """The program itself is in it, so that it can be made again anywhere."""
        return {"env": "program"} | asdict(self)

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the program."""
        return hashlib.sha256(self.source.encode()).hexdigest()

    def drawn(self, seed: int) -> int:
        """The seed that the program sees, from 0 to 2**63 - 1."""
        text = str(check_seed(seed)).encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8, key=self.key.encode()).digest(), "big") >> 1

    def reset(self, seed: int) -> ProgramEpisode:
        """The task of this seed. Raises ProgramFault where the program sets none."""
        return ProgramEpisode(self, check_seed(seed))

    def reference(self, seed: int) -> Sequence[Action]:
        """What solves the task, without what is shown already. Raises ProgramFault where the program says nothing."""
        return _LOOP.wait(_reference(self, self.drawn(seed)))

    def mutations(self) -> Sequence[Mutation]:
        """With one more action of the reference shown, or one fewer."""
        out = []
        if self.shown:
            out.append(self._with_shown(self.shown - 1, Direction.HARDER))
        if self.shown < MOST_SHOWN:
            out.append(self._with_shown(self.shown + 1, Direction.EASIER))
        return out

    def _with_shown(self, shown: int, direction: Direction) -> Mutation:
        return Mutation(name=f"{shown} shown", direction=direction, spec=self.spec | {"shown": shown})


class ProgramEpisode:
    """One attempt at a program's task."""

    def __init__(self, program: Program, seed: int, *, restored: Sequence[Json] | None = None) -> None:
        """``restored``: instead of a task of its own, the state after a recorded conversation."""
        self._program = program
        self._number = next(_NUMBERS)
        self._room: _Room | None = _LOOP.wait(_enter(program.source))
        self._ended = False
        try:
            self._task, self._turns = _LOOP.wait(self._begin(program.drawn(seed), restored))
        except BaseException:
            _LOOP.wait(self._leave())
            raise

    @staticmethod
    def after(program: Program, messages: Sequence[Json]) -> ProgramEpisode:
        """The program as after a recorded conversation. Raises ProgramFault where it cannot restore one."""
        return ProgramEpisode(program, 0, restored=messages)

    @property
    def task(self) -> Task:
        """What the actor reads first."""
        return self._task

    async def step(self, action: Action) -> Step:
        """Raises Invalid after the end, ProgramFault where the program fails."""
        step, _ = await self.told(action)
        return step

    async def told(self, action: Action) -> tuple[Step, bool]:
        """The same, with whether the program claims to know what it says."""
        if self._ended or self._room is None:
            raise Invalid("this episode has ended: reset the environment for another", param="action")
        try:
            step, sure = await asyncio.wrap_future(_LOOP.begin(self._step(action.text)))
        except BaseException:
            self._ended = True
            raise
        self._ended = step.ending is not None
        return step, sure

    async def close(self) -> None:
        """Give the sandbox back."""
        if self._room is not None:
            await asyncio.wrap_future(_LOOP.begin(self._leave()))

    # ---- on the loop of the sandboxes

    async def _begin(self, seed: int, restored: Sequence[Json] | None) -> tuple[Task, int]:
        room = self._held()
        if restored is not None:
            await room.ask({"restore": [_with_calls(one) for one in restored], "episode": self._number})
            return Task(messages=tuple(restored), max_turns=MOST_TURNS), MOST_TURNS
        told = await room.ask({"reset": seed, "episode": self._number})
        task = task_of(told.get("task"))
        self._turns = task.max_turns
        messages = list(task.messages)
        actions = await _actions(room, seed) if self._program.shown else []
        for action in actions[: min(self._program.shown, len(actions) - 1)]:
            step, _ = await self._step(action.text)
            if step.ending is not None:
                raise ProgramFault("its reference solution ends the episode before its last action")
            messages += [{"role": "assistant", "content": action.text}, *step.messages]
        shown = Task(
            messages=tuple(messages), tools=task.tools, max_turns=self._turns, answer_tokens=task.answer_tokens
        )
        return shown, self._turns

    async def _step(self, text: str) -> tuple[Step, bool]:
        told = await self._held().ask({"step": text, "calls": _calls_in(text), "episode": self._number})
        step = step_of(told)
        self._turns -= 1
        if step.ending is None and not self._turns:
            step = Step(reward=Reward(value=0.0), ending=EpisodeEnding.TURNS)
        return step, told.get("sure") is not False

    async def _leave(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            await room.leave(self._number)

    def _held(self) -> _Room:
        assert self._room is not None, "an episode that was closed takes no step"
        return self._room


def _calls_in(text: str) -> list[Json]:
    return [asdict(call) for call in read_calls(text)]


def _with_calls(message: Json) -> Json:
    """A recorded message as a program reads it."""
    return message | {"calls": _calls_in(str(message["content"]))} if message["role"] == "assistant" else message


def close_idle() -> None:
    """End every sandbox that no episode uses."""
    _LOOP.wait(_close_idle(0))


@contextmanager
def answering_within(source: str, seconds: float) -> Iterator[None]:
    """For as long as this lasts a program may take so long for all of its answers together; then each of them is a
    ProgramFault. Whatever whoever asks does in between does not count, nor does what waits for its turn."""
    _LEFT[source] = seconds
    try:
        yield
    finally:
        del _LEFT[source]


# ---- sandboxes, all on one loop of their own, so that an episode may begin in any other


class _Room:
    """The sandbox of one program, and how many episodes are in it."""

    def __init__(self, source: str, session: Session) -> None:
        self.source, self.inside, self.dead = source, 0, False
        self.entered = 0  # so often, those who left among them
        self._session, self._until = session, asyncio.get_running_loop().time() + LIFE_S
        self._turn = asyncio.Lock()
        self._within_s = START_S  # the first answer waits for Python, and for the program to be read

    @property
    def may_enter(self) -> bool:
        """Whether it is alive, and young."""
        is_young = self.entered < EPISODES and asyncio.get_running_loop().time() < self._until
        return is_young and not self.dead

    async def ask(self, asked: Json) -> Json:
        """One line there and back. Once it did not come, nobody could tell which answer is whose: the room is closed,
        and whoever enters next gets a new one. Raises ProgramFault."""
        async with self._turn:
            if self.dead:
                raise ProgramFault("its sandbox ended")
            if _LEFT.get(self.source, math.inf) <= 0:
                raise ProgramFault("the seconds for all of its answers were spent")
            began = asyncio.get_running_loop().time()
            try:
                told = await self._session.ask(asked, timeout_s=self._within_s)
            except Failed as failed:
                self.dead = True
                raise ProgramFault(_why(failed)) from None
            except BaseException:
                self.dead = True
                await self._session.close()
                raise
            finally:
                if self.source in _LEFT:
                    _LEFT[self.source] -= asyncio.get_running_loop().time() - began
            self._within_s = ANSWER_S
        if not isinstance(told, dict):
            raise ProgramFault("it said what is no JSON object")
        if "error" in told:
            raise ProgramFault(f"it raised {_plain_name(told['error'])}")
        return told

    async def leave(self, episode: int) -> None:
        """An episode is over."""
        try:
            if not self.dead:
                await self.ask({"close": episode})
        except ProgramFault:
            pass  # it will be seen by whoever enters next
        finally:
            self.inside -= 1
            await _close_idle(IDLE)

    async def close(self) -> None:
        """End the sandbox."""
        self.dead = True
        await self._session.close()


_ROOMS: OrderedDict[str, _Room] = OrderedDict()  # by source; whose was entered last is at the end
_OLD: list[_Room] = []  # those that another one took the place of
_LEFT: dict[str, float] = {}  # seconds of a program's answers, by source
_NUMBERS = itertools.count(1)  # of episodes


async def _enter(source: str) -> _Room:
    """The living room of a program, or a new one."""
    room = _ROOMS.get(source)
    if room is None or not room.may_enter:
        if room is not None:
            _OLD.append(room)
        files = {"main.py": _INSIDE.read_bytes(), "environment.py": source.encode()}
        room = _Room(source, await Session.open(files, ["main.py"], limits=LIMITS))
        _ROOMS[source] = room
    _ROOMS.move_to_end(source)
    room.inside += 1
    room.entered += 1
    return room


async def _close_idle(keep: int) -> None:
    """End the rooms that died or were replaced, and those nobody is in but the newest few."""
    left = [room for room in _OLD if not room.inside]
    _OLD[:] = [room for room in _OLD if room.inside]
    for room in left:
        await room.close()
    empty = [room for room in _ROOMS.values() if not room.inside]
    gone = [room for room in empty if room.dead]
    alive = [room for room in empty if not room.dead]
    for room in [*gone, *alive[: max(0, len(alive) - keep)]]:
        if not room.inside:  # somebody may have entered while another was closed
            if _ROOMS.get(room.source) is room:
                del _ROOMS[room.source]
            await room.close()


async def _reference(program: Program, seed: int) -> list[Action]:
    room = await _enter(program.source)
    try:
        actions = await _actions(room, seed)
    finally:
        room.inside -= 1
        await _close_idle(IDLE)
    return actions[min(program.shown, max(0, len(actions) - 1)) :]


async def _actions(room: _Room, seed: int) -> list[Action]:
    told = (await room.ask({"reference": seed})).get("actions")
    if not isinstance(told, list) or len(told) > MOST_TURNS or not all(is_text(one) for one in told):
        raise ProgramFault(f"its reference is no list of at most {MOST_TURNS} texts")
    return [Action(text=one) for one in told]


class _Loop:
    """An event loop in a thread of its own, started when it is first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Have it done there."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="sandboxes", daemon=True).start()
                atexit.register(close_idle)
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """The same, and wait for it."""
        return self.begin(work).result()


_LOOP = _Loop()


def _plain_name(error: Any) -> str:
    """The name of a built-in exception, or what `program_inside` found missing: no word that the program chose."""
    known = isinstance(error, str) and isinstance(getattr(builtins, error, None), type)
    return error if known or error in _MISSING else "an exception of its own"


def _why(failed: Failed) -> str:
    """How its sandbox ended, without a word of what it said."""
    match failed.result.ending:
        case SandboxEnding.WALL:
            return "it took too long over an answer"
        case SandboxEnding.PROTOCOL:
            return "it answered with something else than a line of JSON"
        case _:
            return f"its sandbox ended: {failed.result.ending.value}"
