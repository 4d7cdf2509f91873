"""``dayjob lab environments``: attempts per second of the built-in environments, and their growth with processes.

The reference solution plays, so that nothing is measured but environments and what carries them: first in this process,
then whole episodes in worker processes, then with the actor here and the environments there, turn by turn. What is
compared is measured in turn, round after round, and a ratio taken within its round.

Then one long episode in a growing number of turns: what a turn costs when much lies behind it.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dayjob.endings import Invalid
from dayjob.fakes_practice import FakeEnvironment
from dayjob.lab import figures
from dayjob.practice.actor import ReferenceActor
from dayjob.practice.processes import Workers
from dayjob.practice.protocol import Environment
from dayjob.practice.registry import make
from dayjob.practice.rollout import Acted, roll
from dayjob.records import Json, Trajectory

CODE = ("practice/**", "lab")  # folders whose code decides about the figures
SEED = 0
PARALLEL = 64
TURNS = (10, 100, 1_000, 10_000)


@dataclass(frozen=True, slots=True)
class Case:
    """An environment to measure, and how many tasks a round plays."""

    name: str
    spec: Json
    tasks: int


CASES = (
    Case("arithmetic", {"env": "arithmetic"}, 8_000),
    Case("arithmetic, a story in 2 parts", {"env": "arithmetic", "story": True, "terms": 4, "parts": 2}, 6_000),
    Case("strings", {"env": "strings"}, 8_000),
    Case("strings, 4 operations in a row", {"env": "strings", "words": 4, "steps": 4}, 4_000),
    Case("look-up in 100 documents", {"env": "lookup"}, 1_000),
    Case("look-up of 3 in 1,000 documents", {"env": "lookup", "documents": 1_000, "hops": 3}, 100),
    Case("office", {"env": "office"}, 1_000),
    Case("code, in the sandbox", {"env": "code"}, 60),
)


def run(out_dir: Path, *, rounds: int = 5, quick: bool = False) -> None:
    """Measure, print the table, write ``out_dir``/environments.{md,json,png}. ``quick`` only shows that it runs."""
    before = os.getloadavg()[0]
    rounds = min(rounds, 2) if quick else rounds
    counts = process_counts()
    cases, left_out = runnable(CASES)
    if quick:
        cases = [Case(one.name, one.spec, max(4, one.tasks // 50)) for one in cases]
    rows = asyncio.run(measure(cases, counts=counts, rounds=rounds))
    turns = [asyncio.run(long_episode(count)) for count in (TURNS[:3] if quick else TURNS)]
    result = {
        "command": f"dayjob lab environments --rounds {rounds}" + (" --quick" if quick else ""),
        "machine": figures.machine(), "seeds": [SEED], "quick": quick, "load_before": before,
        "processes": list(counts), "left_out": left_out, "rows": rows, "turns": turns,
    }  # fmt: skip
    _print(result)
    figures.write(
        out_dir, "environments", result=result, page=_page(result), code=CODE,
        plot=lambda path: _plot(result, path),
    )  # fmt: skip


def process_counts() -> tuple[int, ...]:
    """1, 2, 4 ... and the number of cores that may be used."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return tuple(sorted({1, cores, *(2**power for power in range(1, 5) if 2**power < cores)}))


def runnable(cases: Sequence[Case]) -> tuple[list[Case], dict[str, str]]:
    """The cases whose reference solves a task on this machine, and why the others do not."""
    found, left_out = [], {}
    for case in cases:
        try:
            environment = make(case.spec)
            (one,) = asyncio.run(_all(environment, [SEED]))
        except Invalid as error:
            left_out[case.name] = str(error)
            continue
        if one.reward == 1:
            found.append(case)
        else:
            left_out[case.name] = f"{one.ending.value} {one.error}".strip()
    return found, left_out


