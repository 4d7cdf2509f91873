"""Reading the journal: opaque cursors, short read transactions, one connection a reader.

A cursor names the last sequence number seen. The embedded store has a single writer, so sequence numbers become
visible in order; a store where they do not must never hand out a cursor past its oldest open transaction.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from heapq import merge
from pathlib import Path

import apsw
import numpy as np
import numpy.typing as npt

from dayjob.endings import Damaged, Invalid, SchemaMismatch
from dayjob.journal import vectors
from dayjob.journal.columns import DECISIONS, HELD, OUTCOMES, SCHEMA_VERSION, Table
from dayjob.journal.join import Window, join
from dayjob.journal.rows import Row, connect, loads, row_decision, row_outcome
from dayjob.records import Joined, Json, Stored, StoredOutcome

START = "s0"
WHOLE = 50  # rows at a time of a person's whole record, long lists and losses included
PAGE = 500  # rows a read transaction: well under a second
NEWEST = (1 << 63) - 1  # no sequence number is beyond it


# The columns of a decision that are long, and what stands in their place where they are not read.
_LONG = dict.fromkeys(("generation", "prompt_ids", "bare_ids", "choices"), "NULL") | {"context": "x''"}
_SKETCH = f"SELECT {', '.join(_LONG.get(name, name) for name in DECISIONS.names())} FROM decisions "


def cursor_of(seq: int) -> str:
    """The cursor that continues after ``seq``."""
    return f"s{seq}"


def seq_of(cursor: str) -> int:
    """The sequence number a cursor stands at. Raises Invalid for anything that is not a cursor of ours."""
    if not cursor.startswith("s") or not cursor[1:].isascii() or not cursor[1:].isdigit() or len(cursor) > 19:
        raise Invalid(f"{cursor!r} is not a cursor: use one that a read returned", param="cursor")
    return int(cursor[1:])


class Reader:
    """Reads one data directory's journal. Any number of them, in any process; safe to share between threads.

    Its first read raises SchemaMismatch where an older program wrote the journal, and no writer of ours has opened it.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / "journal.db"
        self._local = threading.local()

    def _db(self) -> apsw.Connection:
        connection: apsw.Connection | None = getattr(self._local, "db", None)
        if connection is None:
            connection = connect(self._path, write=False)
            found = int(connection.pragma("user_version"))
            if found < SCHEMA_VERSION:
                connection.close()
                raise SchemaMismatch(
                    f"this journal has schema {found}, this program reads {SCHEMA_VERSION}: start `dayjob serve` over "
                    "it once, which brings it there"
                )
            self._local.db = connection
        return connection

    def decision(self, tenant: str, decision_id: str) -> Stored | None:
        """One decision by its id."""
        row = self._db().execute(DECISIONS.select("WHERE tenant=? AND id=?"), (tenant, decision_id)).fetchone()
        return None if row is None else row_decision(row)

    def decisions(
        self, tenant: str, policy: str, *, cursor: str = START, limit: int = PAGE
    ) -> tuple[list[Stored], str]:
        """The next decisions of a policy, oldest first, and the cursor that continues after them."""
        rows = self._db().execute(
            DECISIONS.select("WHERE tenant=? AND policy=? AND seq>? ORDER BY seq LIMIT ?"),
            (tenant, policy, seq_of(cursor), limit),
        )
        out = [row_decision(row) for row in rows]
        return out, cursor_of(out[-1].seq) if out else cursor

    def recent(self, tenant: str, policy: str, limit: int, *, until: int = NEWEST) -> list[Stored]:
        """The newest decisions up to sequence number ``until``, oldest of them first."""
        rows = self._db().execute(
            DECISIONS.select("WHERE tenant=? AND policy=? AND seq<=? ORDER BY seq DESC LIMIT ?"),
            (tenant, policy, until, limit),
        )
        return [row_decision(row) for row in rows][::-1]

    def sketches(self, tenant: str, policy: str, *, after: int, limit: int = PAGE) -> list[Stored]:
        """The next decisions of a language policy after a sequence number, without what was read and written."""
        where = "WHERE tenant=? AND policy=? AND seq>? ORDER BY seq LIMIT ?"
        return [row_decision(row) for row in self._db().execute(_SKETCH + where, (tenant, policy, after, limit))]

    def of_session(self, tenant: str, policy: str, *, session: str) -> list[Stored]:
        """A session's decisions by a language policy, in order, without what was read and written."""
        where = "WHERE tenant=? AND session=? AND policy=? ORDER BY seq"
        return [row_decision(row) for row in self._db().execute(_SKETCH + where, (tenant, session, policy))]

    def newest(
        self, tenant: str, policy: str, *, user: str | None = None, session: str | None = None,
        before: int = NEWEST, limit: int = PAGE,
    ) -> list[Stored]:  # fmt: skip
        """The newest decisions before a sequence number, newest first: of a person, of a session, or all."""
        named = {"user": user, "session": session}
        only = "".join(f" AND {column}=?" for column, value in named.items() if value is not None)
        args = [value for value in named.values() if value is not None]
        rows = self._db().execute(
            DECISIONS.select(f"WHERE tenant=? AND policy=? AND seq<?{only} ORDER BY seq DESC LIMIT ?"),
            (tenant, policy, before, *args, limit),
        )
        return [row_decision(row) for row in rows]

    def outcome(self, tenant: str, outcome_id: str) -> StoredOutcome | None:
        """One outcome by its id; one that waits for its decision is not there yet."""
        row = self._db().execute(OUTCOMES.select("WHERE tenant=? AND id=?"), (tenant, outcome_id)).fetchone()
        return None if row is None else row_outcome(row)

    def cursor_before(self, tenant: str, policy: str, count: int, *, until: int = NEWEST) -> str:
        """The cursor after which the newest ``count`` decisions up to sequence number ``until`` come."""
        row = (
            self._db()
            .execute(
                "SELECT seq FROM decisions WHERE tenant=? AND policy=? AND seq<=? ORDER BY seq DESC LIMIT 1 OFFSET ?",
                (tenant, policy, until, count),
            )
            .fetchone()
        )
        return START if row is None else cursor_of(int(row[0]))

    def outcomes(self, tenant: str, decisions: Sequence[Stored]) -> dict[str, list[StoredOutcome]]:
        """The outcomes of these decisions by decision id; a session's outcomes stand at each of its decisions."""
        db = self._db()
        out: dict[str, list[StoredOutcome]] = {}
        by_session = OUTCOMES.select("WHERE tenant=? AND session=? AND policy=? AND decision IS NULL")
        sessions: dict[str, list[StoredOutcome]] = {}
        for at in range(0, len(decisions), PAGE):
            page = [stored.record.id for stored in decisions[at : at + PAGE]]
            by_decision = OUTCOMES.select(f"WHERE tenant=? AND decision IN ({','.join('?' * len(page))})")
            for row in db.execute(by_decision, (tenant, *page)):
                told = row_outcome(row)
                out.setdefault(str(told.record.decision), []).append(told)
        for stored in decisions:
            record = stored.record
            if record.session is not None:
                if record.session not in sessions:
                    rows = db.execute(by_session, (tenant, record.session, record.policy))
                    sessions[record.session] = [row_outcome(row) for row in rows]
                if sessions[record.session]:
                    out.setdefault(record.id, []).extend(sessions[record.session])
        return out

    def joined(
        self, tenant: str, policy: str, *, window: Window, now_ms: int, cursor: str = START, until: int | None = None
    ) -> Iterator[list[Joined]]:
        """Pages of decisions with their outcomes, in order; nothing after sequence number ``until``."""
        while True:
            page, cursor = self.decisions(tenant, policy, cursor=cursor)
            if until is not None:
                page = [stored for stored in page if stored.seq <= until]
            if not page:
                return
            yield join(page, self.outcomes(tenant, page), now_ms=now_ms, window=window)

    def get_many(self, tenant: str, digests: Sequence[bytes], *, dim: int) -> npt.NDArray[np.float32]:
        """The vectors of these digests, (N, dim). Raises Damaged when one is missing."""
        db = self._db()
        vector_ND = np.empty((len(digests), dim), np.float32)
        for at in range(0, len(digests), PAGE):
            page = digests[at : at + PAGE]
            marks = ",".join("?" * len(page))
            found: dict[bytes, bytes] = dict(
                db.execute(
                    f"SELECT digest, vector FROM vectors WHERE tenant=? AND digest IN ({marks})", (tenant, *page)
                )
            )
            try:
                vector_ND[at : at + PAGE] = vectors.unpack_many([found[digest] for digest in page], dim)
            except KeyError:
                raise Damaged("a candidate's vector is missing from the journal: restore it from a backup") from None
        return vector_ND

    def catalog(self, tenant: str, policy: str) -> tuple[list[str], list[bytes], list[Json | None]]:
        """A catalog's ids, vector digests and metadata, in order."""
        rows = list(
            self._db().execute(
                "SELECT id, digest, meta FROM catalogs WHERE tenant=? AND policy=? ORDER BY ordinal", (tenant, policy)
            )
        )
        return [row[0] for row in rows], [row[1] for row in rows], [loads(row[2]) for row in rows]

    def any_erased(self, tenant: str, marks: Sequence[bytes], *, after: int) -> bool:
        """Whether any of these keyed marks was erased after a sequence number; who came back before it is welcome."""
        db = self._db()
        sql = "SELECT 1 FROM tombstones WHERE tenant=? AND mark=? AND seq>?"
        return any(db.execute(sql, (tenant, mark, after)).fetchone() is not None for mark in marks)

    def erased_since(self, tenant: str, seq: int) -> tuple[list[bytes], int]:
        """The keyed marks erased after a sequence number, and the number of the newest of them."""
        sql = "SELECT mark, seq FROM tombstones WHERE tenant=? AND seq>? ORDER BY seq"
        rows = list(self._db().execute(sql, (tenant, seq)))
        return [bytes(row[0]) for row in rows], int(rows[-1][1]) if rows else seq

    def counts(self, tenant: str, policy: str) -> dict[str, int]:
        """Decisions and outcomes by kind."""
        rows = self._db().execute("SELECT what, n FROM counts WHERE tenant=? AND policy=?", (tenant, policy))
        return {row[0]: row[1] for row in rows}

    def of_user(self, tenant: str, user: str) -> tuple[Iterator[Stored], Iterator[StoredOutcome]]:
        """All that is held of a person: decisions and outcomes, held ones included, each in journal order.

        They are read page by page as they are asked for, in whichever thread asks."""
        decisions = (row_decision(row) for row in self._rows_of(DECISIONS, tenant, user))
        told = [(row_outcome(row) for row in self._rows_of(table, tenant, user)) for table in (OUTCOMES, HELD)]
        return decisions, merge(*told, key=lambda one: one.seq)

    def _rows_of(self, table: Table, tenant: str, user: str) -> Iterator[Row]:
        """A person's rows, page by page in the order of their index: by row number."""
        page = f"SELECT rowid, {', '.join(table.names())} FROM {table.name} WHERE tenant=? AND user=? AND rowid>? "
        last = 0
        while rows := self._db().execute(page + "ORDER BY rowid LIMIT ?", (tenant, user, last, WHOLE)).fetchall():
            last = int(str(rows[-1][0]))
            yield from (row[1:] for row in rows)

    def count_closed(self, tenant: str, policy: str, *, after: int, window: Window, most: int) -> int:
        """How many decisions after a sequence number are closed, counted no further than ``most``."""
        kinds = ", ".join(f"'{kind.value}'" for kind in sorted(window.kinds))
        row = (
            self._db()
            .execute(
                "SELECT COUNT(*) FROM (SELECT 1 FROM decisions d WHERE tenant=?1 AND policy=?2 AND seq>?3 AND ("
                "at_ms < ?4 OR EXISTS (SELECT 1 FROM outcomes o WHERE o.tenant=?1 AND o.decision=d.id "
                f"AND o.kind IN ({kinds}))) LIMIT ?5)",
                (tenant, policy, after, int(time.time() * 1000) - window.length_ms, most),
            )
            .fetchone()
        )
        return int(row[0]) if row else 0

    def session_user(self, tenant: str, session: str) -> str | None:
        """Whose a session is: the user of its latest decision that has one; None while it has none."""
        sql = "SELECT user FROM decisions WHERE tenant=? AND session=? AND user IS NOT NULL ORDER BY seq DESC LIMIT 1"
        row = self._db().execute(sql, (tenant, session)).fetchone()
        return None if row is None else str(row[0])

    def last_seq(self) -> int:
        """The journal's newest sequence number."""
        row = self._db().execute("SELECT n FROM counts WHERE tenant='' AND policy='' AND what='seq'").fetchone()
        return int(row[0]) if row else 0
