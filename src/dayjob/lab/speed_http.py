"""The server's marks: a real server process, client included, the loads taken in turn, round after round.

CPU is user and system time of the server process by request: it depends less on what else the machine does.
"""

import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dayjob.client import Candidate, Client
from dayjob.lab import speed_world as world
from dayjob.lab.server import Server, running
from dayjob.lab.speed_load import Load, load
from dayjob.lab.speed_rows import Row, row
from dayjob.lab.speed_server import EMPTY

PROGRAM = ("dayjob.lab.speed_server",)
MOST_FEEDBACK = 6_000  # decisions made ready for each second of feedback
BODIES = 300
SWAPS = 20
STARTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A load: where it goes, the bodies of each round, over how many connections, and its marks."""

    path: str
    bodies: tuple[Path, ...]
    connections: int
    rate: str = ""
    p99: str = ""


def measure(root: Path, *, seconds: float, rounds: int, seed: int) -> list[Row]:
    """The rows, from ``rounds`` rounds of loads of so many seconds."""
    rng, data = np.random.default_rng(seed), root / "data"
    world.declare(data, rng)
    version = world.publish_version(data, rng=rng)
    each = int(MOST_FEEDBACK * seconds) + 100
    store = world.open_store(data)
    try:
        ids = world.copy_decisions(store, world.first_decision(data, world.SMALL), count=rounds * each)
    finally:
        store.close()
    clicks = tuple(
        world.feedback_bodies(root / f"feedback{n}.txt", ids[n * each : (n + 1) * each]) for n in range(rounds)
    )
    inline = world.rank_bodies(root / "inline.txt", BODIES, inline=True, rng=rng)
    catalog = world.rank_bodies(root / "catalog.txt", BODIES, inline=False, rng=rng)
    targets = {
        "empty feedback, 64 connections": Target(path=f"{EMPTY}/v1/feedback", bodies=clicks, connections=64),
        "durable feedback, 64 connections": Target(
            path="/v1/feedback", bodies=clicks, connections=64, rate=">= 2,500", p99="<= 60"
        ),
        "rank, 10 inline of 512, 8 connections": Target(
            path="/v1/rank", bodies=(inline,) * rounds, connections=8, rate=">= 500"
        ),
        "rank, 10 catalog ids, 8 connections": Target(
            path="/v1/rank", bodies=(catalog,) * rounds, connections=8, rate=">= 1,000", p99="<= 25"
        ),
    }
    starts = [_start_s(data) for _ in range(STARTS)]
    with running(data, program=PROGRAM, arguments=()) as server, Client(server.url) as client:
        before = client.policy(world.SMALL).counts.outcomes.get("click", 0)
        told = _rounds(server, targets, seconds=seconds, rounds=rounds)
        recorded = client.policy(world.SMALL).counts.outcomes["click"] - before
        rows = _rows(targets, told, recorded) + _swap_rows(server, client, version, catalog, seconds=seconds)
        server.stop()
    return [row("start to first answer", starts, unit="s", mark="<= 3"), *rows]


def _start_s(data: Path) -> float:
    began = time.perf_counter()
    with running(data, program=PROGRAM, arguments=()) as server, Client(server.url) as client:
        client.rank(world.SMALL, [1, 0, 0, 0], candidates=[Candidate(id="a", features=[0, 1, 0, 0])])
        took_s = time.perf_counter() - began
        server.stop()
    return took_s


def _rounds(
    server: Server, targets: dict[str, Target], *, seconds: float, rounds: int
) -> dict[str, list[tuple[Load, float]]]:
    """What each load came to in each round, with the server's CPU by request in microseconds."""
    told: dict[str, list[tuple[Load, float]]] = defaultdict(list)
    for n in range(rounds):
        for name, target in targets.items():
            began = server.cpu_s()
            one = load(server.url + target.path, target.bodies[n], connections=target.connections, seconds=seconds)
            told[name].append((one, 1e6 * (server.cpu_s() - began) / max(1, one.requests)))
    return told


def _rows(targets: dict[str, Target], told: dict[str, list[tuple[Load, float]]], recorded: int) -> list[Row]:
    rows = []
    for name, target in targets.items():
        loads = [one for one, _ in told[name]]
        errors = sum(one.errors for one in loads)
        note = f"{errors} failed requests" if errors else ""
        # A rate of refusals is no rate.
        rows.append(row(name, () if errors else [one.rate for one in loads], unit="/s", mark=target.rate, note=note))
        rows.append(row(f"{name}: p99", [one.p99_ms for one in loads], unit="ms", mark=target.p99))
        rows.append(row(f"{name}: CPU", [cpu for _, cpu in told[name]], unit="us a request"))
    empty, durable = ([one for one, _ in told[name]] for name in list(targets)[:2])
    shares = [one.rate / other.rate for one, other in zip(durable, empty, strict=True)]
    rows.append(row("durable feedback / empty, in the same round", shares, mark=">= 0.35"))
    # Those in flight when a load ends are recorded and not counted.
    lost = sum(one.requests - one.errors for one in durable) - recorded
    rows.append(row("answered feedback that is not in the journal", max(0, lost), mark="<= 0"))
    return rows


def _swap_rows(server: Server, client: Client, version: str, bodies: Path, *, seconds: float) -> list[Row]:
    """Promotions and rollbacks by hand while the server ranks: until the next answer comes from the other version."""
    seen: list[Load] = []
    busy = threading.Thread(
        target=lambda: seen.append(load(f"{server.url}/v1/rank", bodies, connections=8, seconds=max(2.0, seconds)))
    )
    busy.start()
    baseline, waits = client.policy(world.POLICY).baseline, []
    for n in range(SWAPS):
        began = time.perf_counter()
        if n % 2:
            client.rollback(world.POLICY, to=baseline)
        else:
            client.promote(world.POLICY, version, reason="measured")
        wanted = baseline if n % 2 else version
        while client.rank(world.POLICY, np.ones(world.DIM), k=1, explore=False).version != wanted:
            pass
        waits.append(time.perf_counter() - began)
        time.sleep(max(2.0, seconds) / SWAPS / 2)
    busy.join()
    return [
        row(f"{SWAPS} swaps under load: failed requests", seen[0].errors, mark="<= 0"),
        row("swaps under load: p99", seen[0].p99_ms, unit="ms", mark="<= 1000"),
        row("swap to first answer", waits, unit="s", mark="<= 1", note=f"slowest {max(waits):.2f} s"),
    ]
