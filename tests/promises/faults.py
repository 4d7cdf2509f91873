"""Disks that fail, forget and lose power, under the real store: SQLite calls these instead of the operating system.

`RecordingDisk` writes down every write, truncation, sync and deletion, and `after_power_loss` builds what a disk may
hold if the power goes at any point: what was synced, and of the rest any part, in any order, torn anywhere.
`FailingDisk` makes the k-th operation fail.
"""

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import apsw
import pytest

from dayjob.journal import control, rows, store

SECTOR = 512


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was done to a file; ``kind`` "mark" is a note of the test's."""

    kind: str
    name: str = ""
    offset: int = 0
    data: bytes = b""


@dataclass(slots=True)
class Log:
    """What happened, in order."""

    steps: list[Step] = field(default_factory=list)

    def mark(self, note: str) -> None:
        self.steps.append(Step("mark", note))


class _File(apsw.VFSFile):  # type: ignore[misc]
    """A file that tells its disk before it does anything."""

    def __init__(self, disk: "Disk", path: Any, flags: list[int]) -> None:
        super().__init__(disk.real, path, flags)
        self._disk = disk
        self._name = Path(path.filename() if isinstance(path, apsw.URIFilename) else str(path)).name

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.before("write", self._name)
        super().xWrite(data, offset)
        self._disk.after(Step("write", self._name, offset, bytes(data)))

    def xTruncate(self, size: int) -> None:
        self._disk.before("truncate", self._name)
        super().xTruncate(size)
        self._disk.after(Step("truncate", self._name, size))

    def xSync(self, flags: int) -> None:
        self._disk.before("sync", self._name)
        self._disk.after(Step("sync", self._name))
        del flags  # the log is the disk here: nothing has to reach the real one

    def excepthook(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """SQLite has been told; nobody else needs to be."""


class Disk(apsw.VFS):  # type: ignore[misc]
    """A disk that does as it is told. Files that SQLite shares between processes are memory and go past it."""

    def __init__(self, name: str) -> None:
        self.real = apsw.vfs_names()[0]
        self.name = name
        super().__init__(name, self.real)

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        return _File(self, name, flags)

    def xDelete(self, path: str, sync_directory: bool) -> None:
        self.before("delete", Path(path).name)
        super().xDelete(path, sync_directory)
        self.after(Step("delete", Path(path).name))

    def excepthook(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """As for files."""

    def before(self, kind: str, name: str) -> None:
        """About to be done; raise to make it fail."""

    def after(self, step: Step) -> None:
        """Was done."""


class RecordingDisk(Disk):
    """Writes down what was done."""

    def __init__(self, name: str) -> None:
        self.log = Log()
        super().__init__(name)

    def after(self, step: Step) -> None:
        self.log.steps.append(step)


class FailingDisk(Disk):
    """The k-th operation of these kinds fails, and ``lasting`` ones all that follow, until ``mend``."""

    def __init__(self, name: str, error: apsw.Error, kinds: frozenset[str], *, lasting: bool) -> None:
        self.error, self.kinds, self.lasting = error, kinds, lasting
        self.left = -1
        self.failed = 0
        super().__init__(name)

    def arm(self, k: int) -> None:
        """Fail the k-th operation from now."""
        self.left, self.failed = k, 0

    def mend(self) -> None:
        self.left = -1

    def before(self, kind: str, name: str) -> None:
        del name
        if kind not in self.kinds or self.left < 0:
            return
        if self.left == 0:
            self.failed += 1
            self.left = 0 if self.lasting else -1
            raise self.error
        self.left -= 1


def disk_error(kind: type[apsw.Error], code: int) -> apsw.Error:
    """An error as SQLite's own disk would give it."""
    error = kind("made by a test")
    error.extendedresult = code
    return error


@contextlib.contextmanager
def using(disk: Disk) -> Iterator[None]:
    """Everything that is opened for writing meanwhile lies on this disk."""
    real = rows.connect

    def connect(path: Path, *, write: bool) -> apsw.Connection:
        apsw.set_default_vfs(disk.name if write else disk.real)
        try:
            return real(path, write=write)
        finally:
            apsw.set_default_vfs(disk.real)

    with pytest.MonkeyPatch.context() as patch:
        for module in (rows, store, control):
            patch.setattr(module, "connect", connect)
        yield
    disk.unregister()


def after_power_loss(log: Log, at: int, dice: random.Random) -> dict[str, bytes]:
    """The files as a disk may hold them when the power goes after ``at`` steps.

    A synced write stays. Of the others each 512-byte sector may or may not have arrived, in any order. The names in a
    directory are synced with the first sync of a new log, as SQLite does it on Unix.
    """
    synced, named = _synced(log, at)
    harsh = dice.choice((0.0, 0.5, 1.0))  # nothing of it arrived, some, all
    files: dict[str, bytearray] = {}
    for n, step in enumerate(log.steps[:at]):
        if step.kind in ("mark", "sync"):
            continue
        sure = n < (named if step.kind == "delete" else synced.get(step.name, -1))
        body = files.setdefault(step.name, bytearray())
        if step.kind == "write":
            _arrive(body, step, (lambda: True) if sure else (lambda: dice.random() < harsh))
        elif sure or dice.random() < harsh:
            if step.kind == "truncate":
                del body[step.offset :]
            else:
                del files[step.name]
    return {name: bytes(body) for name, body in files.items()}


def _synced(log: Log, at: int) -> tuple[dict[str, int], int]:
    """The last sync of each file, and of the names in the directory."""
    synced: dict[str, int] = {}
    fresh: set[str] = set()
    gone: set[str] = set()
    named = -1
    for n, step in enumerate(log.steps[:at]):
        if step.kind == "sync":
            if step.name in fresh:
                named = n
            fresh.discard(step.name)
            synced[step.name] = n
        elif step.kind == "write" and (step.name not in synced or step.name in gone):
            gone.discard(step.name)
            fresh |= {step.name} if step.name.endswith(("-wal", "-journal")) else set()
        elif step.kind == "delete":
            gone.add(step.name)
    return synced, named


def _arrive(body: bytearray, step: Step, arrives: Any) -> None:
    """Write sector by sector; what lies between the old end and a sector that arrived reads as zeros."""
    at = 0
    while at < len(step.data):
        start = step.offset + at
        size = min(SECTOR - start % SECTOR, len(step.data) - at)
        if arrives():
            if len(body) < start + size:
                body.extend(bytes(start + size - len(body)))
            body[start : start + size] = step.data[at : at + size]
        at += size
