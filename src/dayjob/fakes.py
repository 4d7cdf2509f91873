"""Tiny deterministic stand-ins for the real parts: a clock, rankers, a journal, and records to fill it with.

They keep the same promises as what they stand for (``tests/contracts`` holds them to it) except that nothing outlives
the process. Use them to test what you build on dayjob, or to read what a part does in a page.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import numpy as np
import numpy.typing as npt

from dayjob.endings import Damaged, Ending, OutcomeKind, PolicyKind, Receipt, Role
from dayjob.journal import vectors
from dayjob.journal.join import Window, fit, join
from dayjob.journal.readers import NEWEST, PAGE, START, cursor_of, seq_of
from dayjob.journal.rows import shown_ids
from dayjob.journal.versions import StoredVersion, VersionManifest, load, publish
from dayjob.journal.writes import FindSpec
from dayjob.policies.protocol import F64, Lists
from dayjob.records import (
    Candidate,
    CatalogItem,
    Choice,
    Decision,
    Generation,
    Joined,
    Json,
    Outcome,
    Stored,
    StoredOutcome,
    Written,
)  # fmt: skip

T = TypeVar("T")
FAKE_SPEC: Json = {"metric": "click", "reward_range": [0.0, 1.0], "outcome_window_s": 60.0}
DIM = 2  # of the fake candidates' vectors


@dataclass(slots=True)
class FakeClock:
    """A clock that stands until it is told to move; forwards, backwards or not at all."""

    now: int = 1_000_000

    def __call__(self) -> int:
        """Milliseconds since the epoch."""
        return self.now

    def advance(self, ms: int) -> None:
        """Let time pass; a negative number sets the clock back."""
        self.now += ms


@dataclass(frozen=True, slots=True)
class FakeRanker:
    """A ranker whose every score says which version it is: the score rounds to ``number``.

    It orders by the caller's score, or against it when ``turned``.

    >>> lists = Lists(context_BD=np.zeros((1, 1), np.float32), candidate_BKE=np.zeros((1, 2, 1), np.float32),
    ...               pair_BKP=np.zeros((1, 2, 0), np.float32), base_BK=np.array([[0.0, 1.0]]))
    >>> FakeRanker(7, turned=True).score(lists).round(2).tolist()
    [[7.0, 6.8]]
    """

    number: int
    turned: bool = False

    def score(self, lists: Lists) -> F64:
        """Scores (B, K) within 0.4 of ``number``."""
        base_BK = np.clip(lists.base_BK, -1e6, 1e6)
        share_BK: F64 = 0.4 * base_BK / (1.0 + np.abs(base_BK))
        return self.number + (-share_BK if self.turned else share_BK)

    def utility(self, lists: Lists) -> F64:
        """The same: losses do not move a fake."""
        return self.score(lists)

    def weights(self) -> dict[str, npt.NDArray[np.float32]]:
        """What a version of this ranker holds."""
        return {"number": np.array([self.number], np.float32), "turned": np.array([self.turned], np.float32)}

    @classmethod
    def from_weights(cls, weights: Mapping[str, npt.NDArray[Any]]) -> "FakeRanker":
        """The inverse of :meth:`weights`. Raises Damaged for the weights of anything else."""
        if set(weights) != {"number", "turned"}:
            raise Damaged("these are not the weights of a FakeRanker: publish one with publish_fake")
        return cls(int(weights["number"][0]), turned=bool(weights["turned"][0]))


def publish_fake(root: Path, tenant: str, policy: str, *, ranker: FakeRanker) -> StoredVersion:
    """Write a fake ranker as a real version, number and all."""
    about = VersionManifest(recipe="fake", network={}, from_seq=0, to_seq=0, seed=0, created_ms=0)
    return publish(root, tenant, policy, number=ranker.number, weights=ranker.weights(), manifest=about)


def load_fake(root: Path, tenant: str, policy: str, version: str, digest: str) -> FakeRanker:
    """A verified fake version. Raises Damaged or NotFound as for any other."""
    weights, _ = load(root, tenant, policy, version, digest=digest)
    return FakeRanker.from_weights(weights)


def fake_id(number: int) -> str:
    """A UUID for a number."""
    return str(UUID(int=number))


def fake_decision(number: int, items: Sequence[str] = ("a", "b", "c")) -> tuple[Decision, list[bytes]]:
    """A decision of tenant "t" and policy "p" that shows ``items`` in their order, and its candidates' vectors."""
    k = len(items)
    vector_KE = np.array([[len(item), sum(item.encode())] for item in items], np.float32).reshape(k, DIM)
    blobs = vectors.pack_many(vector_KE)
    decision = Decision(
        tenant="t", policy="p", id=fake_id(number), body_digest=number.to_bytes(16, "big"), user=None, session=None,
        at_ms=1_000_000, version="v0-baseline", challenger=None, role=Role.CHAMPION, role_propensity=1.0, explore=True,
        seed=number, epsilon=0.0, temperature=0.0, intervened=False, coin=0, context=bytes(2 * DIM),
        candidates=tuple(
            Candidate(id=item, digest=vectors.digest(blob)) for item, blob in zip(items, blobs, strict=True)
        ),
        pair=b"", base=np.arange(k, 0, -1, dtype="<f8").tobytes(), score=np.arange(k, 0, -1, dtype="<f8").tobytes(),
        rival_score=b"", ranking=np.arange(k, dtype="<u2").tobytes(), propensity=np.ones(k, "<f8").tobytes(),
        log_propensity=0.0,
    )  # fmt: skip
    return decision, blobs


