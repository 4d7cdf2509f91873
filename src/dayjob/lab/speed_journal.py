"""The journal's marks: the size of Geospot's decisions, and a long journal that reads as a short one does.

Reading is measured in a process of its own (``python -m dayjob.lab.speed_journal DATA``): batches of decisions with
their outcomes from all over the journal, as the learner and the judge read them, and the memory that it took.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from dayjob.client import Candidate, Client
from dayjob.journal.readers import PAGE, Reader, cursor_of
from dayjob.lab import speed_world as world
from dayjob.lab.server import running
from dayjob.lab.speed_rows import Row, row

SHORT = 10_000
PLACES, PAGES, TIMES = 5, 4, 3  # where in the journal is read, how many batches in a row there, how often over


def geospot(root: Path, *, decisions: int, seed: int) -> list[Row]:
    """How large so many Geospot decisions with their clicks are."""
    rng, data = np.random.default_rng(seed), root / "journal"
    world.declare(data, rng)
    before, place_GD = _size(data), world.places(rng)
    store = world.open_store(data)
    began = time.perf_counter()
    try:
        first = world.first_decision(data, world.POLICY)
        world.geospot_decisions(store, first, count=decisions, place_GD=place_GD, rng=rng)
    finally:
        store.close()
    took_s, megabytes = time.perf_counter() - began, (_size(data) - before) / 1e6
    # The mark is for twenty thousand, which use each of the 100,000 places twice.
    mark = "<= 160" if decisions == 20_000 else ""
    return [
        row(f"journal of {decisions:,} Geospot decisions and clicks", megabytes, unit="MB", mark=mark),
        row("appending them, without HTTP", decisions / took_s, unit="/s"),
    ]


def long(root: Path, *, decisions: int, seed: int) -> list[Row]:
    """A journal of ``SHORT`` decisions and the same grown to ``decisions``: reading a batch, memory, starting."""
    rng, data = np.random.default_rng(seed), root / "long"
    world.declare(data, rng)
    first = world.first_decision(data, world.SMALL)
    found, grown, took_s = [], 0, 0.0
    for size in (min(SHORT, decisions), decisions):
        store = world.open_store(data)
        began = time.perf_counter()
        try:
            world.grow(store, first, count=size - grown)
        finally:
            store.close()
        took_s, grown = time.perf_counter() - began, size
        found.append(_read(data) | _serve(data))
    few, many = found
    sizes = f"{decisions:,} / {min(SHORT, decisions):,} decisions"
    return [
        row(f"journal of {decisions:,} small decisions and clicks", _size(data) / 1e6, unit="MB"),
        row("appending them in bulk", (decisions - min(SHORT, decisions)) / took_s, unit="/s"),
        row(f"reading a batch of {PAGE}, CPU: {sizes}", many["batch_s"] / few["batch_s"], mark="<= 1.25",
            note=f"{1e3 * few['batch_s']:.1f} and {1e3 * many['batch_s']:.1f} ms"),
        row(f"memory of who reads: {sizes}", many["read_mb"] / few["read_mb"], mark="<= 1.25",
            note=f"{few['read_mb']:.0f} and {many['read_mb']:.0f} MB"),
        row(f"memory of the server: {sizes}", many["serve_mb"] / few["serve_mb"], mark="<= 1.25",
            note=f"{few['serve_mb']:.0f} and {many['serve_mb']:.0f} MB"),
        row(f"start to first answer with {decisions:,} decisions", many["start_s"], unit="s", mark="<= 3"),
    ]  # fmt: skip


def _read(data: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "dayjob.lab.speed_journal", str(data)]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(told.stdout)
    return found


def _serve(data: Path) -> dict[str, float]:
    began = time.perf_counter()
    with running(data) as server, Client(server.url) as client:
        client.rank(world.SMALL, [1, 0, 0, 0], candidates=[Candidate(id="a", features=[0, 1, 0, 0])])
        found = {"start_s": time.perf_counter() - began, "serve_mb": server.memory_bytes() / 1e6}
        server.stop()
    return found


def read_batches(data: Path) -> dict[str, float]:
    """Median CPU seconds of reading a batch, and the resident memory (MB) of this process afterwards."""
    reader, took = Reader(data), list[float]()
    last = reader.last_seq()
    for place in [*range(PLACES)] * TIMES:
        cursor = cursor_of(last * place // PLACES)
        for _ in range(PAGES):
            began = time.thread_time()
            page, cursor = reader.decisions("default", world.SMALL, cursor=cursor)
            if not page:
                break
            reader.outcomes("default", page)
            took.append((time.thread_time() - began) * PAGE / len(page))
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {"batch_s": statistics.median(took), "read_mb": pages * os.sysconf("SC_PAGE_SIZE") / 1e6}


def _size(data: Path) -> int:
    return sum(path.stat().st_size for path in data.glob("journal.db*"))


if __name__ == "__main__":
    print(json.dumps(read_batches(Path(sys.argv[1]))))
