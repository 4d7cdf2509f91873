"""dayjob doctor: what is installed, what is missing, and how to get it."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import apsw
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dayjob.cli.layers import UserOption, adapters, title
from dayjob.cli.output import DataOption, JsonOption, again, data_of, print_json
from dayjob.config import load_config
from dayjob.endings import DayjobError, VersionStatus
from dayjob.journal import health
from dayjob.journal.columns import SCHEMA_VERSION
from dayjob.journal.control import Control
from dayjob.journal.layers import is_personal, layers
from dayjob.journal.plain import iso
from dayjob.journal.readers import Reader
from dayjob.journal.versions import read_files
from dayjob.practice import sandbox
from dayjob.records import Lease, Policy

SYNCS = 20
ENOUGH_DISK = 1 << 30
READ_THROUGH = 1 << 30  # a larger database is not read to its end: that takes minutes
CLOCK_SLACK_S = 60.0
WRITTEN_MS = 1_767_225_600_000  # 2026-01-01: no clock that is right is before it
LONGEST_LEASE_S = 30.0
RESTORE = "stop the server, restore the data directory from a backup (dayjob backup makes them)"
GONE = (VersionStatus.DAMAGED, VersionStatus.TAINTED)  # never served again, whatever their files hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at: is it well, what was seen, what to do where it is not."""

    what: str
    well: bool
    seen: str
    remedy: str = ""


# (import name, distribution, what it is for, how to get it)
OPTIONAL = (
    ("torch", "torch", "learning, and language policies", "pip install 'dayjob[learn]', for both 'dayjob[language]'"),
    ("transformers", "transformers", "language policies", "pip install 'dayjob[language]'"),
    ("matplotlib", "matplotlib", "plots of the lab", "pip install 'dayjob[lab]'"),
    ("sklearn", "scikit-learn", "lab ope on digits", "pip install 'dayjob[lab]'"),
    ("pyarrow", "pyarrow", "export as Parquet", "pip install 'dayjob[parquet]'"),
    ("geoclip", "geoclip", "Geospot", "pip install --no-deps geoclip"),
    ("vowpalwabbit", "vowpalwabbit", "the side-by-side of lab speed", "pip install vowpalwabbit"),
)


def doctor(data: DataOption = None, user: UserOption = None, as_json: JsonOption = False) -> None:
    """Say what is installed, what is missing and how to get it. Exit code 1 when something needed is not well."""
    root = data_of(data)
    findings = [_python(), *_packages(), _sandbox(), *look(root, user=user)]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        table = Table("", "what", "seen", "what to do")
        for finding in findings:
            bad = "[yellow]--[/]" if finding.what.startswith("optional") else "[red]no[/]"
            cells = (escape(text) for text in (finding.what, finding.seen, finding.remedy))
            table.add_row("[green]ok[/]" if finding.well else bad, *cells)
        Console().print(table)
    if not all(finding.well or finding.what.startswith("optional") for finding in findings):
        raise typer.Exit(1)


def look(data: Path, *, user: str | None = None) -> list[Finding]:
    """The disk under a data directory, and the directory itself; with a person, how their adapters stand."""
    findings: list[Finding] = []
    if data.exists() and not data.is_dir():
        return [Finding(what="data directory", well=False, seen=f"{data} is a file", remedy="name a directory")]
    try:
        findings += [_disk(data), _sync(data)]
        findings.extend(_looks(data, user))
    except (OSError, DayjobError, apsw.Error) as error:
        remedy = "run as the user that owns it" if isinstance(error, PermissionError) else RESTORE
        findings.append(Finding(what="data directory", well=False, seen=str(error), remedy=remedy))
    return findings


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


def _sandbox() -> Finding:
    """Whether code that a model wrote can be run here, tried by running some; it is never run otherwise."""
    missing = sandbox.available()
    return Finding(
        what="optional: sandbox (programs that a model wrote)", well=missing is None,
        seen=sandbox.protection() if missing is None else "not in force: such programs are refused",
        remedy=missing or "",
    )  # fmt: skip


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


def _looks(data: Path, user: str | None) -> Iterator[Finding]:
    """What there is to see in a data directory; stops at what keeps the rest from being looked at."""
    refused = health.refused(data)
    if refused:
        yield Finding(
            what="permissions", well=False, seen=f"{os.geteuid()} may not read and write {refused[0]}",
            remedy="run as the user that owns it, or give it to this one (chown -R)",
        )  # fmt: skip
        return
    if not (data / "control.db").exists():
        yield Finding(what="data directory", well=True, seen=f"{data} holds nothing yet")
        return
    for name in health.DATABASES:
        finding = _database(data / name)
        yield finding
        if not finding.well:
            return
    if any(health.schema(data / name) < SCHEMA_VERSION for name in health.DATABASES):
        return  # to open it as ours would bring it to this schema: that is not for a look to do
    control, reader, now_ms = Control(data), Reader(data), int(time.time() * 1000)
    policies = control.policies()
    decisions = sum(reader.counts(p.tenant, p.name).get("decisions", 0) for p in policies)
    yield Finding(what="data directory", well=True, seen=f"{len(policies)} policies, {decisions:,} decisions")
    served = health.server(data)
    seen = f"process {served.pid}" if served.pid else ("none runs" if served.known else "unknown on this system")
    yield Finding(what="server", well=True, seen=seen)
    yield from _versions(control, policies)
    for policy, seen in () if user is None else adapters(control, user):
        yield Finding(what=f"this person's adapter of {policy}", well=True, seen=seen)
    yield _clock(health.newest_ms(data), now_ms)
    yield from _leases(health.leases(data), now_ms, running=served.pid is not None, data=data)
    yield from _frozen(control)
    if load_config(flags={"data": data}, environ=os.environ, directory=Path.cwd()).config.ballast_bytes:
        there, served_here = (data / "ballast").exists(), (data / "lock").exists()
        seen = "there" if there else "given up for a write on a full disk"
        remedy = "" if there else "free some space: the next write makes it anew. A rollback must fit on a full disk"
        if not served_here:  # a backup, or what was imported: no server has ever started here
            there, seen, remedy = True, "none yet: made when a server starts here", ""
        yield Finding(what="ballast", well=there, seen=seen, remedy=remedy)