def fake_generation(number: int, texts: Sequence[str] = ("yes", "no")) -> Decision:
    """A decision of tenant "t" and the language policy "chat" that answered ``texts``: a token a character."""
    prompt = np.frombuffer(b"say", np.uint8).astype("<u4").tobytes()
    choices = tuple(
        Choice(
            token_ids=np.array([ord(letter) for letter in text], "<u4").tobytes(),
            model_logprobs=np.full(len(text), -0.5, "<f4").tobytes(),
            sample_logprobs=np.full(len(text), -0.25, "<f4").tobytes(),
            versions=(("v0-baseline", len(text)),), seed=(1 << 64) - 1 - number, ending=Ending.STOP, text=text,
            alternatives=tuple(((ord(letter), -0.5), (0, -2.0)) for letter in text),
        )
        for text in texts
    )  # fmt: skip
    sampling = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 8, "stop": [], "seed": None, "top_logprobs": 2}
    generation = Generation(
        base="tiny", messages=({"role": "user", "content": "say"},), tools=(), prompt_ids=b"n\0\0\0" + prompt,
        bare_ids=prompt, notes=("note-1",), sampling=sampling, choices=choices, cached_tokens=1,
    )  # fmt: skip
    decision, _ = fake_decision(number, ())
    slots = np.arange(len(texts), dtype="<u2").tobytes()
    return replace(decision, policy="chat", ranking=slots, context=b"", generation=generation)


def fake_outcome(number: int, decision: str | None, *, kind: OutcomeKind = OutcomeKind.NONE) -> Outcome:
    """An outcome of tenant "t" about a decision; a click is on position 1."""
    return Outcome(
        tenant="t", id=fake_id(number), body_digest=number.to_bytes(16, "big"), policy="", decision=decision,
        session=None, kind=kind, item=None, position=1 if kind is OutcomeKind.CLICK else None, value=None, text=None,
        source="human", user=None, at_ms=1_000_000, received_ms=1_000_000, key_id="key",
    )  # fmt: skip


def find_fake_spec(tenant: str, policy: str) -> tuple[PolicyKind, Json]:
    """Every policy of every tenant is a ranker that is judged by clicks, but the one called "chat"."""
    del tenant
    return PolicyKind.LANGUAGE if policy == "chat" else PolicyKind.RANKER, FAKE_SPEC


