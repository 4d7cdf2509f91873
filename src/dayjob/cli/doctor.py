"""dayjob doctor: what is installed, what is missing, and how to get it."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table

from dayjob.config import load_config
from dayjob.endings import DayjobError
from dayjob.journal.control import Control
from dayjob.journal.readers import Reader

SYNCS = 20
ENOUGH_DISK = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at: is it well, what was seen, what to do where it is not."""

    what: str
    well: bool
    seen: str
    remedy: str = ""


# (import name, distribution, what it is for, how to get it)
OPTIONAL = (
    ("torch", "torch", "learning", "pip install 'dayjob[learn]'"),
    ("matplotlib", "matplotlib", "plots of the lab", "pip install 'dayjob[lab]'"),
    ("sklearn", "scikit-learn", "lab ope on digits", "pip install 'dayjob[lab]'"),
    ("geoclip", "geoclip", "Geospot", "pip install --no-deps geoclip"),
    ("transformers", "transformers", "Geospot's photo encoder", "pip install 'dayjob[geospot]'"),
    ("vowpalwabbit", "vowpalwabbit", "the side-by-side of lab speed", "pip install vowpalwabbit"),
)


def doctor(
    data: Annotated[Path | None, typer.Option(help="The data directory.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what is installed, what is missing and how to get it. Exit code 1 when something needed is not well."""
    settings = load_config(flags={"data": data}, environ=os.environ, directory=Path.cwd()).config
    findings = [_python(), *_packages(), _disk(settings.data), _sync(settings.data), *_directory(settings.data)]
    if as_json:
        body = [asdict(finding) for finding in findings]
        sys.stdout.buffer.write(orjson.dumps(body, option=orjson.OPT_INDENT_2) + b"\n")
    else:
        table = Table("", "what", "seen", "what to do")
        for finding in findings:
            table.add_row("[green]ok[/]" if finding.well else "[red]no[/]", finding.what, finding.seen, finding.remedy)
        Console().print(table)
    if not all(finding.well or finding.what.startswith("optional") for finding in findings):
        raise typer.Exit(1)


def _python() -> Finding:
    version = sys.version_info
    return Finding(
        what="Python",
        well=(3, 11) <= version[:2] <= (3, 13),
        seen=f"{platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores",
        remedy="" if (3, 11) <= version[:2] <= (3, 13) else "use Python 3.11 to 3.13",
    )


def _packages() -> list[Finding]:
    out = []
    for module, name, purpose, remedy in OPTIONAL:
        present = importlib.util.find_spec(module) is not None
        seen = importlib.metadata.version(name) if present else "not installed"
        out.append(
            Finding(what=f"optional: {name} ({purpose})", well=present, seen=seen, remedy="" if present else remedy)
        )
    return out


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _disk(data: Path) -> Finding:
    free = shutil.disk_usage(_existing(data)).free
    enough = free >= ENOUGH_DISK
    remedy = "" if enough else f"free some space: below {ENOUGH_DISK >> 30} GiB writes may soon be refused"
    return Finding(what="disk", well=enough, seen=f"{free / (1 << 30):.1f} GiB free for {data}", remedy=remedy)


def _sync(data: Path) -> Finding:
    """How long one synced write takes: it bounds how fast a single client is acknowledged."""
    with tempfile.NamedTemporaryFile(dir=_existing(data), prefix=".dayjob-doctor-") as file:
        began = time.perf_counter()
        for _ in range(SYNCS):
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
        took_ms = (time.perf_counter() - began) / SYNCS * 1000
    return Finding(what="synced write", well=True, seen=f"{took_ms:.1f} ms")


def _directory(data: Path) -> list[Finding]:
    if not (data / "control.db").exists():
        return [Finding(what="data directory", well=True, seen=f"{data} holds nothing yet")]
    try:
        control, reader = Control(data), Reader(data)
        policies = control.policies()
        decisions = sum(reader.counts(p.tenant, p.name).get("decisions", 0) for p in policies)
    except DayjobError as error:
        return [Finding(what="data directory", well=False, seen=str(error), remedy="restore it from a backup")]
    return [Finding(what="data directory", well=True, seen=f"{len(policies)} policies, {decisions:,} decisions")]
