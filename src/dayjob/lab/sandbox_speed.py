"""``dayjob lab sandbox``: how many code tasks a second are judged in the sandbox, and what the box itself costs.

A task is one answer to the code environment: a box, Python, the answer's code, and eight hidden tests one after
another. Beside it, in turn in every round: a Python process that does nothing without a box, and one in a box.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dayjob.endings import DayjobError
from dayjob.lab import figures
from dayjob.lab.speed_rows import Row
from dayjob.practice import sandbox
from dayjob.practice.environments.code import Code

CODE = ("practice/**", "lab")  # folders whose code decides about the figures
SEED = 0
AT_ONCE = (1, 2, 4, 16, 64)
EMPTY = sandbox.Limits(disk_bytes=0)


def run(tasks: int, out_dir: Path, *, rounds: int, quick: bool = False) -> None:
    """Measure, print the table, write ``out_dir``/sandbox.{md,json}. Raises DayjobError where there is no sandbox."""
    missing = sandbox.available()
    if missing is not None:
        raise DayjobError(f"there is nothing to measure: {missing}")
    if quick:
        tasks, rounds = min(tasks, 16), 1
    before = os.getloadavg()[0]
    rows = asyncio.run(measure(tasks, rounds=rounds))
    command = f"dayjob lab sandbox --tasks {tasks} --rounds {rounds}" + (" --quick" if quick else "")
    result = {
        "command": command, "machine": figures.machine(), "seeds": [SEED], "quick": quick, "load_before": before,
        "protection": sandbox.protection(), "rows": [row.to_json() for row in rows],
    }  # fmt: skip
    lines = [row.to_line() for row in rows]
    table = Table(*lines[0], title=command)
    for line in lines:
        table.add_row(*line.values())
    Console(width=140).print(table)
    told = f"In force: {sandbox.protection()}. Load of the machine before: {before:.2f}."
    figures.write(out_dir, "sandbox", result=result, page=[told, figures.markdown(lines)], code=CODE)


async def measure(tasks: int, *, rounds: int) -> list[Row]:
    """Every measure in every round, in turn."""
    seconds: dict[str, list[float]] = {}
    spent: dict[str, list[float]] = {}
    settings = Code(tests=8)
    answers = [(seed, settings.reference(seed)[0]) for seed in range(SEED, SEED + tasks)]

    async def task(place: int) -> None:
        seed, action = answers[place]
        step = await settings.reset(seed).step(action)
        assert step.reward is not None
        assert step.reward.value == 1, f"the reference of seed {seed} did not pass"

    async def empty(_: int) -> None:
        await sandbox.run_program({}, ["-c", "pass"], limits=EMPTY)

    async def bare(_: int) -> None:
        subprocess.run([sys.executable, "-S", "-s", "-B", "-c", "pass"], check=True, env={})

    for _ in range(rounds):
        few = max(8, tasks // 4)
        for name, work, count, at_once in (
            ("a Python process, no box", bare, few, 1),
            ("a Python process in a box", empty, few, 1),
            *((f"code tasks, {at_once} at once", task, tasks, at_once) for at_once in AT_ONCE),
        ):
            took, used = await _timed(work, count, at_once=at_once)
            seconds.setdefault(name, []).append(count / took)
            spent.setdefault(name, []).append(1000 * used / count)
    rows = [Row(measure=name, values=tuple(values), unit="a second") for name, values in seconds.items()]
    return rows + [
        Row(measure=f"{name}: CPU of each", values=tuple(values), unit="ms") for name, values in spent.items()
    ]


async def _timed(work: Callable[[int], Awaitable[None]], count: int, *, at_once: int) -> tuple[float, float]:
    """Seconds on the clock, and of the processors: ours and that of every process that ended meanwhile."""
    used, began = _cpu_s(), time.perf_counter()
    places = asyncio.Semaphore(at_once)

    async def one(place: int) -> None:
        async with places:
            await work(place)

    await asyncio.gather(*map(one, range(count)))
    return time.perf_counter() - began, _cpu_s() - used


def _cpu_s() -> float:
    return sum(os.times()[:4])