async def measure(cases: Sequence[Case], *, counts: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """A row a case: attempts per second here, in each number of processes, and turn by turn with the last number."""
    pools = [Workers(count) for count in counts]
    rows = []
    try:
        for pool in pools:
            await pool.__aenter__()
        for case in cases:
            environment = make(case.spec)
            seeds = range(case.tasks)
            actor = await ReferenceActor.of(environment, seeds)
            here: list[float] = []
            cpu_us: list[float] = []
            turn_by_turn: list[float] = []
            there: dict[int, list[float]] = {count: [] for count in counts}
            for _ in range(rounds):
                cpu = time.process_time()
                here.append(await _rate(roll(environment, seeds, actor=actor, parallel=PARALLEL), case.tasks))
                cpu_us.append((time.process_time() - cpu) / case.tasks * 1e6)
                for count, pool in zip(counts, pools, strict=True):
                    chunk = max(1, min(32, case.tasks // (4 * count)))
                    there[count].append(await _rate(pool.play(case.spec, seeds, chunk=chunk), case.tasks))
                hosted = roll(environment, seeds, actor=actor, parallel=PARALLEL, host=pools[-1])
                turn_by_turn.append(await _rate(hosted, case.tasks))
            growth = [many / one for many, one in zip(there[counts[-1]], there[counts[0]], strict=True)]
            rows.append(
                {"environment": case.name, "spec": environment.spec, "tasks": case.tasks, "here": here,
                 "cpu_us": cpu_us, "there": {str(count): rates for count, rates in there.items()},
                 "turn_by_turn": turn_by_turn, "growth": growth}
            )  # fmt: skip
    finally:
        for pool in pools:
            await pool.close()
    return rows


async def long_episode(turns: int) -> dict[str, Any]:
    """One episode of so many turns: seconds and bytes that remain, a turn."""
    environment = FakeEnvironment(turns=turns)
    start = time.process_time()
    (one,) = [one async for one in roll(environment, [SEED], actor=_Counting())]
    seconds = time.process_time() - start
    assert one.reward == 1
    tracemalloc.start()
    try:
        kept = [one async for one in roll(environment, [SEED], actor=_Counting())]
        size = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    return {"turns": turns, "us_a_turn": seconds / turns * 1e6, "bytes_a_turn": size / turns, "kept": len(kept)}


class _Counting:
    """Answers a `FakeEnvironment` from its last message alone, whatever lies before it."""

    async def act(self, messages: Sequence[Json], *, tools: Sequence[Json], max_tokens: int, seed: int) -> Acted:
        del tools, max_tokens, seed
        return Acted(text=str(int(messages[-1]["content"].split()[1]) + 1))


async def _all(environment: Environment, seeds: Sequence[int]) -> list[Trajectory]:
    actor = await ReferenceActor.of(environment, seeds)
    return [one async for one in roll(environment, seeds, actor=actor, step_timeout_s=60.0)]


async def _rate(rolled: AsyncIterator[Trajectory], expected: int) -> float:
    """Attempts per second; every one has to be solved, or something else was measured."""
    start, solved = time.perf_counter(), 0
    async for one in rolled:
        solved += one.reward == 1
    assert solved == expected, f"{solved} of {expected} attempts were solved"
    return expected / (time.perf_counter() - start)


def _lines(result: dict[str, Any]) -> list[dict[str, str]]:
    lines = []
    last = str(result["processes"][-1])
    for row in result["rows"]:
        line = {"environment": row["environment"], "in this process": _spread(row["here"])}
        line["CPU µs an attempt"] = f"{statistics.median(row['cpu_us']):,.0f}"
        line |= {
            f"in {count} worker{'s' if count != '1' else ''}": _spread(rates) for count, rates in row["there"].items()
        }
        line[f"growth, 1 to {last}"] = _spread(row["growth"], digits=2)
        line[f"turn by turn, {last}"] = _spread(row["turn_by_turn"])
        lines.append(line)
    return lines


def _spread(values: Sequence[float], *, digits: int = 0) -> str:
    """The median, with the lowest and the highest round."""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def _page(result: dict[str, Any]) -> list[str]:
    turns = [
        {
            "turns": one["turns"],
            "CPU µs a turn": f"{one['us_a_turn']:.0f}",
            "bytes kept a turn": f"{one['bytes_a_turn']:.0f}",
        }
        for one in result["turns"]
    ]
    parts = [
        f"Load of the machine before: {result['load_before']:.2f}.",
        "Attempts per second, the reference solution playing: the median of the rounds, with the lowest and the "
        f'highest. "In this process": {PARALLEL} episodes open in one event loop, with the CPU time an attempt takes '
        'there. "In workers": whole episodes in worker processes, trajectories sent back. "Turn by turn": the actor '
        "here and the environments in workers, as when a model acts.",
        figures.markdown(_lines(result)),
        "One long episode of counting: what a turn costs the rollout when much lies behind it, and what is kept of it.",
        figures.markdown(turns),
    ]
    if result["left_out"]:
        parts.insert(2, "Not run: " + "; ".join(f"{name} ({why})" for name, why in result["left_out"].items()) + ".")
    return parts


def _print(result: dict[str, Any]) -> None:
    table = Table(title=f"{result['command']}   ({result['machine']}, load {result['load_before']:.1f})")
    lines = _lines(result)
    for name in lines[0]:
        table.add_column(name, justify="left" if name == "environment" else "right")
    for line in lines:
        table.add_row(*line.values())
    Console(width=200).print(table)


def _plot(result: dict[str, Any], path: Path) -> None:
    """Attempts per second by number of worker processes, a line an environment."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    for row in result["rows"]:
        rates = [statistics.median(row["there"][str(count)]) for count in result["processes"]]
        axes.plot(result["processes"], rates, marker="o", label=row["environment"])
    axes.set_yscale("log")
    axes.set_xticks(result["processes"])
    axes.set_xlabel("worker processes")
    axes.set_ylabel("attempts per second")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
