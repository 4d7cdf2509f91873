"""Erasing a person from the journal (promise 8).

Rows go in one transaction of the writer, their bytes are overwritten (``secure_delete``), and the log file is emptied
by a checkpoint afterwards. Keyed tombstones stay, so that a resent row is refused.

Candidate vectors that only this person's decisions used go too. Which these are takes a look at every decision that is
left: that is read beside the writer, page by page, and the writer is only asked to drop a few at a time, after a look
at what was written since. Nobody's feedback waits for an erasure. The suspects are a table of their own: an erasure
that was cut short is finished when the journal is opened next.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import apsw

from dayjob.endings import DayjobError, Overloaded
from dayjob.journal.rows import connect
from dayjob.journal.writes import Transaction

log = logging.getLogger("dayjob.journal")
Submit = Callable[[Callable[[Transaction], Any]], "Future[Any]"]

OWNED = (
    "SELECT id FROM decisions WHERE tenant=?1 AND user=?2",
    "SELECT id FROM outcomes WHERE tenant=?1 AND (user=?2 OR decision IN "
    "(SELECT id FROM decisions WHERE tenant=?1 AND user=?2))",
    "SELECT id FROM held WHERE tenant=?1 AND (user=?2 OR decision IN "
    "(SELECT id FROM decisions WHERE tenant=?1 AND user=?2))",
)
PAGE = 1_000  # decisions read at a time
CHUNK = 128  # vectors that the writer looks at and drops at a time
AGAIN_S = 0.05


def erase(root: Path, submit: Submit, stopping: threading.Event, *, tenant: str, user: str) -> dict[str, int]:
    """Remove what one person did: counts of ``decisions``, ``outcomes``, ``held`` and ``vectors`` that went.

    Raises Overloaded when the store closes before all is done: the rest is done when it is opened again.
    """
    counts: dict[str, int] = submit(lambda tx: erase_user(tx, tenant, user)).result()
    return counts | {"vectors": drop_orphans(root, submit, stopping, tenant=tenant)}


def erase_user(tx: Transaction, tenant: str, user: str) -> dict[str, int]:
    """Remove one person's rows, in the writer, and remember the vectors they used; the counts of what went."""
    ids = {
        table: [row[0] for row in tx.db.execute(sql, (tenant, user))]
        for table, sql in zip(("decisions", "outcomes", "held"), OWNED, strict=True)
    }
    suspects = {
        digest
        for row in tx.db.execute("SELECT candidate_digests FROM decisions WHERE tenant=? AND user=?", (tenant, user))
        for digest in _split(row[0])
    }
    tx.db.executemany("INSERT OR IGNORE INTO suspects VALUES (?, ?)", [(tenant, digest) for digest in suspects])
    counts = {}
    for table in ("outcomes", "held", "decisions"):
        kinds = "policy, 'decisions'" if table == "decisions" else "policy, kind"
        _uncount(tx, tenant, table, kinds, ids[table])
        tx.db.executemany(f"DELETE FROM {table} WHERE tenant=? AND id=?", [(tenant, one) for one in ids[table]])
        counts[table] = len(ids[table])
    marks = [(tenant, tx.mark(tenant, "id", one)) for table in ids for one in ids[table]]
    marks.append((tenant, tx.mark(tenant, "user", user)))
    seq = tx.next_seq()  # whoever learned from a replay read before this learned from them
    rows = [(*mark, seq) for mark in marks]
    tx.db.executemany("INSERT OR REPLACE INTO tombstones (tenant, mark, seq) VALUES (?, ?, ?)", rows)
    return counts


def _split(blob: Any) -> Iterable[bytes]:
    return (blob[at : at + 16] for at in range(0, len(blob), 16))


def _uncount(tx: Transaction, tenant: str, table: str, columns: str, ids: list[str]) -> None:
    if table == "held":
        return
    for one in ids:
        row = tx.db.execute(f"SELECT {columns} FROM {table} WHERE tenant=? AND id=?", (tenant, one)).fetchone()
        if row is not None:
            tx.counts[tenant, row[0], row[1]] -= 1


