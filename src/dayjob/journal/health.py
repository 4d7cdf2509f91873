"""Looking at a data directory without touching it: every read here leaves the directory as it was."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import apsw

from dayjob.journal.columns import LEASES
from dayjob.journal.rows import connect
from dayjob.records import Lease

DATABASES = ("control.db", "journal.db")
WRITTEN = (*DATABASES, "versions")


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[apsw.Connection]:
    connection = connect(path, write=False)
    try:
        yield connection
    finally:
        connection.close()


def schema(path: Path) -> int:
    """The schema that a database was written with. Raises apsw.NotADBError for what is no database."""
    with _reading(path) as db:
        return int(db.pragma("user_version"))


def damage(path: Path) -> str:
    """What SQLite finds wrong with a database's pages and indexes ("" when nothing is); reads all of it."""
    with _reading(path) as db:
        [found] = db.execute("PRAGMA quick_check(1)").fetchall()
    return "" if found[0] == "ok" else str(found[0])


def leases(root: Path) -> list[Lease]:
    """Every lease that was ever taken, given back ones included (``until_ms`` 0)."""
    with _reading(root / "control.db") as db:
        rows = db.execute(LEASES.select("ORDER BY name")).fetchall()
    return [Lease(name=str(r[0]), holder=str(r[1]), token=int(str(r[2])), until_ms=int(str(r[3]))) for r in rows]


def newest_ms(root: Path) -> int | None:
    """The latest time that the server's clock gave a record; None in an empty journal."""
    with _reading(root / "journal.db") as db:
        row = db.execute(
            "SELECT MAX(at_ms) FROM (SELECT at_ms FROM decisions ORDER BY rowid DESC LIMIT 1000)"
        ).fetchone()
    return None if row is None or row[0] is None else int(str(row[0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Whether a server holds a directory; None where this system does not say."""

    pid: int | None
    known: bool


def server(root: Path, locks: Path = Path("/proc/locks")) -> Served:
    """The process that holds the directory's lock, read from the system's table: asking for the lock could take it from
    a server that is just starting."""
    path = root / "lock"
    if not locks.exists():
        return Served(pid=None, known=False)
    if not path.exists():
        return Served(pid=None, known=True)
    inode = os.stat(path).st_ino
    for line in locks.read_text().splitlines():
        words = line.split()
        if words[1:2] == ["FLOCK"] and words[5].rsplit(":", 1)[-1] == str(inode):
            return Served(pid=int(words[4]), known=True)
    return Served(pid=None, known=True)


def refused(root: Path) -> list[Path]:
    """What this user may not read or write, of what a server must."""
    paths = [root, *(root / name for name in WRITTEN)]
    wanted = os.R_OK | os.W_OK
    return [path for path in paths if _there(path) and not os.access(path, wanted, effective_ids=True)]


def _there(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        return True
