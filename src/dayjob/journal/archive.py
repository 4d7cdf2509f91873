"""A policy's record as NDJSON that another data directory can take in: decisions, outcomes, vectors, the catalog.

One object a line: ``{"policy"}`` first, then the catalog, then decisions and outcomes in the order of the journal,
each vector before the first line that needs it, ``{"end"}`` with the counts last, so that a file cut short is known.
Bytes are base64. Weights are not in it: from the same record, the same versions are learned.

Taking in keeps promise 2 (an id that is there already is left as it is) and promise 8 (what was erased stays erased).
"""

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from heapq import merge
from pathlib import Path
from typing import TypeVar, get_type_hints

import apsw
import orjson

from dayjob.endings import Conflict, Damaged, Invalid, PolicyKind
from dayjob.journal import vectors
from dayjob.journal.checks import check_decision, check_outcome, check_policy, check_vector
from dayjob.journal.columns import DECISIONS, OUTCOMES, Table
from dayjob.journal.generations import generation_of, plain_generation
from dayjob.journal.readers import PAGE, Reader
from dayjob.journal.rows import connect, decision_row, outcome_row, row_decision, row_outcome
from dayjob.journal.writes import ADD_DECISION, ADD_OUTCOME, Transaction, put_vectors
from dayjob.records import Candidate, CatalogItem, Decision, Json, Outcome, Policy, Stored, StoredOutcome

FORMAT = 1
CHECKED = (str, int, float, bool)  # what JSON can get wrong without anybody noticing
REMEDY = "make it anew with `dayjob export POLICY --format journal`"
Record = Stored | StoredOutcome


def write(root: Path, policy: Policy, *, silent: Iterable[str]) -> Iterator[bytes]:
    """The lines of a policy's archive, oldest record first. Works while a server writes.

    ``silent``: people of its tenant who are not learned from, wherever their record goes.
    """
    reader, tenant, written = Reader(root), policy.tenant, set[bytes]()
    until = reader.last_seq()  # what is written meanwhile is for the next archive: no outcome without its decision
    db = connect(root / "journal.db", write=False)
    head = {"format": FORMAT, "name": policy.name, "kind": policy.kind.value, "spec": policy.spec,
            "created_ms": policy.created_ms, "silent": sorted(silent)}  # fmt: skip
    yield _line("policy", head)
    ids, digests, metas = reader.catalog(tenant, policy.name)
    yield from _vectors(db, tenant, digests, written=written)
    for item, digest, meta in zip(ids, digests, metas, strict=True):
        yield _line("item", {"id": item, "digest": _text(digest), "meta": meta})
    counts = {"decisions": 0, "outcomes": 0}
    for stored in merge(
        _all(db, DECISIONS, policy, until=until), _all(db, OUTCOMES, policy, until=until), key=lambda one: one.seq
    ):
        if isinstance(stored, Stored):
            yield from _vectors(db, tenant, [c.digest for c in stored.record.candidates], written=written)
        kind = "decision" if isinstance(stored, Stored) else "outcome"
        counts[f"{kind}s"] += 1
        yield _line(kind, {"seq": stored.seq} | _plain(stored.record))
    yield _line("end", counts)
    db.close()


def _all(db: apsw.Connection, table: Table, policy: Policy, *, until: int) -> Iterator[Record]:
    """A policy's rows of one table, in pages: no read transaction stays open while somebody reads slowly."""
    seq = 0
    select = table.select("WHERE tenant=? AND policy=? AND seq>? AND seq<=? ORDER BY seq LIMIT ?")
    while rows := db.execute(select, (policy.tenant, policy.name, seq, until, PAGE)).fetchall():
        for row in rows:
            yield row_decision(row) if table is DECISIONS else row_outcome(row)
        seq = int(str(rows[-1][2]))


def _vectors(db: apsw.Connection, tenant: str, digests: Sequence[bytes], *, written: set[bytes]) -> Iterator[bytes]:
    for digest in dict.fromkeys(digests):
        if digest in written:
            continue
        written.add(digest)
        row = db.execute("SELECT vector FROM vectors WHERE tenant=? AND digest=?", (tenant, digest)).fetchone()
        if row is None:
            raise Damaged("a candidate's vector is missing from the journal: restore it from a backup")
        yield _line("vector", {"bytes": _text(row[0])})


