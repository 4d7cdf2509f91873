"""The other side of `practice.processes`: a process that runs environments for the one that started it.

JSON lines: requests on standard input, answers on standard output, in whatever order they are ready. The process ends
when its input does, even while an environment computes without end, so none is ever left behind.

Before it runs code of an environment it writes the request's number into the shared page that it was given: whoever
started it can tell which step a silent or dead process was at.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import struct
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, BinaryIO

from dayjob.endings import Invalid
from dayjob.practice.actor import RandomActor, ScriptedActor, SilentActor
from dayjob.practice.protocol import Action, Environment, Episode
from dayjob.practice.registry import digest, make
from dayjob.practice.rollout import Actor, InProcess, Lost, roll
from dayjob.practice.wire import step_json, task_json, trajectory_json
from dayjob.records import Json

PULSE_S = 0.2  # a sign of life this often, unless an environment holds the process up
ACTORS = ("reference", "silent", "random")
PAGE = struct.Struct("<Q")


class Worker:
    """The environments and open episodes of one process. Runs on one event loop."""

    def __init__(self, say: Callable[[Json], None], running: Callable[[int], None]) -> None:
        """``say`` sends an answer; ``running`` marks which request's code runs from now on."""
        self._say, self._running = say, running
        self._environments: dict[str, Environment] = {}
        self._episodes: dict[int, Episode] = {}
        self._host = InProcess()
        self._do: dict[str, Callable[[Json], Coroutine[Any, Any, Json]]] = {
            "load": self._load, "begin": self._begin, "step": self._step, "close": self._close, "play": self._play,
        }  # fmt: skip

    async def answer(self, request: Json) -> None:
        """Do what a request asks, and say what came of it."""
        self._running(request["id"])
        try:
            found = await self._do[request["do"]](request)
        except Invalid as error:
            found = {"invalid": str(error), "param": error.param}
        except Lost as lost:
            found = {"lost": str(lost), "ending": lost.ending.value}
        except Exception as error:  # making an environment: its module, and what that imports
            found = {"lost": f"{type(error).__name__}: {error}"[:500], "ending": "failed"}
        try:
            self._say({"id": request["id"], **found})
        except (TypeError, ValueError) as error:  # nothing is said of an answer that is no JSON
            self._say({"id": request["id"], "lost": f"what it says is no JSON: {error}"[:500], "ending": "failed"})

    async def _load(self, request: Json) -> Json:
        spec: Json = request["spec"]
        self._environments[digest(spec)] = make(spec)
        return {}

    async def _begin(self, request: Json) -> Json:
        environment = self._environments[request["environment"]]
        episode = await self._host.begin(environment, request["seed"], step_timeout_s=request["timeout_s"])
        self._episodes[request["episode"]] = episode
        return {"task": task_json(episode.task)}

    async def _step(self, request: Json) -> Json:
        return {"step": step_json(await self._episodes[request["episode"]].step(Action(text=request["text"])))}

    async def _close(self, request: Json) -> Json:
        episode = self._episodes.pop(request["episode"], None)
        if episode is not None:
            await episode.close()
        return {}

    async def _play(self, request: Json) -> Json:
        environment = self._environments[request["environment"]]
        played = []
        for task_seed in request["seeds"]:
            actor = _actor(request["actor"], environment, task_seed)
            rolled = roll(
                environment, [task_seed], actor=actor, attempts=request["attempts"], parallel=1,
                step_timeout_s=request["timeout_s"], seed=request["seed"],
            )  # fmt: skip
            played += [trajectory_json(one) async for one in rolled]
        return {"trajectories": played}


def _actor(name: str, environment: Environment, seed: int) -> Actor:
    if name == "reference":
        return ScriptedActor(tuple(environment.reference(seed)))
    return SilentActor() if name == "silent" else RandomActor()


async def serve(requests: BinaryIO, answers: BinaryIO, *, page: mmap.mmap | bytearray) -> None:
    """Answer requests; the process ends with them."""
    loop = asyncio.get_running_loop()
    inbox: asyncio.Queue[Json] = asyncio.Queue()

    def say(answer: Json) -> None:
        line = json.dumps(answer, allow_nan=False).encode("ascii") + b"\n"
        answers.write(line)
        answers.flush()

    def read() -> None:
        for line in requests:
            loop.call_soon_threadsafe(inbox.put_nowait, json.loads(line))
        os._exit(0)  # whoever asked is gone; an environment that never returns must not keep the process alive

    async def pulse() -> None:
        while True:
            say({"id": 0})
            await asyncio.sleep(PULSE_S)

    worker = Worker(say, lambda number: PAGE.pack_into(page, 0, number))
    threading.Thread(target=read, daemon=True).start()
    running = {asyncio.create_task(pulse())}
    while True:
        task = asyncio.create_task(worker.answer(await inbox.get()))
        running.add(task)
        task.add_done_callback(running.discard)


def main() -> None:
    """Run on the standard streams; the argument is the number of the shared page's file descriptor."""
    page = mmap.mmap(int(sys.argv[1]), PAGE.size)
    answers = os.fdopen(os.dup(1), "wb", buffering=1 << 16)
    os.dup2(2, 1)  # what an environment prints is no answer
    asyncio.run(serve(sys.stdin.buffer, answers, page=page))


if __name__ == "__main__":
    main()