# ---- vectors that nobody uses any more -------------------------------------------------------------------------------


def finish(root: Path, submit: Submit, stopping: threading.Event) -> None:
    """Drop what erasures that were cut short had left behind."""
    reading = connect(root / "journal.db", write=False)
    tenants = [row[0] for row in reading.execute("SELECT DISTINCT tenant FROM suspects")]
    reading.close()
    try:
        dropped = sum(drop_orphans(root, submit, stopping, tenant=tenant) for tenant in tenants)
    except DayjobError as error:
        log.warning("an erasure is not finished yet, the next start tries again: %s", error)
    else:
        log.info("an erasure that was cut short is finished: %s vectors went", dropped)


def drop_orphans(root: Path, submit: Submit, stopping: threading.Event, *, tenant: str) -> int:
    """Drop a tenant's suspects that no decision and no catalog uses; how many. One at a time for each journal."""
    reading = connect(root / "journal.db", write=False)
    try:
        rows = reading.execute("SELECT digest FROM suspects WHERE tenant=?", (tenant,))
        suspects = [row[0] for row in rows]
        unused, through, dropped = set(suspects), 0, 0
        for at in range(0, len(suspects), CHUNK):
            newest = _last_seq(reading)  # all that is written up to here is seen by what reads from here on
            for page in _used(reading, tenant, through):
                unused.difference_update(page)
                if stopping.is_set():
                    raise Overloaded("the server stops: what is left of this erasure is done when it starts again")
            through = newest
            chunk = suspects[at : at + CHUNK]
            dropped += _persist(submit, stopping, _dropping(tenant, chunk, unused.intersection(chunk), through))
        return dropped
    finally:
        reading.close()


def _dropping(tenant: str, chunk: list[bytes], unused: set[bytes], through: int) -> Callable[[Transaction], int]:
    """The writer's part: of what was unused at ``through``, drop what still is; none of the chunk is suspect then."""

    def work(tx: Transaction) -> int:
        left = set(unused)
        for page in _used(tx.db, tenant, through):
            left.difference_update(page)
        in_catalog = "SELECT 1 FROM catalogs WHERE tenant=? AND digest=?"
        gone = [(tenant, one) for one in left if tx.db.execute(in_catalog, (tenant, one)).fetchone() is None]
        tx.db.executemany("DELETE FROM vectors WHERE tenant=? AND digest=?", gone)
        tx.db.executemany("DELETE FROM suspects WHERE tenant=? AND digest=?", [(tenant, one) for one in chunk])
        return len(gone)

    return work


def _used(db: apsw.Connection, tenant: str, after: int) -> Iterator[set[bytes]]:
    """Pages of the vectors that decisions after a sequence number use."""
    policy = ""
    while True:
        row = db.execute(
            "SELECT policy FROM decisions WHERE tenant=? AND policy>? ORDER BY policy LIMIT 1", (tenant, policy)
        ).fetchone()
        if row is None:
            return
        policy, seq = row[0], after
        while rows := db.execute(
            "SELECT seq, candidate_digests FROM decisions WHERE tenant=? AND policy=? AND seq>? ORDER BY seq LIMIT ?",
            (tenant, policy, seq, PAGE),
        ).fetchall():
            seq = int(str(rows[-1][0]))
            yield {digest for row in rows for digest in _split(row[1])}


def _last_seq(db: apsw.Connection) -> int:
    row = db.execute("SELECT n FROM counts WHERE tenant='' AND policy='' AND what='seq'").fetchone()
    return int(row[0]) if row else 0


def _persist(submit: Submit, stopping: threading.Event, work: Callable[[Transaction], int]) -> int:
    """Have the writer do it, behind whoever else waits. Raises Overloaded when the store closes."""
    while True:
        try:
            return int(submit(work).result())
        except Overloaded:
            if stopping.is_set():
                raise
            time.sleep(AGAIN_S)
