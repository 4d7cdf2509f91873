"""The embedded journal: one file, one writer thread, group commit.

Promise 1, acknowledged means durable: a future resolves only after the commit that holds its write was synced
(WAL, ``synchronous=FULL``). A failed sync acknowledges nothing and closes the journal for writing. On a full disk
nothing is written until there is room again, and the ballast is left to whoever must move a pointer (`control`).
Promise 2, one id, one effect: decided inside the transaction (`writes`); one bad write never rolls back its batch.
"""

import asyncio
import contextlib
import fcntl
import os
import queue
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import apsw

from dayjob.endings import Conflict, DayjobError, Overloaded, StorageFull
from dayjob.journal import erase, writes
from dayjob.journal.columns import JOURNAL_TABLES
from dayjob.journal.rows import BUSY_MS, connect, make_root, open_database
from dayjob.journal.writes import FindSpec, Transaction
from dayjob.records import CatalogItem, Decision, Outcome, Written

T = TypeVar("T")
# The disk's own failures: no single write is to blame.
ENDS_A_BATCH = (apsw.FullError, apsw.IOError, apsw.CorruptError, apsw.ReadOnlyError, apsw.CantOpenError)
Work = Callable[[Transaction], Any]
MOST_IN_A_COMMIT = 256
SCRUB_AGAIN_S = 1.0  # between two tries to empty the log file while others read
FULL = "the disk is full: nothing was written; free some space, and writes resume by themselves"
BROKEN = "the disk failed to sync a write: nothing was acknowledged; check the disk, then restart the server"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """Limits of the embedded journal."""

    queue_limit: int = 4096
    held_per_key: int = 10_000
    ballast_bytes: int = 4 << 20


@dataclass(slots=True)
class _Item:
    work: Work
    resolve: "Future[Any] | asyncio.Future[Any]"
    loop: asyncio.AbstractEventLoop | None


class _OneFailed(Exception):
    """A write raised: what was written beside it must be written again."""


