"""Copying a data directory while everything goes on writing it.

``control.db`` is copied first and ``journal.db`` after it, each as it stood at one moment: no cursor and no version
ever speaks of journal that the copy lacks. The journal's copy is a prefix of its history. Versions come last: what
``control.db`` names was on the disk before it was named. The copy is a data directory itself; to restore is to serve
it. Whoever was erased after a backup is in it again: erase them again.

The copy has its name once all of it is durable: what a killed backup leaves behind is called ``NAME.partial``.
"""

import os
import shutil
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import apsw

from dayjob.endings import Conflict, DayjobError, Invalid, NotFound, StorageFull, VersionStatus
from dayjob.journal.columns import VERSIONS
from dayjob.journal.control import row_version
from dayjob.journal.rows import connect, make_root
from dayjob.journal.steering import UNNAMED
from dayjob.journal.versions import copy, read_files, remove

PARTIAL = ".partial"
TAINTED = (VersionStatus.TAINTED.value,)
DATABASES = ("control.db", "journal.db")  # in the order in which they must be copied


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """What a copy holds. ``damaged``: versions that are not as they were published, and why; they are left out."""

    through: int  # the journal's newest sequence number in it
    versions: int
    size_bytes: int
    damaged: dict[str, str]


def backup(root: Path, target: Path) -> Backup:
    """Copy the data directory ``root`` to ``target``, which must not exist. Works while a server, a learner and a judge
    write; the journal's log file grows for as long as the copy takes.

    Raises:
        Invalid: ``root`` is no data directory.
        Conflict: ``target`` exists, or lies inside ``root``.
        StorageFull: the disk is full or refuses; nothing has the target's name.
    """
    root, target = root.resolve(), target.resolve()
    if not all((root / name).exists() for name in DATABASES):
        raise Invalid(f"{root} holds no journal: name the directory that a server was started with")
    if target.exists():
        raise Conflict(f"{target} exists: name a directory that does not, so that no earlier backup is lost")
    if target.is_relative_to(root):
        raise Conflict(f"{target} lies in the directory that is to be copied: name one outside of it")
    partial = target.with_name(target.name + PARTIAL)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        make_root(partial)
        os.chmod(partial, 0o700)  # it holds secrets
        for name in DATABASES:
            _copy_database(root / name, partial / name)
        copied, damaged = _copy_versions(root, partial)
        through = _last_seq(partial)
        if (root / "freeze").exists():
            shutil.copyfile(root / "freeze", partial / "freeze")
        size = sum(_sync(path) for path in [*partial.rglob("*"), partial])
        partial.rename(target)
        _sync(target.parent)
    except (OSError, apsw.FullError, apsw.IOError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise StorageFull(f"the backup was not written ({error}); free space, or name another disk") from error
    return Backup(through=through, versions=copied, size_bytes=size, damaged=damaged)


def _copy_database(source: Path, target: Path) -> None:
    """One step, one read transaction: a backup in many steps begins again whenever somebody writes."""
    with (
        closing(connect(source, write=False)) as reading,
        closing(_ours(target)) as writing,
        writing.backup("main", reading, "main") as copying,
    ):
        copying.step(-1)


def _ours(path: Path) -> apsw.Connection:
    """A connection to a file that nobody else uses: its end leaves no log file behind."""
    return apsw.Connection(str(path))


def _copy_versions(root: Path, target: Path) -> tuple[int, dict[str, str]]:
    """Every version that the copied ``control.db`` names, verified as copied; what learned from someone since erased
    only while a pointer still leads to it."""
    with closing(_ours(target / "control.db")) as db:
        named = [
            row_version(row) for row in db.execute(VERSIONS.select(f"WHERE number>0 AND NOT ({UNNAMED})"), TAINTED)
        ]
    damaged = {}
    for version in named:
        try:
            copy(root, target, version.tenant, version.policy, version=version.name)
            read_files(target, version.tenant, version.policy, version.name, digest=version.digest)
        except StorageFull:
            raise
        except DayjobError as error:
            damaged[f"{version.tenant}/{version.policy}/{version.name}"] = str(error)
            with suppress(NotFound):
                remove(target, version.tenant, version.policy, version.name)
    return len(named) - len(damaged), damaged


def _last_seq(root: Path) -> int:
    with closing(_ours(root / "journal.db")) as db:
        row = db.execute("SELECT n FROM counts WHERE tenant='' AND policy='' AND what='seq'").fetchone()
    return int(row[0]) if row else 0


def _sync(path: Path) -> int:
    """Make a file's bytes, or the names in a directory, durable; the file's size."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        return 0 if path.is_dir() else os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
