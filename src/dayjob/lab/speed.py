"""``dayjob lab speed``: the speed marks on a real server process, client included, side by side in one run.

"Empty" is the same request through the same authentication, parsing and answer, with a journal that stores nothing.
What is compared is measured in turn, round after round; a ratio is taken within its round.
"""

import importlib.metadata
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dayjob.lab import figures, speed_http, speed_journal, speed_language, speed_learner, speed_talk, speed_teach
from dayjob.lab.clerk_night import model_folder
from dayjob.lab.speed_load import client_name
from dayjob.lab.speed_rows import Row

# Folders whose code decides about the figures.
CODE = (
    ".", "journal", "serve", "policies", "signals", "memory", "gate", "learn/**", "objectives/**", "lab", "apps/clerk",
)  # fmt: skip
SEED = 0
VERSIONS = (
    "dayjob", "apsw", "orjson", "pydantic", "torch", "uvicorn", "uvloop", "vowpalwabbit", "transformers", "peft", "trl",
)  # fmt: skip


def run(seconds: float, out_dir: Path, *, rounds: int = 5, decisions: int = 1_000_000, quick: bool = False) -> None:
    """Measure, print the table, write ``out_dir``/speed.{md,json,png}. ``quick`` only shows that it runs."""
    before = os.getloadavg()
    if quick:
        seconds, rounds, decisions = min(seconds, 1.0), min(rounds, 2), min(decisions, 20_000)
    geospot, learned, compared = (500, 600, 20) if quick else (20_000, 20_000, 500)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="dayjob-speed-") as folder:
        root = Path(folder)
        rows += speed_http.measure(root, seconds=seconds, rounds=rounds, seed=SEED)
        rows += speed_journal.geospot(root, decisions=geospot, seed=SEED)
        rows += speed_learner.measure(root / "learner", learned, compared=compared, rounds=rounds, seed=SEED)
        rows += speed_journal.long(root, decisions=decisions, seed=SEED)
        rows += _language(root, rounds=rounds, quick=quick)
    result = {
        "command": f"dayjob lab speed --seconds {seconds:g} --rounds {rounds} --decisions {decisions}"
        + (" --quick" if quick else ""),
        "machine": figures.machine(), "seeds": [SEED], "quick": quick, "client": client_name(),
        "versions": _versions(), "load_before": before[0], "rows": [one.to_json() for one in rows],
    }  # fmt: skip
    _print(result, rows)
    page = _page(result, rows)
    figures.write(out_dir, "speed", result=result, page=page, code=CODE, plot=lambda path: _plot(rows, path))


def _language(root: Path, *, rounds: int, quick: bool) -> list[Row]:
    """Serving and learning of a language model, on shapes of their own, and the clerk behind a server."""
    sizes = speed_teach.QUICK_SIZES if quick else speed_teach.SIZES
    load = speed_language.Load(clients=4, answer_tokens=8) if quick else speed_language.Load()
    return [
        *speed_talk.measure(root, base=model_folder(None)),
        *speed_language.measure(root, size=sizes[0], load=load, rounds=rounds, seed=SEED),
        *speed_teach.measure(root, sizes=sizes, steps=2 if quick else 4, rounds=rounds, seed=SEED),
    ]


def _versions() -> dict[str, str]:
    found = {}
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def _page(result: dict[str, Any], rows: Sequence[Row]) -> list[str]:
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    return [
        f"Client: {result['client']}, on the same machine. Load of the machine before: {result['load_before']:.2f}. "
        f"{versions}.",
        "What is compared was measured in turn, round after round, and a ratio taken within its round. A median stands "
        "with the lowest and the highest round: of five rounds they hold the true median 94 times in 100. "
        '"Empty" is the same request through the same authentication, parsing and answer, with a journal that stores '
        "nothing. CPU is user and system time of the server process.",
        figures.markdown([one.to_line() for one in rows]),
    ]


def _print(result: dict[str, Any], rows: Sequence[Row]) -> None:
    where = f"{result['machine']}, load {result['load_before']:.1f}, client {result['client']}"
    table = Table(title=f"{result['command']}   ({where})")
    lines = [one.to_line() for one in rows]
    for name in lines[0]:
        table.add_column(name, justify="right" if name in ("median", "lowest to highest") else "left")
    for line in lines:
        table.add_row(*(cell.strip("*") for cell in line.values()))
    Console(width=160).print(table)


def _plot(rows: Sequence[Row], path: Path) -> None:
    """Each mark as a share of itself: beyond 1 it is reached."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    share = {one.measure: one.times_the_mark for one in rows}
    known = {name: min(value, 100.0) for name, value in share.items() if value is not None}
    figure, axes = pyplot.subplots(figsize=(9, 0.45 * len(known) + 1.2))
    axes.barh([*known], [*known.values()], color=["#2a7" if one >= 1 else "#c33" for one in known.values()])
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("times the mark (beyond 1: reached)")
    axes.invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
