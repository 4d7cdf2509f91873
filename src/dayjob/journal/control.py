"""control.db: who serves, who may judge, what was decided. Short transactions from any process.

Promise 6: a rollback is one row. Promise 7: a freeze never stops a rollback. A writer that lost its lease is refused
by its fencing token, inside the same transaction that would have written.
"""

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from dayjob.endings import Fenced, NotFound, Overloaded, PolicyKind, StorageFull, VerdictKind, VersionStatus
from dayjob.journal.columns import CONTROL_TABLES, POINTERS, POLICIES, VERDICTS, VERSIONS
from dayjob.journal.rows import connect, dumps, loads, make_root, open_database
from dayjob.journal.writes import person_mark
from dayjob.records import Json, Lease, Pointers, Policy, Verdict, Version

FULL = "the disk is full: nothing was changed; free some space and try again"
REFUSED = "the disk refuses to be written: nothing was changed; check it and try again"
BUSY = "control.db is held by another process: nothing was changed; try again, and stop that process if it stays"
DISK_ERRORS = (apsw.FullError, apsw.IOError, apsw.CantOpenError, apsw.ReadOnlyError)


class Control:
    """The control store of one data directory; safe to share between threads."""

    def __init__(self, root: Path) -> None:
        make_root(root)
        self.root = root
        self._local = threading.local()
        try:
            self._local.db = open_database(root / "control.db", CONTROL_TABLES)
        except DISK_ERRORS:
            # Opening takes a little room too, and whoever comes to roll back must get in.
            self._free()
            self._local.db = open_database(root / "control.db", CONTROL_TABLES)

    def db(self) -> apsw.Connection:
        """This thread's connection."""
        connection: apsw.Connection | None = getattr(self._local, "db", None)
        if connection is None:
            connection = connect(self.root / "control.db", write=True)
            self._local.db = connection
        return connection

    @contextmanager
    def write(self) -> Iterator[apsw.Connection]:
        """One short transaction. With nothing changed, raises StorageFull when the disk refuses it, and Overloaded when
        another process stands still inside its own."""
        db = self.db()
        try:
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")
        except BaseException as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            if isinstance(error, apsw.BusyError):
                raise Overloaded(BUSY) from error
            if isinstance(error, DISK_ERRORS):
                raise StorageFull(FULL if isinstance(error, apsw.FullError) else f"{REFUSED} ({error})") from error
            raise

    def write_or_free(self, work: Callable[[apsw.Connection], None]) -> None:
        """A write that must succeed on a full disk (a rollback): the ballast is given up for it."""
        try:
            with self.write() as db:
                work(db)
        except StorageFull:
            self._free()
            with self.write() as db:
                work(db)

    def _free(self) -> None:
        (self.root / "ballast").unlink(missing_ok=True)

    def freeze_file(self) -> str:
        """What the file ``freeze`` in the data directory says: "", "champion" or "baseline" (promise 7)."""
        try:
            text = (self.root / "freeze").read_text().strip()
        except OSError:
            return ""
        return "baseline" if text == "baseline" else "champion"

    def change_count(self) -> int:
        """A number that differs once another connection has written: cheap to poll."""
        return int(self.db().pragma("data_version"))

    def secret(self, name: str) -> bytes:
        """A secret of this data directory, made at its first use (32 bytes)."""
        asked = ("SELECT value FROM secrets WHERE name=?", (name,))
        row = self.db().execute(*asked).fetchone()
        if row is None:
            with self.write() as db:
                db.execute("INSERT OR IGNORE INTO secrets (name, value) VALUES (?, ?)", (name, secrets.token_bytes(32)))
                row = db.execute(*asked).fetchone()
        assert row is not None
        return bytes(row[0])

    # policies, versions, pointers

    def create_policy(self, policy: Policy, baseline: Version) -> bool:
        """Add a policy with its baseline, which is its first champion. Whether it was: one that exists stays."""
        with self.write() as db:
            db.execute(
                POLICIES.insert("INSERT OR IGNORE"),
                (policy.tenant, policy.name, policy.kind.value, dumps(policy.spec), policy.created_ms),
            )
            if not db.changes():
                return False
            db.execute(VERSIONS.insert(), version_row(baseline))
            db.execute(POINTERS.insert(), (policy.tenant, policy.name, baseline.name, None, None, baseline.name, "", 1))
        return True

    def update_spec(self, tenant: str, policy: str, spec: Json) -> None:
        """Change a policy's settings (its kind and dimensions never change)."""
        with self.write() as db:
            db.execute("UPDATE policies SET spec=? WHERE tenant=? AND name=?", (dumps(spec), tenant, policy))

    def policies(self, tenant: str | None = None) -> list[Policy]:
        """All policies, or one tenant's."""
        where, args = (
            ("WHERE tenant=? ORDER BY name", (tenant,)) if tenant is not None else ("ORDER BY tenant, name", ())
        )
        return [
            Policy(tenant=row[0], name=row[1], kind=PolicyKind(row[2]), spec=loads(row[3]), created_ms=row[4])
            for row in self.db().execute(POLICIES.select(where), args)
        ]

    def policy(self, tenant: str, name: str) -> Policy:
        """One policy. Raises NotFound."""
        for policy in self.policies(tenant):
            if policy.name == name:
                return policy
        raise NotFound(f"there is no policy {name!r}: create it with PUT /v1/policies/{name}")

    def pointers(self, tenant: str, policy: str) -> Pointers:
        """Which versions serve. Raises NotFound."""
        row = self.db().execute(POINTERS.select("WHERE tenant=? AND policy=?"), (tenant, policy)).fetchone()
        if row is None:
            raise NotFound(f"there is no policy {policy!r}: create it with PUT /v1/policies/{policy}")
        return Pointers(**dict(zip(POINTERS.names(), row, strict=True)))

    def move(
        self, tenant: str, policy: str, *, change: Mapping[str, str | None], generation: int | None = None
    ) -> Pointers:
        """Move pointers (``champion``, ``previous``, ``challenger``, ``frozen``) in one row.

        With ``generation``, only if nobody moved them since: else Fenced.
        """
        names = tuple(change)
        assert set(names) <= {"champion", "previous", "challenger", "frozen"}, names
        sets = ", ".join(f"{name}=?" for name in names)
        fence = "" if generation is None else f" AND generation={generation:d}"

        def work(db: apsw.Connection) -> None:
            db.execute(
                f"UPDATE pointers SET {sets}, generation=generation+1 WHERE tenant=? AND policy=?{fence}",
                (*change.values(), tenant, policy),
            )
            if not db.changes():
                raise Fenced(f"the pointers of {policy!r} were moved by somebody else: read them again")

        self.write_or_free(work)
        return self.pointers(tenant, policy)

    def add_version(self, version: Version) -> None:
        """Register a published version."""
        with self.write() as db:
            db.execute(VERSIONS.insert("INSERT OR IGNORE"), version_row(version))

    def versions(self, tenant: str, policy: str) -> list[Version]:
        """All versions of a policy, oldest first."""
        rows = self.db().execute(VERSIONS.select("WHERE tenant=? AND policy=? ORDER BY number"), (tenant, policy))
        return [row_version(row) for row in rows]

    def version(self, tenant: str, policy: str, name: str) -> Version:
        """One version. Raises NotFound."""
        row = (
            self.db()
            .execute(VERSIONS.select("WHERE tenant=? AND policy=? AND name=?"), (tenant, policy, name))
            .fetchone()
        )
        if row is None:
            policy = policy.partition("/")[0]  # of a person's layer, the policy
            raise NotFound(f"policy {policy!r} has no version {name!r}: GET /v1/policies/{policy}/versions lists them")
        return row_version(row)

    # leases, states, verdicts, series

    def take_lease(self, name: str, holder: str, *, ttl_s: float, must: bool = False) -> Lease | None:
        """Take or renew a lease; None while somebody else holds it. A new holder gets a higher fencing token.

        ``must``: even on a full disk, out of the ballast; for whoever may have to roll back.
        """
        now = int(time.time() * 1000)
        taken: list[Lease] = []

        def work(db: apsw.Connection) -> None:
            row = db.execute("SELECT holder, token, until_ms FROM leases WHERE name=?", (name,)).fetchone()
            # A lease that ends later than any could is from before the clock was set back.
            if row is not None and row[0] != holder and now < int(row[2]) <= now + int(2 * ttl_s * 1000):
                return
            token = 1 if row is None else int(row[1]) + (row[0] != holder)
            until = now + int(ttl_s * 1000)
            db.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?)", (name, holder, token, until))
            taken[:] = [Lease(name=name, holder=holder, token=token, until_ms=until)]

        if must:
            self.write_or_free(work)
        else:
            with self.write() as db:
                work(db)
        return taken[0] if taken else None

    def release_lease(self, lease: Lease) -> None:
        """Give a lease back before its time, if it is still ours."""
        with self.write() as db:
            db.execute("UPDATE leases SET until_ms=0 WHERE name=? AND token=?", (lease.name, lease.token))

    @contextmanager
    def fenced(self, lease: Lease) -> Iterator[apsw.Connection]:
        """One transaction that holds only while the lease does: evidence and its cursor commit together, or not."""
        with self.write() as db:
            check_lease(db, lease)
            yield db

    def state(self, tenant: str, policy: str, name: str) -> Json | None:
        """A process's saved state, None before the first."""
        row = (
            self.db()
            .execute("SELECT state FROM states WHERE tenant=? AND policy=? AND name=?", (tenant, policy, name))
            .fetchone()
        )
        return None if row is None else dict(loads(str(row[0])))

    def verdicts(self, tenant: str, policy: str, *, challenger: str | None = None, limit: int = 100) -> list[Verdict]:
        """The newest verdicts, of everyone or on one challenger, oldest of them first."""
        only, of = ("", ()) if challenger is None else (" AND challenger=?", (challenger,))
        where = f"WHERE tenant=? AND policy=?{only} ORDER BY n DESC LIMIT ?"
        rows = self.db().execute(VERDICTS.select(where), (tenant, policy, *of, limit))
        return [
            Verdict(
                tenant=row[0], policy=row[1], challenger=row[3], champion=row[4], kind=VerdictKind(row[5]),
                reason=row[6], evidence=loads(row[7]), at_ms=row[8], by=row[9],
            )
            for row in rows
        ][::-1]  # fmt: skip

    def series(self, tenant: str, policy: str, name: str, *, limit: int = 2000) -> list[Json]:
        """The newest points of a named series, oldest of them first."""
        rows = self.db().execute(
            "SELECT point FROM series WHERE tenant=? AND policy=? AND name=? ORDER BY n DESC LIMIT ?",
            (tenant, policy, name, limit),
        )
        return [dict(loads(str(row[0]))) for row in rows][::-1]

    def learns(self, tenant: str, user: str) -> bool:
        """Whether a person lets us learn from them (the default)."""
        row = self.db().execute("SELECT learn FROM people WHERE tenant=? AND user=?", (tenant, user)).fetchone()
        return (tenant, self.mark_of(tenant, user)) not in self.silent_marks() if row is None else bool(row[0])

    def set_learns(self, tenant: str, user: str, learn: bool) -> None:
        """Record a person's wish, in place of one that outlived their erasure."""
        mark = self.mark_of(tenant, user)
        with self.write() as db:
            db.execute("INSERT OR REPLACE INTO people VALUES (?, ?, ?)", (tenant, user, int(learn)))
            db.execute("DELETE FROM silent_marks WHERE tenant=? AND mark=?", (tenant, mark))

    def forget(self, tenant: str, user: str) -> None:
        """Drop a person's name; the log file is emptied, so that it does not stay there either.

        A wish not to be learned from stays under their keyed mark: who comes back need not say it again.
        """
        mark = self.mark_of(tenant, user)
        with self.write() as db:
            db.execute(
                "INSERT OR IGNORE INTO silent_marks SELECT tenant, ? FROM people WHERE tenant=? AND user=? AND learn=0",
                (mark, tenant, user),
            )
            db.execute("DELETE FROM people WHERE tenant=? AND user=?", (tenant, user))
        try:
            self.db().wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.Error as error:
            raise StorageFull(f"the log file could not be emptied ({error}): try the erasure again") from error

    def silent_people(self) -> set[tuple[str, str]]:
        """The people, as (tenant, user), that are served but never learned from."""
        return {
            (str(row[0]), str(row[1])) for row in self.db().execute("SELECT tenant, user FROM people WHERE learn=0")
        }

    def silent_marks(self) -> set[tuple[str, bytes]]:
        """The same of people who were erased since, as (tenant, keyed mark)."""
        return {(str(row[0]), row[1]) for row in self.db().execute("SELECT tenant, mark FROM silent_marks")}

    def mark_of(self, tenant: str, user: str) -> bytes:
        """The keyed mark under which the journal remembers an erased person."""
        return person_mark(self.secret("journal"), tenant, user)

    def taught_by(self, tenant: str, mark: bytes) -> list[tuple[str, str]]:
        """The versions, as (policy, version), that learned from the person of this keyed mark."""
        rows = self.db().execute("SELECT policy, version FROM lessons WHERE tenant=? AND mark=?", (tenant, mark))
        return [(str(row[0]), str(row[1])) for row in rows]


