"""What happens inside one write of the journal's transaction. Runs in the writer thread only.

Promise 2, one id, one effect: uniqueness is decided here, inside the transaction, and a refused write leaves nothing.
"""

import functools
import hmac
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import apsw

from dayjob.endings import OutcomeKind, PolicyKind, Receipt
from dayjob.journal import vectors
from dayjob.journal.columns import CATALOGS, DECISIONS, HELD, OUTCOMES
from dayjob.journal.join import fit
from dayjob.journal.rows import Row, decision_row, dumps, loads, outcome_row, row_decision, row_outcome, shown_ids
from dayjob.records import CatalogItem, Decision, Json, Outcome, Written

FindSpec = Callable[[str, str], tuple[PolicyKind, Json]]
"""(tenant, policy) -> its kind and declaration; raises NotFound."""


# Written out once: making the text anew for each write took a tenth of its time. Few looks, each at many things: every
# statement hands the interpreter to the other threads and has to wait for it again. A join would plan for longer than
# it looks.
FIND_DECISION = DECISIONS.select("WHERE tenant=? AND id=?")
BEFORE_DECISION = (
    "SELECT (SELECT 1 FROM tombstones WHERE tenant=?1 AND mark=?4), "
    "(SELECT 1 FROM decisions WHERE tenant=?1 AND id=?2), "
    "EXISTS (SELECT 1 FROM held WHERE tenant=?1 AND decision=?2) "
    "OR EXISTS (SELECT 1 FROM held WHERE tenant=?1 AND session=?3 AND decision IS NULL)"
)
BEFORE_OUTCOME = (
    "SELECT (SELECT 1 FROM tombstones WHERE tenant=?1 AND mark=?3), (SELECT 1 FROM tombstones WHERE tenant=?1 AND "
    "mark=?4), (SELECT seq FROM outcomes WHERE tenant=?1 AND id=?2), (SELECT seq FROM held WHERE tenant=?1 AND id=?2)"
)
DECISION_OF = (
    "SELECT policy, user, candidate_ids, ranking, (SELECT COUNT(*) FROM outcomes WHERE tenant=?1 AND decision=?2) "
    "FROM decisions WHERE tenant=?1 AND id=?2"
)
SESSION_OF = (
    "SELECT policy, user, (SELECT COUNT(*) FROM outcomes WHERE tenant=?1 AND session=?2 AND decision IS NULL) "
    "FROM decisions WHERE tenant=?1 AND session=?2 ORDER BY seq DESC LIMIT 1"
)
# Two searches of an index each: an OR would read all that is held, for every decision.
FIND_HELD = (
    HELD.select("WHERE tenant=?1 AND decision=?2 UNION ALL ")
    + HELD.select("WHERE tenant=?1 AND session=?3 AND decision IS NULL ORDER BY seq")
)  # fmt: skip
ADD_DECISION, ADD_OUTCOME = DECISIONS.insert(), OUTCOMES.insert()
ADD_VECTOR = "INSERT OR IGNORE INTO vectors (tenant, digest, vector) VALUES "
MOST_OUTCOMES = 100  # of one decision, and of one session as a whole; as many retractions again
AT_ONCE = 32  # vectors in one statement
GONE = Written(receipt=Receipt.ERASED, seq=0, message="this id was erased and cannot be used again")
OTHER_BODY = "this id was used with another body"


@dataclass(slots=True, kw_only=True)
class Transaction:
    """One open transaction: the connection, the next sequence number and what the commit will add to the counts."""

    db: apsw.Connection
    seq: int
    secret: bytes
    find_spec: FindSpec
    held_per_key: int
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def next_seq(self) -> int:
        """The next place in the journal."""
        self.seq += 1
        return self.seq

    def mark(self, tenant: str, what: str, name: str) -> bytes:
        """The keyed hash under which an erased id or person is remembered."""
        return keyed_mark(self.secret, tenant, what=what, name=name)

    def erased(self, tenant: str, what: str, name: str) -> bool:
        """Whether that id was erased."""
        row = self.db.execute(
            "SELECT 1 FROM tombstones WHERE tenant=? AND mark=?", (tenant, self.mark(tenant, what, name))
        ).fetchone()
        return row is not None


def keyed_mark(secret: bytes, tenant: str, *, what: str, name: str) -> bytes:
    """The 16-byte keyed hash of a name: it finds the name again, and says nothing about it without the secret."""
    return hmac.digest(secret, f"{tenant}\0{what}\0{name}".encode(), "sha256")[:16]


def person_mark(secret: bytes, tenant: str, user: str) -> bytes:
    """The mark under which versions remember who taught them."""
    return keyed_mark(secret, tenant, what="user", name=user)


