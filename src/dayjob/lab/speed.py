"""``dayjob lab speed``: the speed marks on a real server process, client included, side by side in one run.

"Empty" is the same request through the same authentication, parsing and answer, with a journal that stores nothing.
CPU is user and system time of the server process by request: it depends less on what else the machine does.
"""

import json
import os
import platform
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from dayjob.client import Candidate, Client
from dayjob.lab import speed_learner
from dayjob.lab import speed_world as world
from dayjob.lab.server import Server, running
from dayjob.lab.speed_load import Load, client_name, load
from dayjob.lab.speed_server import EMPTY

PROGRAM = ("dayjob.lab.speed_server",)
SEED = 0
MOST_FEEDBACK = 6_000  # decisions made ready for each second of feedback
BODIES = 300
SWAPS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A measure, its mark, and whether it was reached; ``mark`` "" where there is none."""

    measure: str
    value: float
    unit: str
    mark: str = ""
    reached: bool | None = None
    note: str = ""


def run(seconds: float, out_dir: Path, quick: bool = False) -> dict[str, Any]:
    """Measure, print the table, write ``out_dir``/speed.json and speed.png. ``quick`` only shows that it runs."""
    began_load = os.getloadavg()[0]
    seconds = min(seconds, 1.0) if quick else seconds
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="dayjob-speed-") as folder:
        root = Path(folder)
        rows += _http_rows(root, seconds)
        rows += _journal_rows(root, 500 if quick else 20_000)
        rows += _learner_rows(root, 600 if quick else 20_000, compared=20 if quick else 500)
    result = {
        "command": f"dayjob lab speed --seconds {seconds:g}" + (" --quick" if quick else ""),
        "seed": SEED, "quick": quick, "client": client_name(), "machine": _machine(), "load_before": began_load,
        "rows": [asdict(row) for row in rows],
    }  # fmt: skip
    _print(result, rows)
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / "speed.json").write_text(json.dumps(result, indent=1, allow_nan=True) + "\n")
    _plot(rows, out_dir / "speed.png")
    return result


def _machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def _http_rows(root: Path, seconds: float) -> list[Row]:
    rng, data = np.random.default_rng(SEED), root / "data"
    world.declare(data, rng)
    version = world.publish_version(data, rng=rng)
    store = world.open_store(data)
    try:
        ids = world.copy_decisions(
            store, world.first_decision(data, world.SMALL), count=int(MOST_FEEDBACK * seconds) + 100
        )
    finally:
        store.close()
    feedback = world.feedback_bodies(root / "feedback.txt", ids)
    inline = world.rank_bodies(root / "inline.txt", BODIES, inline=True, rng=rng)
    catalog = world.rank_bodies(root / "catalog.txt", BODIES, inline=False, rng=rng)
    rows = []
    began = time.perf_counter()
    with running(data, program=PROGRAM, arguments=()) as server, Client(server.url) as client:
        client.rank(world.SMALL, [1, 0, 0, 0], candidates=[Candidate(id="a", features=[0, 1, 0, 0])])
        start_s = time.perf_counter() - began
        rows.append(_row("start to first answer", start_s, "s", "<= 3", start_s <= 3))
        empty, cpu = _load(server, f"{EMPTY}/v1/feedback", feedback, connections=64, seconds=seconds)
        rows += _rates("empty feedback, 64 connections", empty, cpu)
        before = client.policy(world.SMALL).counts.outcomes.get("click", 0)
        told, cpu = _load(server, "/v1/feedback", feedback, connections=64, seconds=seconds)
        rows += _rates("durable feedback, 64 connections", told, cpu, least=2_500, p99_ms=60)
        recorded = client.policy(world.SMALL).counts.outcomes["click"] - before
        share = told.rate / empty.rate
        rows.append(_row("durable feedback / empty", share, "", ">= 0.35", share >= 0.35))
        # Those in flight when the load ends are recorded and not counted.
        lost = told.requests - told.errors - recorded
        rows.append(_row("answered feedback that is not in the journal", max(0, lost), "", "0", lost <= 0))
        rows += _rates(
            "rank, 10 inline of 512", *_load(server, "/v1/rank", inline, connections=8, seconds=seconds), least=500
        )
        told, cpu = _load(server, "/v1/rank", catalog, connections=8, seconds=seconds)
        rows += _rates("rank, 10 catalog ids, 8 connections", told, cpu, least=1_000, p99_ms=25)
        rows += _swap_rows(server, client, version, catalog, seconds=seconds)
        server.stop()
    return rows


def _load(server: Server, path: str, bodies: Path, *, connections: int, seconds: float) -> tuple[Load, float]:
    """What a load came to, and the server's CPU by request in microseconds."""
    began = server.cpu_s()
    told = load(server.url + path, bodies, connections=connections, seconds=seconds)
    return told, 1e6 * (server.cpu_s() - began) / max(1, told.requests)


