"""What every benchmark writes: a page with tables, the numbers as JSON, a plot; where they came from stands in each.

Intervals over seeds are Student's: with few seeds the normal quantile would make them too narrow.
"""

import hashlib
import importlib.util
import json
import math
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Row = Mapping[str, Any]
PACKAGE = Path(__file__).parent.parent


def interval(values: Sequence[float]) -> dict[str, float]:
    """Mean, half-width of its 95 % interval (Student's t; nan for one value) and number of values.

    >>> interval([1.0, 3.0])["mean"]
    2.0
    """
    from scipy import stats

    count = len(values)
    half = stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / math.sqrt(count) if count > 1 else math.nan
    return {"mean": float(np.mean(values)), "half": float(half), "seeds": count}


def surely(found: Mapping[str, float]) -> int:
    """+1 or -1 where an interval excludes zero, else 0; of one value nothing is sure.

    >>> surely({"mean": -0.3, "half": 0.2, "seeds": 3}), surely(interval([1.0]))
    (-1, 0)
    """
    return 0 if not abs(found["mean"]) > found["half"] else 1 if found["mean"] > 0 else -1


def percent(found: Mapping[str, float], *, of: int, signed: bool = True) -> str:
    """An interval of shares as text; fewer than ``of`` seeds are marked with their number.

    >>> percent({"mean": -0.1234, "half": 0.02, "seeds": 3}, of=5)
    '-12.3 ±2.0 (3)'
    """
    text = f"{100 * found['mean']:{'+' if signed else ''}.1f}"
    if not math.isnan(found["half"]):
        text += f" ±{100 * found['half']:.1f}"
    return text if found["seeds"] >= of else f"{text} ({found['seeds']:.0f})"


def machine() -> str:
    """The processor, how many of its cores may be used, and the versions that decide about numbers."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        named = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = named[0] if named else name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} core{'s' * (cores != 1)}, Python {platform.python_version()}, numpy {np.__version__}"


def code_mark(*folders: str) -> str:
    """A short digest of the sources in these folders: results of different code can be told apart.

    A folder is one of the package, "." itself, or that of an application ("apps/clerk"); "learn/**" is one with all
    below it. Raises ValueError where a folder holds no source.
    """
    state = hashlib.blake2b(digest_size=5)
    for folder in folders:
        found = sorted(_sources(folder))
        if not found:
            raise ValueError(f"there is no source in {folder!r}: name folders of the package, or apps/NAME")
        for path in found:
            state.update(path.read_bytes())
    return state.hexdigest()


def _sources(folder: str) -> list[Path]:
    name, below, _ = folder.partition("/**")
    place = PACKAGE / name
    if name.startswith("apps/"):
        spec = importlib.util.find_spec(name.removeprefix("apps/"))
        if spec is None or spec.origin is None:
            return []
        place = Path(spec.origin).parent
    return list(place.rglob("*.py") if below else place.glob("*.py"))


def weights_mark(model: Path) -> str:
    """SHA-256 of the weights of a model's folder; of several files that of their digests, by their names."""
    digests = []
    for path in sorted(model.glob("*.safetensors")):
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()


def markdown(rows: Sequence[Row]) -> str:
    """A table, a column a key in the order in which the keys appear; what a row lacks is left empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(_cell(row.get(name, "")) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def write(
    out_dir: Path, name: str, *, result: Row, page: Sequence[str], code: Sequence[str],
    plot: Callable[[Path], None] | None = None,
) -> None:  # fmt: skip
    """``name``.json, ``name``.md and, with ``plot``, ``name``.png under ``out_dir``.

    ``result`` holds "command", "machine" and "seeds", which open the page; ``page`` are its paragraphs and tables.
    ``code``: the folders, as in :func:`code_mark`, that decide about the figures; the mark of their sources as they are
    now is the JSON's "code". (Pieces that were kept before have marks of their own.)
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    marked = {**result, "code": code_mark(*code)}
    (out_dir / f"{name}.json").write_text(json.dumps(marked, indent=1) + "\n", encoding="utf-8")
    seeds = ", ".join(str(seed) for seed in result["seeds"])
    parts = [
        f"# `dayjob lab {name}`",
        f"Written by `{result['command']}` on {result['machine']}; seeds {seeds}. Numbers: [{name}.json]({name}.json).",
    ]
    if result.get("quick"):
        parts.append("**Quick: small sizes, to see that it runs. Not to be quoted.**")
    if plot is not None:
        plot(out_dir / f"{name}.png")
        parts.append(f"![{name}]({name}.png)")
    (out_dir / f"{name}.md").write_text("\n\n".join([*parts, *page]) + "\n", encoding="utf-8")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4f}".rstrip("0").rstrip(".") or "0"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def keep(path: Path, piece: Row) -> None:
    """A piece of a long run as JSON: whole or not at all, so that a kill leaves no half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(piece, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