class Store:
    """The journal of one data directory. Raises Conflict when another server holds the directory."""

    def __init__(self, root: Path, *, secret: bytes, find_spec: FindSpec, config: StoreConfig = StoreConfig()) -> None:
        make_root(root)
        self.root = root
        self._lock = _lock(root)
        self._config = config
        self._secret = secret
        self._find_spec = find_spec
        try:
            self._db = open_database(root / "journal.db", JOURNAL_TABLES)
        except BaseException:
            os.close(self._lock)
            raise
        row = self._db.execute("SELECT n FROM counts WHERE tenant='' AND policy='' AND what='seq'").fetchone()
        self._seq = int(row[0]) if row else 0
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._gathered: dict[asyncio.AbstractEventLoop, list[_Item]] = {}
        self._broken = False
        self._full = False
        self._fill_ballast()
        self._thread = threading.Thread(target=self._run, name="journal-writer", daemon=True)
        # One erasure at a time: two would take each other's suspects for settled.
        self._stopping = threading.Event()
        self._erasures = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal-erasure")
        cut_short = self._db.execute("SELECT 1 FROM suspects LIMIT 1").fetchone() is not None
        # A server that was killed may have left the bytes of an erasure in the log file, whole or not.
        emptied = self._empty_log()
        self._thread.start()
        if cut_short or not emptied:
            self._erasures.submit(self._clean_up, cut_short)

    @property
    def broken(self) -> bool:
        """Whether a sync failed: no more writes until a restart."""
        return self._broken

    @property
    def waiting(self) -> int:
        """Writes in the queue."""
        return self._queue.qsize()

    def append_decision(self, decision: Decision, blobs: Sequence[bytes] = ()) -> "Future[Written]":
        """Append a decision with its candidates' encoded vectors (K of them, or none when all are known)."""
        return self.submit(lambda tx: writes.append_decision(tx, decision, blobs))

    def append_outcome(self, outcome: Outcome) -> "Future[Written]":
        """Append an outcome."""
        return self.submit(lambda tx: writes.append_outcome(tx, outcome))

    def put_catalog(self, tenant: str, policy: str, *, items: Sequence[CatalogItem]) -> "Future[int]":
        """Replace a policy's catalog."""
        return self.submit(lambda tx: writes.put_catalog(tx, tenant, policy, items=items))

    def erase_user(self, tenant: str, user: str) -> "Future[dict[str, int]]":
        """Erase a person, beside the writer. ``scrub`` afterwards: no deleted byte then stays in the log file."""
        return self._erasures.submit(erase.erase, self.root, self.submit, self._stopping, tenant=tenant, user=user)

    def expire_held(self, before_ms: int) -> "Future[int]":
        """Drop outcomes held since before that time."""
        return self.submit(lambda tx: writes.expire_held(tx, before_ms))

    def submit(self, work: Callable[[Transaction], T]) -> "Future[T]":
        """Queue a write; the future resolves once it is durable. Raises Overloaded when the queue is full.

        ``work`` changes nothing but the transaction: it is run again where one beside it fails.
        """
        future: Future[T] = Future()
        self._check_room(0)
        self._queue.put(_Item(work, future, None))
        return future

    def asubmit(self, work: Callable[[Transaction], T]) -> "asyncio.Future[T]":
        """The same for a running event loop: one turn's writes share a commit, and a commit wakes the loop once."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        gathered = self._gathered.setdefault(loop, [])
        self._check_room(len(gathered))
        if not gathered:
            loop.call_soon(self._hand_over, loop)
        gathered.append(_Item(work, future, loop))
        return future

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wake the writer once a turn: awake earlier, it would only fight the loop for the interpreter."""
        for item in self._gathered.pop(loop):
            self._queue.put(item)

    def close(self) -> None:
        """Finish what is queued, empty the log file, release the directory."""
        self._stopping.set()
        self._erasures.shutdown(cancel_futures=True)
        self._queue.put(None)
        self._thread.join()
        if not self._broken:
            with contextlib.suppress(apsw.Error):
                self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        self._db.close()
        os.close(self._lock)

    def _check_room(self, gathered: int) -> None:
        if self._broken:
            raise StorageFull(BROKEN)
        if self._queue.qsize() + gathered >= self._config.queue_limit:
            raise Overloaded("the write queue is full: try again in a second", retry_after_s=1.0)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            batch = [item]
            stop = False
            while len(batch) < MOST_IN_A_COMMIT:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    stop = True
                    break
                batch.append(more)
            _resolve(batch, self._commit(batch))
            if stop:
                return

    def _commit(self, batch: list[_Item]) -> list[Any]:
        """Run a batch in one transaction; a result or an exception for each."""
        try:
            if self._broken:
                raise StorageFull(BROKEN)
            self._wait_for_room()
            try:
                return self._transact(batch, self._any)
            except _OneFailed:
                # Which is rare: once more, each so that it can be undone by itself. A savepoint copies what it guards.
                self._db.execute("ROLLBACK")
                return self._transact(batch, self._one)
        except BaseException as error:
            failure = self._failed(error)
            return [failure] * len(batch)

    def _transact(self, batch: list[_Item], do: Callable[[Transaction, _Item], Any]) -> list[Any]:
        tx = Transaction(
            db=self._db,
            seq=self._seq,
            secret=self._secret,
            find_spec=self._find_spec,
            held_per_key=self._config.held_per_key,
        )
        self._db.execute("BEGIN IMMEDIATE")
        results = [do(tx, item) for item in batch]
        self._count(tx)
        self._db.execute("COMMIT")
        self._seq = tx.seq
        return results

    def _any(self, tx: Transaction, item: _Item) -> Any:
        """One write that is expected to go well."""
        try:
            return item.work(tx)
        except ENDS_A_BATCH:
            raise
        except Exception as error:
            raise _OneFailed from error

    def _one(self, tx: Transaction, item: _Item) -> Any:
        """One write in a savepoint of its own. A full or failing disk ends the whole batch."""
        seq, counts = tx.seq, Counter(tx.counts)
        self._db.execute("SAVEPOINT one")
        try:
            result = item.work(tx)
        except ENDS_A_BATCH:
            raise
        except Exception as error:
            self._db.execute("ROLLBACK TO one")
            tx.seq, tx.counts = seq, counts
            result = error
        self._db.execute("RELEASE one")
        return result

    def _count(self, tx: Transaction) -> None:
        rows = [(tenant, policy, what, n) for (tenant, policy, what), n in tx.counts.items() if n]
        if tx.seq != self._seq:
            rows.append(("", "", "seq", tx.seq - self._seq))
        self._db.executemany(
            "INSERT INTO counts (tenant, policy, what, n) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (tenant, policy, what) DO UPDATE SET n = n + excluded.n",
            rows,
        )

    def _failed(self, error: BaseException) -> DayjobError:
        """Undo the transaction and name the failure."""
        if self._db.in_transaction:
            try:
                self._db.execute("ROLLBACK")
            except apsw.Error:
                self._broken = True
        if isinstance(error, apsw.FullError):
            self._full = True
            return StorageFull(FULL)
        if isinstance(error, apsw.IOError) and getattr(error, "extendedresult", 0) in _SYNC_FAILURES:
            self._broken = True
            return StorageFull(BROKEN)
        if isinstance(error, DayjobError):
            return error
        return StorageFull(f"the journal could not be written ({error}): check the disk; nothing was acknowledged")

    def _empty_log(self) -> bool:
        """Empty the log file at the start; whether nobody who reads was in the way."""
        self._db.set_busy_timeout(0)
        try:
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.Error:
            return False
        finally:
            self._db.set_busy_timeout(BUSY_MS)
        return True

    def _clean_up(self, cut_short: bool) -> None:
        """Finish an erasure that was cut short, and empty the log file as soon as readers let it."""
        if cut_short:
            erase.finish(self.root, self.submit, self._stopping)
        while not self._stopping.is_set():
            done: Future[None] = Future()
            self._scrub(done)
            if done.exception() is None:
                return
            self._stopping.wait(SCRUB_AGAIN_S)

    def scrub(self) -> "Future[None]":
        """Empty the log file after an erasure: no deleted byte stays in it. Beside the writer, which may go on."""
        done: Future[None] = Future()
        threading.Thread(target=self._scrub, args=(done,), daemon=True).start()
        return done

    def _scrub(self, done: "Future[None]") -> None:
        try:
            connection = connect(self.root / "journal.db", write=True)
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            connection.close()
        except apsw.Error as error:
            done.set_exception(StorageFull(f"the log file could not be emptied ({error}): try the erasure again"))
        else:
            done.set_result(None)

    def _wait_for_room(self) -> None:
        """After a full disk, or where the ballast is spent or could never be made, write only once more is free than
        the ballast holds: what it gave back for a rollback is the rollback's. Raises StorageFull until then."""
        missing = 0 if (self.root / "ballast").exists() else self._config.ballast_bytes
        if not (self._full or missing):
            return
        disk = os.statvfs(self.root)
        if disk.f_bavail * disk.f_frsize < missing + self._config.ballast_bytes:
            raise StorageFull(FULL)
        self._full = False
        self._fill_ballast()

    def _fill_ballast(self) -> None:
        """Keep some bytes that a full disk gives back, so that a rollback can always be written."""
        path = self.root / "ballast"
        if self._config.ballast_bytes and not path.exists():
            try:
                with path.open("wb") as out:
                    out.write(b"\0" * self._config.ballast_bytes)
                    out.flush()
                    os.fsync(out.fileno())
            except OSError:
                path.unlink(missing_ok=True)


_SYNC_FAILURES = frozenset((apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_IOERR_DIR_FSYNC))


def _lock(root: Path) -> int:
    descriptor = os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise Conflict(
            f"another server already serves {root}: stop it first, or give this one another --data directory"
        ) from None
    return descriptor


def _resolve(batch: list[_Item], results: list[Any]) -> None:
    """Hand every writer its result; each event loop is woken once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
    for item, result in zip(batch, results, strict=True):
        if isinstance(item.resolve, Future):
            if not item.resolve.set_running_or_notify_cancel():
                continue  # whoever asked has gone; what was written stays written
            if isinstance(result, BaseException):
                item.resolve.set_exception(result)
            else:
                item.resolve.set_result(result)
        elif item.loop is not None:
            by_loop.setdefault(item.loop, []).append((item.resolve, result))
    for loop, pairs in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, pairs)


def _settle(pairs: list[tuple["asyncio.Future[Any]", Any]]) -> None:
    for future, result in pairs:
        if future.done():
            continue
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)