def check_lease(db: apsw.Connection, lease: Lease) -> None:
    """Inside a transaction: raises Fenced when a newer process took the lease."""
    row = db.execute("SELECT token FROM leases WHERE name=?", (lease.name,)).fetchone()
    if row is None or row[0] != lease.token:
        raise Fenced(f"the lease {lease.name!r} was taken by a newer process; this one stops")


def put_status(db: apsw.Connection, tenant: str, policy: str, *, name: str, status: VersionStatus) -> None:
    """Say where a version stands, inside a transaction: the baseline and the tainted stand where they stand."""
    db.execute(
        "UPDATE versions SET status=? WHERE tenant=? AND policy=? AND name=? AND number>0 AND status<>?",
        (status.value, tenant, policy, name, VersionStatus.TAINTED.value),
    )


def put_taught(db: apsw.Connection, tenant: str, policy: str, *, version: str, marks: Sequence[bytes]) -> None:
    """Record inside a transaction whose outcomes a version learned from, as keyed marks."""
    rows = [(tenant, policy, version, mark) for mark in marks]
    db.executemany("INSERT OR IGNORE INTO lessons VALUES (?, ?, ?, ?)", rows)


def put_state(db: apsw.Connection, tenant: str, policy: str, *, name: str, state: Json) -> None:
    """Save a process's state inside a transaction."""
    db.execute(
        "INSERT OR REPLACE INTO states VALUES (?, ?, ?, ?, ?)",
        (tenant, policy, name, dumps(state), int(time.time() * 1000)),
    )