def append_decision(tx: Transaction, decision: Decision, blobs: Sequence[bytes]) -> Written:
    """Append a decision with its candidates' encoded vectors (K of them, or none for catalog items)."""
    tenant = decision.tenant
    names = (tenant, decision.id, decision.session, tx.mark(tenant, "id", decision.id))
    erased, known, held = _look(tx, BEFORE_DECISION, names)
    if erased:
        return GONE
    if known:
        first = row_decision(_look(tx, FIND_DECISION, (tenant, decision.id)))
        if first.record.body_digest == decision.body_digest:
            return Written(receipt=Receipt.REPEATED, seq=first.seq, first=first.record)
        return Written(receipt=Receipt.CONFLICT, seq=first.seq, message=OTHER_BODY)
    if blobs:
        put_vectors(tx, tenant, [c.digest for c in decision.candidates], blobs)
    seq = tx.next_seq()
    tx.db.execute(ADD_DECISION, decision_row(seq, decision))
    tx.counts[tenant, decision.policy, "decisions"] += 1
    if held:
        _release(tx, decision)
    return Written(receipt=Receipt.RECORDED, seq=seq)


def _look(tx: Transaction, sql: str, names: Row) -> Row:
    """The row of a statement that always finds one."""
    row: Row | None = tx.db.execute(sql, names).fetchone()
    assert row is not None, sql
    return row


def put_vectors(tx: Transaction, tenant: str, digests: Sequence[bytes], blobs: Sequence[bytes]) -> None:
    """Keep vectors, once each."""
    rows = list(zip(digests, blobs, strict=True))
    for at in range(0, len(rows), AT_ONCE):
        some = rows[at : at + AT_ONCE]
        tx.db.execute(_add_vectors(len(some)), (tenant, *(value for row in some for value in row)))


@functools.cache
def _add_vectors(count: int) -> str:
    return ADD_VECTOR + ", ".join(f"(?1, ?{2 * n + 2}, ?{2 * n + 3})" for n in range(count))


def _release(tx: Transaction, decision: Decision) -> None:
    """Move outcomes that came before their decision or session into the journal; what does not fit is dropped."""
    names = (decision.tenant, decision.id, decision.session)
    held = [row_outcome(row) for row in tx.db.execute(FIND_HELD, names)]
    known = [candidate.id for candidate in decision.candidates]
    for outcome in (stored.record for stored in held[:MOST_OUTCOMES]):
        if _foreign(outcome, decision.user):
            continue
        if _misfit(tx, outcome, decision.policy, known=known, ranking=decision.ranking) is None:
            _record(tx, replace(outcome, policy=decision.policy, user=outcome.user or decision.user))
    gone = [(outcome.record.tenant, outcome.record.id) for outcome in held]
    tx.db.executemany("DELETE FROM held WHERE tenant=? AND id=?", gone)


def _foreign(outcome: Outcome, user: str | None) -> bool:
    """Whether a key that speaks for one person speaks of another's decision."""
    return outcome.user is not None and user is not None and outcome.user != user


def _misfit(tx: Transaction, outcome: Outcome, policy: str, *, known: Sequence[str], ranking: bytes) -> str | None:
    """Why an outcome cannot speak of a decision over the candidates ``known``, or of a session, or None when it can."""
    kind, spec = tx.find_spec(outcome.tenant, policy)
    if outcome.decision is None:
        return fit(outcome, kind=kind, shown=(), known=(), spec=spec)
    return fit(outcome, kind=kind, shown=shown_ids(kind, known, ranking=ranking), known=known, spec=spec)


def append_outcome(tx: Transaction, outcome: Outcome) -> Written:
    """Append an outcome; hold it when its decision is not known yet; refuse it when it does not fit."""
    tenant = outcome.tenant
    marks = tx.mark(tenant, "id", outcome.id), outcome.decision and tx.mark(tenant, "id", outcome.decision)
    erased, decision_erased, known, held = _look(tx, BEFORE_OUTCOME, (tenant, outcome.id, *marks))
    if erased or decision_erased:
        return GONE
    if known is not None or held is not None:
        return _again(tx, outcome, table="held" if known is None else "outcomes")
    if outcome.decision is None and outcome.session is None:
        retraction = _retracted(tx, outcome)
        if retraction is None:
            return Written(
                receipt=Receipt.REFUSED,
                seq=0,
                message="there is no outcome of that id: send its decision too, and wait",
            )
        outcome = retraction
    if outcome.decision is None:
        return _append_to_session(tx, outcome)
    row = tx.db.execute(DECISION_OF, (tenant, outcome.decision)).fetchone()
    if row is None:
        return _FOREIGN if _elsewhere(tx, tenant, outcome.decision) else _hold(tx, outcome)
    policy, user, ids, ranking, told = row
    if _foreign(outcome, user):
        return _FOREIGN
    if _is_full(outcome, told):
        return _FULL
    misfit = _misfit(tx, outcome, policy, known=loads(ids), ranking=ranking)
    if misfit is not None:
        return Written(receipt=Receipt.REFUSED, seq=0, message=misfit)
    return _record(tx, replace(outcome, policy=policy, user=outcome.user or user))