class FakeJournal:
    """A journal in memory: both sides of `journal.protocol` in one object. Not safe to share between threads."""

    def __init__(self, *, find_spec: FindSpec = find_fake_spec, held_per_key: int = 10_000) -> None:
        self._find_spec = find_spec
        self._held_per_key = held_per_key
        self._seq = 0
        self._decisions: list[Stored] = []
        self._outcomes: list[StoredOutcome] = []
        self._held: list[StoredOutcome] = []
        self._vectors: dict[tuple[str, bytes], bytes] = {}
        self._catalogs: dict[tuple[str, str], list[tuple[CatalogItem, bytes]]] = {}
        self._erased: set[tuple[str, str]] = set()

    # writing

    def append_decision(self, decision: Decision, blobs: Sequence[bytes] = ()) -> "Future[Written]":
        """As `JournalWriter.append_decision`."""
        return _done(self._decide(decision, blobs))

    def append_outcome(self, outcome: Outcome) -> "Future[Written]":
        """As `JournalWriter.append_outcome`."""
        return _done(self._receive(outcome))

    def put_catalog(self, tenant: str, policy: str, *, items: Sequence[CatalogItem]) -> "Future[int]":
        """As `JournalWriter.put_catalog`."""
        kept = [(item, vectors.digest(item.vector)) for item in items]
        self._catalogs[tenant, policy] = kept
        self._vectors |= {(tenant, digest): item.vector for item, digest in kept}
        return _done(len(kept))

    def erase_user(self, tenant: str, user: str) -> "Future[dict[str, int]]":
        """As `JournalWriter.erase_user`."""
        gone = [s for s in self._decisions if (s.record.tenant, s.record.user) == (tenant, user)]
        ids = {s.record.id for s in gone}

        def theirs(stored: StoredOutcome) -> bool:
            record = stored.record
            return record.tenant == tenant and (record.user == user or record.decision in ids)

        outcomes, held = [o for o in self._outcomes if theirs(o)], [o for o in self._held if theirs(o)]
        self._decisions = [s for s in self._decisions if s not in gone]
        self._outcomes = [o for o in self._outcomes if o not in outcomes]
        self._held = [o for o in self._held if o not in held]
        self._erased |= {(tenant, one) for one in ids} | {(tenant, o.record.id) for o in (*outcomes, *held)}
        orphans = {c.digest for s in gone for c in s.record.candidates}
        orphans -= {c.digest for s in self._decisions if s.record.tenant == tenant for c in s.record.candidates}
        orphans -= {d for (owner, _), kept in self._catalogs.items() if owner == tenant for _, d in kept}
        for digest in orphans:
            del self._vectors[tenant, digest]
        counts = {"decisions": len(gone), "outcomes": len(outcomes), "held": len(held), "vectors": len(orphans)}
        return _done(counts)

    def expire_held(self, before_ms: int) -> "Future[int]":
        """As `JournalWriter.expire_held`."""
        kept = [o for o in self._held if o.record.received_ms >= before_ms]
        dropped, self._held = len(self._held) - len(kept), kept
        return _done(dropped)

    def close(self) -> None:
        """Nothing to release."""

    def _next(self) -> int:
        self._seq += 1
        return self._seq

    def _decide(self, decision: Decision, blobs: Sequence[bytes]) -> Written:
        if (decision.tenant, decision.id) in self._erased:
            return Written(receipt=Receipt.ERASED, seq=0)
        first = self.decision(decision.tenant, decision.id)
        if first is not None and first.record.body_digest == decision.body_digest:
            return Written(receipt=Receipt.REPEATED, seq=first.seq, first=first.record)
        if first is not None:
            return Written(receipt=Receipt.CONFLICT, seq=first.seq)
        if blobs:
            for candidate, blob in zip(decision.candidates, blobs, strict=True):
                self._vectors[decision.tenant, candidate.digest] = blob
        stored = Stored(seq=self._next(), record=decision)
        self._decisions.append(stored)
        waiting = [o for o in self._held if _speaks_of(o.record, decision)]
        self._held = [o for o in self._held if o not in waiting]
        for held in waiting:
            if not _foreign(held.record, decision) and self._misfit(held.record, decision) is None:
                self._record(held.record, decision)
        return Written(receipt=Receipt.RECORDED, seq=stored.seq)

    def _receive(self, outcome: Outcome) -> Written:
        tenant = outcome.tenant
        if {(tenant, outcome.id), (tenant, outcome.decision)} & self._erased:
            return Written(receipt=Receipt.ERASED, seq=0)
        for kept, receipt in ((self._outcomes, Receipt.REPEATED), (self._held, Receipt.HELD)):
            for old in kept:
                if (old.record.tenant, old.record.id) == (tenant, outcome.id):
                    same = old.record.body_digest == outcome.body_digest
                    return Written(receipt=receipt if same else Receipt.CONFLICT, seq=old.seq)
        if outcome.decision is None and outcome.session is None:
            named = [o.record for o in self._outcomes if (o.record.tenant, o.record.id) == (tenant, outcome.value)]
            if not named:
                return Written(receipt=Receipt.REFUSED, seq=0)
            session = named[0].session if named[0].decision is None else None
            outcome = replace(outcome, decision=named[0].decision, session=session)
        if outcome.decision is None and (outcome.item is not None or outcome.position is not None):
            return Written(receipt=Receipt.REFUSED, seq=0)
        known = [s.record for s in self._decisions if s.record.tenant == tenant and _speaks_of(outcome, s.record)]
        if not known:
            elsewhere = any(s.record.id == outcome.decision for s in self._decisions)
            return Written(receipt=Receipt.FORBIDDEN, seq=0) if elsewhere else self._hold(outcome)
        if _foreign(outcome, known[-1]):
            return Written(receipt=Receipt.FORBIDDEN, seq=0)
        misfit = self._misfit(outcome, known[-1])
        if misfit is not None:
            return Written(receipt=Receipt.REFUSED, seq=0, message=misfit)
        return self._record(outcome, known[-1])

    def _hold(self, outcome: Outcome) -> Written:
        waiting = [o for o in self._held if (o.record.tenant, o.record.key_id) == (outcome.tenant, outcome.key_id)]
        if len(waiting) >= self._held_per_key:
            return Written(receipt=Receipt.CROWDED, seq=0)
        self._held.append(StoredOutcome(seq=self._next(), record=outcome))
        return Written(receipt=Receipt.HELD, seq=self._seq)

    def _record(self, outcome: Outcome, decision: Decision) -> Written:
        record = replace(outcome, policy=decision.policy, user=outcome.user or decision.user)
        self._outcomes.append(StoredOutcome(seq=self._next(), record=record))
        return Written(receipt=Receipt.RECORDED, seq=self._seq)

    def _misfit(self, outcome: Outcome, decision: Decision) -> str | None:
        kind, spec = self._find_spec(decision.tenant, decision.policy)
        if outcome.decision is None:
            return fit(outcome, kind=kind, shown=(), known=(), spec=spec)
        known = [candidate.id for candidate in decision.candidates]
        return fit(outcome, kind=kind, shown=shown_ids(kind, known, ranking=decision.ranking), known=known, spec=spec)

    # reading

    def decision(self, tenant: str, decision_id: str) -> Stored | None:
        """As `JournalReader.decision`."""
        return next((s for s in self._decisions if (s.record.tenant, s.record.id) == (tenant, decision_id)), None)

    def decisions(
        self, tenant: str, policy: str, *, cursor: str = START, limit: int = PAGE
    ) -> tuple[list[Stored], str]:
        """As `JournalReader.decisions`."""
        page = [s for s in self._of(tenant, policy) if s.seq > seq_of(cursor)][:limit]
        return page, cursor_of(page[-1].seq) if page else cursor

    def recent(self, tenant: str, policy: str, limit: int, *, until: int = NEWEST) -> list[Stored]:
        """As `JournalReader.recent`."""
        found = [s for s in self._of(tenant, policy) if s.seq <= until]
        return found[max(0, len(found) - limit) :]

    def cursor_before(self, tenant: str, policy: str, count: int, *, until: int = NEWEST) -> str:
        """As `JournalReader.cursor_before`."""
        found = [s for s in self._of(tenant, policy) if s.seq <= until]
        return cursor_of(found[-count - 1].seq) if len(found) > count else START

    def outcomes(self, tenant: str, decisions: Sequence[Stored]) -> dict[str, list[StoredOutcome]]:
        """As `JournalReader.outcomes`."""
        out = {
            s.record.id: [o for o in self._outcomes if o.record.tenant == tenant and _speaks_of(o.record, s.record)]
            for s in decisions
        }
        return {one: found for one, found in out.items() if found}

    def joined(
        self, tenant: str, policy: str, *, window: Window, now_ms: int, cursor: str = START, until: int | None = None
    ) -> Iterator[list[Joined]]:
        """As `JournalReader.joined`."""
        while True:
            page, cursor = self.decisions(tenant, policy, cursor=cursor)
            page = [s for s in page if until is None or s.seq <= until]
            if not page:
                return
            yield join(page, self.outcomes(tenant, page), now_ms=now_ms, window=window)

    def get_many(self, tenant: str, digests: Sequence[bytes], *, dim: int) -> npt.NDArray[np.float32]:
        """As `JournalReader.get_many`."""
        missing = [digest for digest in digests if (tenant, digest) not in self._vectors]
        if missing:
            raise Damaged("a candidate's vector is missing from the journal: restore it from a backup")
        return vectors.unpack_many([self._vectors[tenant, digest] for digest in digests], dim)

    def catalog(self, tenant: str, policy: str) -> tuple[list[str], list[bytes], list[Json | None]]:
        """As `JournalReader.catalog`."""
        kept = self._catalogs.get((tenant, policy), [])
        return [item.id for item, _ in kept], [digest for _, digest in kept], [item.meta for item, _ in kept]

    def counts(self, tenant: str, policy: str) -> dict[str, int]:
        """As `JournalReader.counts`."""
        found = {"decisions": len(self._of(tenant, policy))}
        for stored in self._outcomes:
            if (stored.record.tenant, stored.record.policy) == (tenant, policy):
                found[stored.record.kind.value] = found.get(stored.record.kind.value, 0) + 1
        return found

    def of_user(self, tenant: str, user: str) -> tuple[Iterator[Stored], Iterator[StoredOutcome]]:
        """As `JournalReader.of_user`."""
        decisions = [s for s in self._decisions if (s.record.tenant, s.record.user) == (tenant, user)]
        outcomes = [o for o in (*self._outcomes, *self._held) if (o.record.tenant, o.record.user) == (tenant, user)]
        return iter(decisions), iter(sorted(outcomes, key=lambda one: one.seq))

    def session_user(self, tenant: str, session: str) -> str | None:
        """As `JournalReader.session_user`."""
        found = [s.record.user for s in self._decisions if (s.record.tenant, s.record.session) == (tenant, session)]
        return next((user for user in reversed(found) if user is not None), None)

    def last_seq(self) -> int:
        """As `JournalReader.last_seq`."""
        return self._seq

    def _of(self, tenant: str, policy: str) -> list[Stored]:
        return [s for s in self._decisions if (s.record.tenant, s.record.policy) == (tenant, policy)]


def _speaks_of(outcome: Outcome, decision: Decision) -> bool:
    """Whether an outcome is of this decision, or of its whole session."""
    if outcome.decision is not None:
        return outcome.decision == decision.id
    return outcome.session is not None and outcome.session == decision.session


def _foreign(outcome: Outcome, decision: Decision) -> bool:
    return outcome.user is not None and decision.user is not None and outcome.user != decision.user


def _done(value: T) -> "Future[T]":
    future: Future[T] = Future()
    future.set_result(value)
    return future