def _line(kind: str, body: Json) -> bytes:
    return orjson.dumps({kind: body}) + b"\n"


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _plain(record: Decision | Outcome) -> Json:
    """A record as JSON holds it: bytes as base64, candidates as [id, digest]."""
    out: Json = {}
    for each in fields(record):
        value = getattr(record, each.name)
        if each.name == "candidates":
            value = [[one.id, _text(one.digest)] for one in value]
        elif each.name == "generation":
            value = plain_generation(value)
        elif isinstance(value, bytes):
            value = _text(value)
        out[each.name] = value
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One archived record, with the vectors that it needs and none before it did."""

    stored: Record
    blobs: tuple[bytes, ...] = ()


@dataclass(slots=True)
class Archive:
    """An archive as far as it was read; ``policy``, ``silent`` and ``items`` are whole before the first entry."""

    tenant: str
    policy: Policy | None = None
    silent: tuple[str, ...] = ()  # people who are not learned from
    items: list[CatalogItem] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: {"decisions": 0, "outcomes": 0})
    known: set[bytes] = field(default_factory=set)  # digests of the vectors so far
    fresh: dict[bytes, bytes] = field(default_factory=dict)  # those that no entry has taken yet
    names: dict[str, str] = field(default_factory=dict)  # of candidates, each kept once
    shown: dict[str, tuple[tuple[str, ...], bytes]] = field(default_factory=dict)  # (candidates, ranking) by decision
    last: int = 0
    ended: bool = False

    def entries(self, lines: Iterable[bytes]) -> Iterator[Entry]:
        """Read on; the records in their order.

        Raises Invalid, with the line's number, for anything that is not an archive, or not all of one.
        """
        number = 0
        for number, line in enumerate(lines, start=1):
            try:
                entry = self._take(line)
            except (ValueError, KeyError, TypeError) as error:
                raise Invalid(f"line {number} is not a line of an archive ({_reason(error)}); {REMEDY}") from None
            if entry is not None:
                yield entry
        if not self.ended:
            raise Invalid(f"the archive ends early, after line {number}: it was cut short; {REMEDY}")

    def _take(self, line: bytes) -> Entry | None:
        found = orjson.loads(line)
        if not isinstance(found, dict) or len(found) != 1 or self.ended:
            raise ValueError("one object with one name is expected" if not self.ended else "it follows the end")
        [(kind, body)] = found.items()
        if (kind == "policy") is not (self.policy is None):
            raise ValueError("an archive begins with its policy, once")
        match kind:
            case "policy":
                self.policy = _policy(body, self.tenant)
                self.silent = tuple(str(user) for user in body["silent"])
            case "vector":
                blob = base64.b64decode(body["bytes"], validate=True)
                assert self.policy is not None, "the first line"
                check_vector(blob, self.policy.spec)
                self.fresh[vectors.digest(blob)] = blob
                self.known.add(vectors.digest(blob))
            case "item":
                self._add_item(body)
            case "decision" | "outcome":
                return self._entry(kind, body)
            case "end":
                if body != self.counts:
                    raise ValueError(f"it counts {body}, and there were {self.counts}")
                self.ended = True
            case _:
                raise ValueError(f"{kind!r} is no kind of line")
        return None

    def _add_item(self, body: Json) -> None:
        if self.last:
            raise ValueError("the catalog comes before the records")
        blob = self.fresh[base64.b64decode(body["digest"], validate=True)]
        self.items.append(CatalogItem(id=str(body["id"]), vector=blob, meta=body["meta"]))

    def _entry(self, kind: str, body: Json) -> Entry:
        assert self.policy is not None, "the first line"
        seq = int(body.pop("seq"))
        if seq <= self.last:
            raise ValueError("its place in the journal is not after the line before")
        about = {"tenant": self.tenant, "policy": self.policy.name}
        stored: Record
        if kind == "decision":
            # Archives of rankers that were made before there were language policies have no such field.
            decision = _record(Decision, {"generation": None} | body | about)
            missing = [c.id for c in decision.candidates if c.digest not in self.known]
            if missing:
                raise ValueError(f"the vector of candidate {missing[0]!r} is missing")
            decision_row(seq, decision)
            if self.policy.kind is PolicyKind.RANKER:
                check_decision(decision, self.policy.spec)
            ids = tuple([self.names.setdefault(c.id, c.id) for c in decision.candidates])
            self.shown[decision.id] = ids, decision.ranking
            stored = Stored(seq=seq, record=decision)
        else:
            outcome = _record(Outcome, body | about)
            if outcome.decision is not None and outcome.decision not in self.shown:
                raise ValueError(f"it speaks of {outcome.decision}, which no line before it tells of")
            told_of = None if outcome.decision is None else self.shown[outcome.decision]
            check_outcome(outcome, self.policy.kind, spec=self.policy.spec, told_of=told_of)
            stored = StoredOutcome(seq=seq, record=outcome)
        blobs, self.fresh, self.last = tuple(self.fresh.values()), {}, seq
        self.counts[f"{kind}s"] += 1
        return Entry(stored=stored, blobs=blobs)


R = TypeVar("R", Decision, Outcome)


def _record(of: type[R], body: Json) -> R:
    """The inverse of `_plain`. Raises ValueError, TypeError or KeyError for what is no such record."""
    hints = get_type_hints(of)
    if set(body) != set(hints):
        odd = sorted(set(body) ^ set(hints))
        raise ValueError(f"{odd[0]!r} is missing or was added")
    values: Json = {}
    for name, hint in hints.items():
        value = body[name]
        if name == "candidates":
            value = tuple(Candidate(id=str(one), digest=base64.b64decode(text, validate=True)) for one, text in value)
        elif name == "generation":
            value = generation_of(value)
        elif hint is bytes:
            value = base64.b64decode(value, validate=True)
        elif isinstance(hint, type) and issubclass(hint, StrEnum):
            value = hint(value)
        elif hint in CHECKED and not isinstance(value, (int, float) if hint is float else hint):
            raise ValueError(f"{name!r} is {value!r}")
        values[name] = value
    return of(**values)


def _policy(body: Json, tenant: str) -> Policy:
    if body.get("format") != FORMAT:
        raise ValueError(f"it has format {body.get('format')!r}, and this program knows {FORMAT}")
    policy = Policy(
        tenant=tenant, name=str(body["name"]), kind=PolicyKind(body["kind"]), spec=dict(body["spec"]),
        created_ms=int(body["created_ms"]),
    )  # fmt: skip
    check_policy(policy.name, policy.kind, spec=policy.spec)
    return policy


def _reason(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


@dataclass(slots=True)
class Taken:
    """What became of archived records."""

    added: int = 0
    known: int = 0  # there already
    erased: int = 0  # of someone who was erased here


def take_in(tx: Transaction, entries: Sequence[Entry], *, keep_seq: bool) -> Taken:
    """Write archived records; with ``keep_seq`` each at its own place in the journal, else after what is there.

    Raises Conflict when an id is taken by another body; then nothing of these entries is written.
    """
    taken = Taken()
    for entry in entries:
        record = entry.stored.record
        tenant = record.tenant
        put_vectors(tx, tenant, [vectors.digest(blob) for blob in entry.blobs], entry.blobs)
        about = None if isinstance(record, Decision) else record.decision
        if tx.erased(tenant, "id", record.id) or (about is not None and tx.erased(tenant, "id", about)):
            taken.erased += 1
            continue
        table = "decisions" if isinstance(record, Decision) else "outcomes"
        row = tx.db.execute(f"SELECT body_digest FROM {table} WHERE tenant=? AND id=?", (tenant, record.id)).fetchone()
        if row is not None:
            if row[0] != record.body_digest:
                raise Conflict(f"{record.id} is in this journal with another body: take the archive into another one")
            taken.known += 1
            continue
        if keep_seq:
            tx.seq = entry.stored.seq
        seq = tx.seq if keep_seq else tx.next_seq()
        if isinstance(record, Decision):
            tx.db.execute(ADD_DECISION, decision_row(seq, record))
            tx.counts[tenant, record.policy, "decisions"] += 1
        else:
            tx.db.execute(ADD_OUTCOME, outcome_row(seq, record))
            tx.counts[tenant, record.policy, record.kind.value] += 1
        taken.added += 1
    return taken