def _database(path: Path) -> Finding:
    """One database: there, sound, and of a schema that this program knows."""
    try:
        if not path.exists():
            return Finding(what=path.name, well=False, seen="missing", remedy=RESTORE)
        found = health.schema(path)
        large = path.stat().st_size > READ_THROUGH
        damage = "" if large else health.damage(path)
    except apsw.Error as error:
        return Finding(what=path.name, well=False, seen=f"cannot be read ({error})", remedy=RESTORE)
    if found > SCHEMA_VERSION:
        remedy = "upgrade dayjob (pip install -U dayjob), or restore a backup taken with this version"
        seen = f"schema {found}, this program knows {SCHEMA_VERSION}"
        return Finding(what=path.name, well=False, seen=seen, remedy=remedy)
    if damage:
        return Finding(what=path.name, well=False, seen=f"damaged: {damage}", remedy=RESTORE)
    older = "" if found == SCHEMA_VERSION else f" (brought to {SCHEMA_VERSION} by the next `dayjob serve`)"
    return Finding(what=path.name, well=True, seen=f"{'readable' if large else 'sound'}, schema {found}{older}")


def _versions(control: Control, policies: Sequence[Policy]) -> Iterator[Finding]:
    """Every version that may serve, byte by byte against its manifest."""
    checked = 0
    addresses = [(one, address) for one in policies for address in (one.name, *layers(control, one.tenant, one.name))]
    for policy, address in addresses:
        pointers, whose = control.pointers(policy.tenant, address), " --user NAME" if is_personal(address) else ""
        for version in control.versions(policy.tenant, address):
            if version.number == 0 or version.status in GONE:
                continue
            checked += 1
            try:
                read_files(control.root, policy.tenant, address, version.name, digest=version.digest)
            except (DayjobError, OSError) as error:
                serves = version.name == pointers.champion
                undo = again(f"rollback {policy.name}{whose}", control.root, tenant=policy.tenant) if serves else ""
                retrain = again(f"learn --policy {policy.name}{whose}", control.root, tenant=policy.tenant)
                remedy = f"{undo + ', then ' if serves else ''}{retrain}; or restore it from a backup"
                yield Finding(
                    what=f"version {version.name} of {title(address)}" + (", the champion" if serves else ""),
                    well=False, seen=str(error), remedy=remedy,
                )  # fmt: skip
    yield Finding(what="weights", well=True, seen=f"{checked} versions read and compared with their manifests")


def _clock(newest_ms: int | None, now_ms: int) -> Finding:
    """Whether the clock stands before what the journal has seen, or before this program was written."""
    ahead_s = 0.0 if newest_ms is None else (newest_ms - now_ms) / 1000
    well = ahead_s <= CLOCK_SLACK_S and now_ms >= WRITTEN_MS
    seen = iso(now_ms) if well else f"{iso(now_ms)}, and the journal has a record of {iso(newest_ms or now_ms)}"
    remedy = "" if well else "set the clock (timedatectl set-ntp true): windows, tokens and leases are measured by it"
    return Finding(what="clock", well=well, seen=seen, remedy=remedy)


def _leases(found: Sequence[Lease], now_ms: int, *, running: bool, data: Path) -> Iterator[Finding]:
    """Leases whose holders died; while a server runs, somebody should have taken them up again."""
    for lease in found:
        late_s = (now_ms - lease.until_ms) / 1000
        if not lease.until_ms or -2 * LONGEST_LEASE_S <= late_s <= LONGEST_LEASE_S:
            continue  # given back, held, or ended so recently that its heir may be starting
        kind, _, whose = lease.name.partition("/")
        helper, command = ("judge", "gate") if kind == "judge" else ("learner", "learn")
        if late_s < 0:
            yield Finding(
                what=f"lease of the {helper} of {whose}", well=False, seen=f"held until {iso(lease.until_ms)}",
                remedy="the clock was set back: set it right; the lease is taken over by itself",
            )  # fmt: skip
        elif kind == "judge":
            follow = again(f"{command} --follow", data)
            yield Finding(
                what=f"lease of the {helper} of {whose}", well=not running,
                seen=f"ended at {iso(lease.until_ms)}: its holder is gone or stands still",
                remedy=f"{follow}, or restart the server without --no-judge" if running else "",
            )  # fmt: skip


def _frozen(control: Control) -> Iterator[Finding]:
    if control.freeze_file():
        path = control.root / "freeze"
        yield Finding(what="freeze", well=True, seen="nothing is learned or tried", remedy=f"remove {path} to learn")
