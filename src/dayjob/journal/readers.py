"""Reading the journal: opaque cursors, short read transactions, one connection a reader.

A cursor names the last sequence number seen. The embedded store has a single writer, so sequence numbers become
visible in order; a store where they do not must never hand out a cursor past its oldest open transaction.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from heapq import merge
from pathlib import Path
from typing import NamedTuple

import apsw
import numpy as np
import numpy.typing as npt

from dayjob.endings import Damaged, Invalid, SchemaMismatch
from dayjob.journal import vectors
from dayjob.journal.columns import DECISIONS, HELD, OUTCOMES, SCHEMA_VERSION, Table
from dayjob.journal.generations import text_of
from dayjob.journal.join import Window, join
from dayjob.journal.rows import Row, connect, loads, row_decision, row_outcome
from dayjob.records import Joined, Json, Stored, StoredOutcome

START = "s0"
WHOLE = 50  # rows at a time of a person's whole record, long lists and losses included
PAGE = 500  # rows a read transaction: well under a second
NEWEST = (1 << 63) - 1  # no sequence number is beyond it


# The columns of a decision that are long, and what stands in their place where they are not read.
_LONG = dict.fromkeys(("generation", "prompt_ids", "bare_ids", "choices"), "NULL") | {"context": "x''"}
_SKETCHED = ", ".join(_LONG.get(name, name) for name in DECISIONS.names())
# A session's decisions by their own index, before or after one of them: the signs keep SQLite from reading all that the
# policy ever decided, and rows are numbered in the order of the journal, so that it need not read the others either.
_ROW = "(SELECT rowid FROM decisions WHERE tenant=?1 AND policy=?3 AND seq=?4)"
_IN_SESSION = "WHERE tenant=?1 AND session=?2 AND +policy=?3"
_BEFORE = f"{_IN_SESSION} AND +seq<?4 AND rowid<IFNULL({_ROW}, {NEWEST})"
_AFTER = f"{_IN_SESSION} AND +seq>?4 AND rowid>IFNULL({_ROW}, 0)"
_SKETCH = f"SELECT {_SKETCHED} FROM decisions "
_OF_SESSION = OUTCOMES.select("WHERE tenant=? AND session=? AND +policy=? AND decision IS NULL")


class Place(NamedTuple):
    """Where a decision is, and whose."""

    seq: int
    id: str
    policy: str
    user: str | None
    session: str | None


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

    def of_session(
        self, tenant: str, policy: str, *, session: str, after: int, until_ms: int, limit: int = PAGE
    ) -> list[Stored]:
        """A session's next decisions by a language policy after a sequence number and up to a time, in order, without
        what was read and written."""
        where = f"{_AFTER} AND at_ms<=?5 ORDER BY seq LIMIT ?6"
        args = (tenant, session, policy, after, until_ms, limit)
        return [row_decision(row) for row in self._db().execute(_SKETCH + where, args)]

    def told_before(self, tenant: str, policy: str, *, session: str, before: int) -> list[Json]:
        """What a session's decisions before a sequence number journaled of their coins, each once."""
        sql = f"SELECT DISTINCT extra FROM decisions {_BEFORE} AND extra IS NOT NULL"
        rows = self._db().execute(sql, (tenant, session, policy, before))
        return [dict(loads(str(row[0]))) for row in rows]

    def was_compared(
        self, tenant: str, policy: str, *, session: str, versions: tuple[str, str | None, str | None], before: int
    ) -> bool:
        """Whether a coin chose among these versions (champion, challenger, replaced) in a session before a sequence
        number. The newest decisions are looked at first: mostly they are among the same."""
        named = ("champion", "challenger", "replaced")
        same = " AND ".join(f"json_extract(extra, '$.{name}') IS ?{n}" for n, name in enumerate(named, start=5))
        sql = (
            f"SELECT 1 FROM decisions {_BEFORE} AND json_type(extra, '$.chances')='object' AND {same} "
            "ORDER BY rowid DESC LIMIT 1"
        )
        return self._db().execute(sql, (tenant, session, policy, before, *versions)).fetchone() is not None

    def places(
        self, tenant: str, policy: str, *, user: str | None = None, session: str | None = None,
        before: int = NEWEST, limit: int = PAGE,
    ) -> list[Place]:  # fmt: skip
        """Where the newest decisions before a sequence number are, newest first: of a session, else of a person, else
        of a policy. A session's and a person's are of every policy, and a session's of everybody: the index that finds
        them knows no more, and what is left out here would be walked past without an end."""
        column, value = ("session", session) if session is not None else ("user", user)
        if value is None:
            where, args = "WHERE tenant=? AND policy=? AND seq<? ORDER BY seq DESC LIMIT ?", (tenant, policy)
        else:
            # Rows are appended: the index, whose entries end with the row's number, has them in order of seq.
            where, args = f"WHERE tenant=? AND {column}=? AND seq<? ORDER BY rowid DESC LIMIT ?", (tenant, value)
        sql = f"SELECT seq, id, policy, user, session FROM decisions {where}"
        return [Place(*row) for row in self._db().execute(sql, (*args, before, limit))]

    def text(self, tenant: str, policy: str, seq: int) -> tuple[Stored, int] | None:
        """A language policy's decision without its tokens, and how many bytes the journal holds of what was read and
        written; None where it was erased."""
        columns = f"{_SKETCHED}, generation, octet_length(generation)"
        sql = f"SELECT {columns} FROM decisions WHERE tenant=? AND policy=? AND seq=?"
        row = self._db().execute(sql, (tenant, policy, seq)).fetchone()
        if row is None:
            return None
        sketch = row_decision(row[:-2])
        return replace(sketch, record=replace(sketch.record, generation=text_of(str(row[-2])))), int(row[-1])

    def told_of(self, stored: Stored, *, whole: bool) -> list[StoredOutcome]:
        """The outcomes of one decision; with ``whole`` also what was said of its session as a whole."""
        db, record = self._db(), stored.record
        rows = list(db.execute(OUTCOMES.select("WHERE tenant=? AND decision=?"), (record.tenant, record.id)))
        if whole and record.session is not None:
            rows += db.execute(_OF_SESSION, (record.tenant, record.session, record.policy))
        return [row_outcome(row) for row in rows]

    def told_by(self, tenant: str, user: str, *, outcomes: Sequence[str]) -> set[str]:
        """Which of these outcomes, by their ids, are a person's."""
        found: set[str] = set()
        for at in range(0, len(outcomes), PAGE):
            page = outcomes[at : at + PAGE]
            # The + keeps the index of ids: a person's outcomes are many.
            sql = f"SELECT id FROM outcomes WHERE tenant=? AND +user=? AND id IN ({','.join('?' * len(page))})"
            found.update(str(row[0]) for row in self._db().execute(sql, (tenant, user, *page)))
        return found

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
                    rows = db.execute(_OF_SESSION, (tenant, record.session, record.policy))
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
