"""Erasing a person from the journal (promise 8). Runs in the writer thread.

Rows go, their bytes are overwritten (``secure_delete``) and the log file is emptied by a checkpoint. Keyed tombstones
stay, so that a resent row is refused. Candidate vectors that only this person's decisions used go too.
"""

from collections.abc import Iterable
from typing import Any

from dayjob.journal.writes import Transaction

OWNED = (
    "SELECT id FROM decisions WHERE tenant=?1 AND user=?2",
    "SELECT id FROM outcomes WHERE tenant=?1 AND (user=?2 OR decision IN "
    "(SELECT id FROM decisions WHERE tenant=?1 AND user=?2))",
    "SELECT id FROM held WHERE tenant=?1 AND (user=?2 OR decision IN "
    "(SELECT id FROM decisions WHERE tenant=?1 AND user=?2))",
)


def erase_user(tx: Transaction, tenant: str, user: str) -> dict[str, int]:
    """Remove everything one person did; the counts of what went."""
    ids = {
        table: [row[0] for row in tx.db.execute(sql, (tenant, user))]
        for table, sql in zip(("decisions", "outcomes", "held"), OWNED, strict=True)
    }
    suspects = {
        digest
        for row in tx.db.execute(
            "SELECT candidate_digests FROM decisions WHERE tenant=? AND user=?", (tenant, user)
        ).fetchall()
        for digest in _split(row[0])
    }
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
    counts["vectors"] = _drop_orphans(tx, tenant, suspects)
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


def _drop_orphans(tx: Transaction, tenant: str, suspects: set[bytes]) -> int:
    """Delete those vectors that no remaining decision or catalog of the tenant uses."""
    if not suspects:
        return 0
    for row in tx.db.execute("SELECT candidate_digests FROM decisions WHERE tenant=?", (tenant,)):
        suspects.difference_update(_split(row[0]))
        if not suspects:
            return 0
    suspects.difference_update(row[0] for row in tx.db.execute("SELECT digest FROM catalogs WHERE tenant=?", (tenant,)))
    tx.db.executemany("DELETE FROM vectors WHERE tenant=? AND digest=?", [(tenant, d) for d in suspects])
    return len(suspects)