def add_verdict(db: apsw.Connection, verdict: Verdict) -> None:
    """Append a verdict inside a transaction."""
    db.execute(
        "INSERT INTO verdicts SELECT ?1, ?2, COALESCE(MAX(n), 0) + 1, ?3, ?4, ?5, ?6, ?7, ?8, ?9 "
        "FROM verdicts WHERE tenant=?1 AND policy=?2",
        (
            verdict.tenant, verdict.policy, verdict.challenger, verdict.champion, verdict.kind.value, verdict.reason,
            dumps(verdict.evidence), verdict.at_ms, verdict.by,
        ),
    )  # fmt: skip


def add_point(db: apsw.Connection, tenant: str, policy: str, *, name: str, point: Json) -> None:
    """Append a point to a named series inside a transaction."""
    db.execute(
        "INSERT INTO series SELECT ?1, ?2, ?3, COALESCE(MAX(n), 0) + 1, ?4 FROM series "
        "WHERE tenant=?1 AND policy=?2 AND name=?3",
        (tenant, policy, name, dumps(point)),
    )


def version_row(version: Version) -> tuple[Any, ...]:
    """The row of a version, in the order of columns.VERSIONS."""
    return (
        version.tenant, version.policy, version.name, version.number, version.parent, version.recipe, version.digest,
        version.from_seq, version.to_seq, version.status.value, version.created_ms, dumps(version.detail),
    )  # fmt: skip


def row_version(row: tuple[Any, ...]) -> Version:
    """A version from its row."""
    return Version(
        tenant=row[0], policy=row[1], name=row[2], number=row[3], parent=row[4], recipe=row[5], digest=row[6],
        from_seq=row[7], to_seq=row[8], status=VersionStatus(row[9]), created_ms=row[10], detail=loads(row[11]),
    )  # fmt: skip
