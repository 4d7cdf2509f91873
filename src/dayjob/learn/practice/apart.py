"""Actors apart from the learner: a thread with an event loop and an engine of its own, and the adapters it is sent.

Attempts go on while the learner learns. After every update the learner writes its adapter as a PEFT folder and has the
engine swap to it: a turn that is being written is finished by the weights it began with, the next turn of the same
episode gets the new ones, and every token is stamped. How far the two may be apart is the buffer's pacing.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import threading
from collections.abc import Coroutine, Mapping
from concurrent.futures import wait
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from dayjob.endings import DayjobError, Invalid
from dayjob.learn.practice.buffer import ReplayBuffer, version_name
from dayjob.learn.practice.ground import Ground, close_ground
from dayjob.policies.adapters import file_digests
from dayjob.policies.engine_protocol import Engine, VersionRef
from dayjob.policies.language_train import LoraShape, write_adapter

ALIAS = "practice"
_LOOK_S = 0.02  # between two questions whether a group may be begun
_SWAP_S = 600.0  # an engine that takes longer over an adapter is stuck
_ALIVE_S = 0.5  # between two questions whether the thread lives, while something is done on it
_BASE = VersionRef(name=version_name(0), digest=version_name(0))


T = TypeVar("T")


class Actors:
    """Begins groups as fast as the buffer allows, until closed. Owns its engine."""

    def __init__(self, ground: Ground, buffer: ReplayBuffer, *, engine: Engine, folder: Path, shape: LoraShape) -> None:
        """``folder``: where adapters of this ``shape`` are handed over."""
        self._ground, self._buffer, self._engine = ground, buffer, engine
        self._folder, self._shape = folder, shape
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._error: BaseException | None = None
        self._last = _BASE
        self._thread = threading.Thread(target=self._run, name="actors", daemon=True)

    def start(self, state: Mapping[str, Tensor], *, update: int) -> None:
        """Begin with these weights, the result of so many updates."""
        self.run(self._engine.swap(ALIAS, _BASE))
        if update:
            self.run(self._use(self._written(state, update)))
        self._thread.start()

    def send(self, state: Mapping[str, Tensor], *, update: int) -> None:
        """The weights after so many updates: the next turns are written with them."""
        self.check()
        self.run(self._use(self._written(state, update)))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Have something done on the actors' loop, between their steps: what they use at all times may be used there by
        nobody else at once. Raises what it raises, and what ended the actors where they ended meanwhile."""
        if self._thread.ident is None:
            return self._loop.run_until_complete(work)
        done = asyncio.run_coroutine_threadsafe(work, self._loop)
        while not wait([done], timeout=_ALIVE_S).done and self._thread.is_alive():
            pass
        if done.cancelled() or not done.done():
            work.close()
            self.check()
            raise Invalid("the actors have ended: nothing is done on their thread any more")
        return done.result()

    def check(self) -> None:
        """Raises what ended the actors, if anything did."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """End all attempts and the engine."""
        if self._thread.ident is None:
            self._loop.run_until_complete(self._end())
        elif self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
        self._loop.close()
        if self._last.folder is not None:
            shutil.rmtree(self._last.folder, ignore_errors=True)

    def _written(self, state: Mapping[str, Tensor], update: int) -> VersionRef:
        name = version_name(update)
        write_adapter(self._folder / name, state, shape=self._shape, base="base")
        files = file_digests(self._folder / name)
        return VersionRef(name=name, digest=name, folder=self._folder / name, files=files)

    # ---- on the thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._live())
        except BaseException as error:  # told to the learner, who raises it
            self._error = error
        finally:
            self._buffer.close()
            self._loop.run_until_complete(_cancel_others())

    async def _live(self) -> None:
        stop: asyncio.Task[Any] = asyncio.create_task(self._stop.wait())
        groups: set[asyncio.Task[Any]] = set()
        try:
            while not stop.done():
                ticket = self._buffer.ticket()
                if ticket is not None:
                    groups.add(asyncio.create_task(self._group(ticket)))
                    continue
                done, _ = await asyncio.wait({stop, *groups}, timeout=_LOOK_S, return_when="FIRST_COMPLETED")
                for one in groups & done:
                    groups.discard(one)
                    one.result()
        finally:
            for one in (stop, *groups):
                one.cancel()
            await asyncio.gather(stop, *groups, return_exceptions=True)
            await self._end()

    async def _end(self) -> None:
        try:
            await close_ground(self._ground)
        finally:
            await self._engine.close()

    async def _group(self, ticket: int) -> None:
        self._buffer.add(ticket, await self._ground.attempts(self._engine, ALIAS, ticket=ticket))

    async def _use(self, ref: VersionRef) -> None:
        """From now on the alias means ``ref``; what it meant before is finished and forgotten."""
        await asyncio.wait_for(self._engine.swap(ALIAS, ref), _SWAP_S)
        old, self._last = self._last, ref
        if old.folder is not None and old.name != ref.name:
            with contextlib.suppress(DayjobError):  # it was forgotten already
                await self._engine.drop(old.name)
            shutil.rmtree(old.folder)


async def _cancel_others() -> None:
    """Whatever was still to be done here: whoever waits for it hears so."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for one in left:
        one.cancel()
    await asyncio.gather(*left, return_exceptions=True)