def _row(measure: str, value: float, unit: str, mark: str, reached: bool) -> Row:
    return Row(measure=measure, value=float(value), unit=unit, mark=mark, reached=bool(reached))


def _rates(
    name: str, told: Load, cpu_us: float, *, least: float | None = None, p99_ms: float | None = None
) -> list[Row]:
    note = f"{told.errors} errors" if told.errors else ""
    rate = told.rate if not told.errors else float("nan")
    rows = [Row(measure=name, value=rate, unit="/s", note=note)]
    if least is not None:
        rows = [Row(measure=name, value=rate, unit="/s", mark=f">= {least:g}", reached=rate >= least, note=note)]
    reached = None if p99_ms is None else told.p99_ms <= p99_ms
    mark = "" if p99_ms is None else f"<= {p99_ms:g}"
    rows.append(Row(measure=f"{name}: p99", value=told.p99_ms, unit="ms", mark=mark, reached=reached))
    rows.append(Row(measure=f"{name}: CPU", value=cpu_us, unit="us/request"))
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
    told = seen[0]
    return [
        _row(f"{SWAPS} swaps under load: failed requests", told.errors, "", "0", told.errors == 0),
        _row("swaps under load: p99", told.p99_ms, "ms", "< 1000", told.p99_ms < 1_000),
        _row("swap to first answer, slowest", max(waits), "s", "< 1", max(waits) < 1),
    ]


def _journal_rows(root: Path, decisions: int) -> list[Row]:
    rng, data = np.random.default_rng(SEED), root / "journal"
    world.declare(data, rng)
    before = _size(data)
    store = world.open_store(data)
    began = time.perf_counter()
    try:
        world.geospot_decisions(store, world.first_decision(data, world.POLICY), count=decisions, rng=rng)
    finally:
        store.close()
    took_s, grown = time.perf_counter() - began, _size(data) - before
    megabytes = grown / 1e6
    whole = decisions == 20_000
    return [
        Row(measure=f"journal of {decisions:,} decisions", value=megabytes, unit="MB", mark="<= 160" if whole else "",
            reached=megabytes <= 160 if whole else None),
        Row(measure="appending them, without HTTP", value=decisions / took_s, unit="/s"),
    ]  # fmt: skip


def _size(data: Path) -> int:
    return sum(path.stat().st_size for path in data.glob("journal.db*"))


def _learner_rows(root: Path, interactions: int, *, compared: int) -> list[Row]:
    told = speed_learner.measure(root / "learner", interactions, compared=compared, seed=SEED)
    naive, vw = told.from_journal["naive"], told.vowpal
    ratio = naive / vw
    return [
        _row("learner 1026-256-256-1, journal to weights, one pass", naive, "/s", ">= 5000", naive >= 5_000),
        Row(measure="learner, recipe debiased", value=told.from_journal["debiased"], unit="/s"),
        Row(measure="reading them from the journal", value=told.interactions / told.collect_s, unit="/s"),
        Row(measure=f"Vowpal Wabbit --cb_explore_adf --nn {speed_learner.NN}", value=vw, unit="/s"),
        Row(measure="Vowpal Wabbit, reading its text left out", value=told.vowpal_learning, unit="/s"),
        _row("learner / Vowpal Wabbit", ratio, "", ">= 3", ratio >= 3),
    ]


def _print(result: dict[str, Any], rows: Sequence[Row]) -> None:
    where = f"{result['machine']}, load {result['load_before']:.1f}, client {result['client']}"
    table = Table(title=f"{result['command']}   ({where})")
    for name in ("measure", "value", "mark", ""):
        table.add_column(name, justify="right" if name == "value" else "left")
    for row in rows:
        said = "" if row.reached is None else ("reached" if row.reached else "NOT reached")
        value = f"{row.value:,.0f}" if row.value >= 1_000 else f"{row.value:.3g}"
        table.add_row(row.measure, f"{value} {row.unit}", row.mark, " ".join((said, row.note)).strip())
    Console(width=130).print(table)


def _plot(rows: Sequence[Row], path: Path) -> None:
    """Each mark as a share of itself: beyond 1 it is reached."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    marked = [row for row in rows if row.mark[:2] in (">=", "<=") and np.isfinite(row.value) and row.value > 0]
    share = [
        row.value / float(row.mark[2:]) if row.mark[0] == ">" else float(row.mark[2:]) / row.value for row in marked
    ]
    figure, axes = pyplot.subplots(figsize=(9, 0.45 * len(marked) + 1.2))
    axes.barh([row.measure for row in marked], share, color=["#2a7" if one >= 1 else "#c33" for one in share])
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_xlabel("times the mark (beyond 1: reached)")
    axes.invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
