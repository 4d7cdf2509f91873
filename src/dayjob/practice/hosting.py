"""Worker processes that start when the first episode does, for whoever holds a `Host` longer than an event loop."""

from __future__ import annotations

import asyncio

from dayjob.endings import Invalid
from dayjob.practice.processes import Workers
from dayjob.practice.protocol import Environment, Episode

MOST_WORKERS = 1024


class LazyWorkers:
    """A `Host` of ``count`` worker processes: none before the first episode, none after :meth:`close`, and new ones for
    an episode after that. Within one event loop between the two.

    Raises Invalid for a count that is no whole number from 1 to MOST_WORKERS.
    """

    def __init__(self, count: int) -> None:
        if type(count) is not int or not 1 <= count <= MOST_WORKERS:
            raise Invalid(f"workers is {count}: give a whole number from 1 to {MOST_WORKERS}", param="workers")
        self._count = count
        self._started: asyncio.Task[Workers] | None = None

    async def begin(self, environment: Environment, seed: int, *, step_timeout_s: float) -> Episode:
        """As `Host.begin`. Raises DayjobError where a process does not start."""
        if self._started is None:
            self._started = asyncio.create_task(Workers(self._count).__aenter__())
        workers = await asyncio.shield(self._started)  # whoever asked may go away: the others still wait
        return await workers.begin(environment, seed, step_timeout_s=step_timeout_s)

    async def close(self) -> None:
        """End every process, also those that are still starting."""
        started, self._started = self._started, None
        if started is None:
            return
        started.cancel()  # of what has started already this changes nothing
        await asyncio.wait({started})
        if not started.cancelled() and started.exception() is None:
            await started.result().close()
