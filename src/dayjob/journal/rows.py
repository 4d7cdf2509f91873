"""Records to rows and back: one function each way for each table, and the database settings both files share."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw
import orjson

from dayjob.endings import Damaged, OutcomeKind, PolicyKind, Role, SchemaMismatch
from dayjob.journal.columns import SCHEMA_VERSION, Table
from dayjob.journal.generations import generation_columns, row_generation
from dayjob.records import Candidate, Decision, Json, Outcome, Stored, StoredOutcome

Row = tuple[Any, ...]
BUSY_MS = 5_000
PAGE_BYTES = 16_384  # a page holds fifteen float16 vectors of 512 numbers; with 4 KiB pages a third of it is lost


def dumps(value: Any) -> str:
    """JSON text with sorted keys: equal values, equal bytes."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY).decode()


def loads(text: str | None) -> Any:
    """The value of JSON text; None for NULL."""
    return None if text is None else orjson.loads(text)


def connect(path: Path, *, write: bool) -> apsw.Connection:
    """Open a database of ours: WAL, every commit synced (``FULL``), deleted bytes overwritten."""
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE if write else apsw.SQLITE_OPEN_READONLY
    connection = apsw.Connection(str(path), flags=flags)
    connection.set_busy_timeout(BUSY_MS)
    if write:
        connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA secure_delete=ON")
    connection.execute("PRAGMA temp_store=MEMORY")
    return connection


def make_root(root: Path) -> None:
    """Make a data directory, its name durable in each parent: a journal in a lost directory is a lost journal.

    A directory that this makes is its owner's alone: control.db holds the secrets that sign tokens and seeds.
    """
    missing = [part for part in (root, *root.parents) if not part.exists()]
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    for part in missing:
        descriptor = os.open(part.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def open_database(path: Path, tables: tuple[Table, ...]) -> apsw.Connection:
    """Open a database of ours for writing, at this schema.

    Raises SchemaMismatch when a newer program wrote it: then it was only read, and not a byte of it is changed.
    """
    if path.exists():
        reading = connect(path, write=False)
        try:
            _check_schema(reading)
        finally:
            reading.close()
    connection = connect(path, write=True)
    try:
        _migrate(connection, tables)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_schema(connection: apsw.Connection) -> int:
    found = int(connection.pragma("user_version"))
    if found > SCHEMA_VERSION:
        raise SchemaMismatch(
            f"this data directory has schema {found}, this program knows {SCHEMA_VERSION}: upgrade dayjob, or restore "
            "a backup taken with this version"
        )
    return found


def _migrate(connection: apsw.Connection, tables: tuple[Table, ...]) -> None:
    """Bring a database to this schema, whole or not at all. Another process may be at it too."""
    if _check_schema(connection) == SCHEMA_VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = _check_schema(connection)
        for version in range(found, SCHEMA_VERSION) if found else ():
            for table in tables:
                for statement in MIGRATIONS.get(version, {}).get(table.name, ()):
                    connection.execute(statement)
        for table in tables:
            for statement in table.create():
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


# What brings a table of schema N to N + 1, before the tables of the present schema are created where they are missing.
# A database that is being made has schema 0, and nothing to bring anywhere.
MIGRATIONS: dict[int, dict[str, tuple[str, ...]]] = {
    1: {"jobs": ("ALTER TABLE jobs ADD COLUMN until_seq INTEGER",)},
    2: {
        "decisions": (
            "ALTER TABLE decisions ADD COLUMN generation TEXT",
            "ALTER TABLE decisions ADD COLUMN prompt_ids BLOB",
            "ALTER TABLE decisions ADD COLUMN bare_ids BLOB",
            "ALTER TABLE decisions ADD COLUMN choices BLOB",
        )
    },
}


def decision_row(seq: int, d: Decision) -> Row:
    """The row of a decision, in the order of columns.DECISIONS."""
    return (
        d.tenant, d.policy, seq, d.id, d.body_digest, d.user, d.session, d.at_ms, d.version, d.challenger,
        d.role.value, d.role_propensity, int(d.explore), d.seed.to_bytes(8, "little"), d.epsilon, d.temperature,
        int(d.intervened), d.coin, orjson.dumps([c.id for c in d.candidates]).decode(),
        b"".join(c.digest for c in d.candidates), d.pair, d.base, d.score, d.rival_score, d.ranking, d.propensity,
        d.log_propensity, dumps(d.extra) if d.extra else None, d.context, *generation_columns(d.generation),
    )  # fmt: skip


def row_decision(row: Row) -> Stored:
    """A decision from its row."""
    ids, digests = orjson.loads(row[18]), row[19]
    if len(digests) != 16 * len(ids):
        raise Damaged(f"decision {row[3]} names {len(ids)} candidates but {len(digests) // 16} vectors")
    record = Decision(
        tenant=row[0], policy=row[1], id=row[3], body_digest=row[4], user=row[5], session=row[6], at_ms=row[7],
        version=row[8], challenger=row[9], role=Role(row[10]), role_propensity=row[11], explore=bool(row[12]),
        seed=int.from_bytes(row[13], "little"), epsilon=row[14], temperature=row[15], intervened=bool(row[16]),
        coin=row[17],
        candidates=tuple(Candidate(id=i, digest=digests[16 * n : 16 * n + 16]) for n, i in enumerate(ids)),
        pair=row[20], base=row[21], score=row[22], rival_score=row[23], ranking=row[24], propensity=row[25],
        log_propensity=row[26], extra=loads(row[27]) or {}, context=row[28], generation=row_generation(row[29:33]),
    )  # fmt: skip
    return Stored(seq=row[2], record=record)


def outcome_row(seq: int, o: Outcome) -> Row:
    """The row of an outcome, in the order of columns.OUTCOMES and HELD."""
    return (
        o.tenant, o.policy, seq, o.id, o.body_digest, o.decision, o.session, o.kind.value, o.item, o.position,
        None if o.value is None else dumps(o.value), o.text, o.source, o.user, o.at_ms, o.received_ms, o.key_id,
    )  # fmt: skip


def row_outcome(row: Row) -> StoredOutcome:
    """An outcome from its row."""
    record = Outcome(
        tenant=row[0], policy=row[1], id=row[3], body_digest=row[4], decision=row[5], session=row[6],
        kind=OutcomeKind(row[7]), item=row[8], position=row[9], value=loads(row[10]), text=row[11], source=row[12],
        user=row[13], at_ms=row[14], received_ms=row[15], key_id=row[16],
    )  # fmt: skip
    return StoredOutcome(seq=row[2], record=record)


def shown_ids(kind: PolicyKind, known: Sequence[str], *, ranking: bytes) -> list[str]:
    """The ids shown, first to last: of the candidates ``known``, or the numbers of a language policy's choices.

    ``ranking`` is R little-endian uint16 slots.
    """
    slots = memoryview(ranking).cast("H")
    return [str(slot) for slot in slots] if kind is PolicyKind.LANGUAGE else [known[slot] for slot in slots]


def as_json(value: Any) -> Json:
    """A dict or an error: for values that must be JSON objects."""
    if not isinstance(value, dict):
        raise Damaged(f"expected a JSON object, found {type(value).__name__}")
    return value