def _again(tx: Transaction, outcome: Outcome, *, table: str) -> Written:
    """An id that is known: the same outcome once more, or another one."""
    sql = f"SELECT seq, body_digest FROM {table} WHERE tenant=? AND id=?"
    seq, digest = _look(tx, sql, (outcome.tenant, outcome.id))
    if digest != outcome.body_digest:
        return Written(receipt=Receipt.CONFLICT, seq=seq, message=OTHER_BODY)
    return Written(receipt=Receipt.REPEATED if table == "outcomes" else Receipt.HELD, seq=seq)


def _retracted(tx: Transaction, outcome: Outcome) -> Outcome | None:
    """A retraction that names only the outcome: it speaks of whatever that outcome spoke of."""
    row = tx.db.execute(
        "SELECT decision, session FROM outcomes WHERE tenant=? AND id=?", (outcome.tenant, outcome.value)
    ).fetchone()
    return None if row is None else replace(outcome, decision=row[0], session=row[1] if row[0] is None else None)


def _record(tx: Transaction, outcome: Outcome) -> Written:
    seq = tx.next_seq()
    tx.db.execute(ADD_OUTCOME, outcome_row(seq, outcome))
    tx.counts[outcome.tenant, outcome.policy, outcome.kind.value] += 1
    return Written(receipt=Receipt.RECORDED, seq=seq)


def _append_to_session(tx: Transaction, outcome: Outcome) -> Written:
    """A whole session's outcome belongs to the policy of the session's latest decision."""
    if outcome.kind is OutcomeKind.CLICK or outcome.item is not None or outcome.position is not None:
        return Written(
            receipt=Receipt.REFUSED, seq=0, message="an outcome of a whole session names no item: send its 'decision'"
        )
    row = tx.db.execute(SESSION_OF, (outcome.tenant, outcome.session)).fetchone()
    if row is None:
        return _hold(tx, outcome)
    if _foreign(outcome, row[1]):
        return _FOREIGN
    if _is_full(outcome, row[2]):
        return _FULL
    kind, spec = tx.find_spec(outcome.tenant, row[0])
    misfit = fit(outcome, kind=kind, shown=(), known=(), spec=spec)
    if misfit is not None:
        return Written(receipt=Receipt.REFUSED, seq=0, message=misfit)
    return _record(tx, replace(outcome, policy=row[0], user=outcome.user or row[1]))


def _is_full(outcome: Outcome, told: int) -> bool:
    """Whether enough was said of a decision already: else one key could make every later read of it slow."""
    return told >= MOST_OUTCOMES * (2 if outcome.kind is OutcomeKind.RETRACT else 1)


_FULL = Written(
    receipt=Receipt.REFUSED, seq=0,
    message=f"{MOST_OUTCOMES} outcomes are recorded of it, which is the most: rank again and speak of the new one",
)  # fmt: skip
_FOREIGN = Written(
    receipt=Receipt.FORBIDDEN, seq=0, message="this decision belongs to somebody else: use the key it was made with"
)


def _elsewhere(tx: Transaction, tenant: str, decision: str) -> bool:
    """Whether another tenant has a decision of this id."""
    others = tx.db.execute("SELECT DISTINCT tenant FROM counts WHERE tenant NOT IN ('', ?)", (tenant,)).fetchall()
    return any(
        tx.db.execute("SELECT 1 FROM decisions WHERE tenant=? AND id=?", (other[0], decision)).fetchone() is not None
        for other in others
    )


def _hold(tx: Transaction, outcome: Outcome) -> Written:
    count = tx.db.execute(
        "SELECT COUNT(*) FROM (SELECT 1 FROM held WHERE tenant=? AND key_id=? LIMIT ?)",
        (outcome.tenant, outcome.key_id, tx.held_per_key),
    ).fetchone()
    if count is not None and count[0] >= tx.held_per_key:
        message = (
            f"this key already has {tx.held_per_key} outcomes waiting for decisions that are not known: check the ids"
        )
        return Written(receipt=Receipt.CROWDED, seq=0, message=message)
    seq = tx.next_seq()
    tx.db.execute(HELD.insert(), outcome_row(seq, outcome))
    return Written(receipt=Receipt.HELD, seq=seq)


def expire_held(tx: Transaction, before_ms: int) -> int:
    """Drop held outcomes that waited too long; how many."""
    tx.db.execute("DELETE FROM held WHERE received_ms < ?", (before_ms,))
    return tx.db.changes()


def put_catalog(tx: Transaction, tenant: str, policy: str, *, items: Sequence[CatalogItem]) -> int:
    """Replace a policy's catalog by these items, in their order; how many."""
    tx.db.execute("DELETE FROM catalogs WHERE tenant=? AND policy=?", (tenant, policy))
    digests = [vectors.digest(item.vector) for item in items]
    put_vectors(tx, tenant, digests, [item.vector for item in items])
    tx.db.executemany(
        CATALOGS.insert(),
        [
            (tenant, policy, n, item.id, digest, None if item.meta is None else dumps(item.meta))
            for n, (item, digest) in enumerate(zip(items, digests, strict=True))
        ],
    )
    return len(items)
