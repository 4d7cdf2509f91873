"""What any journal must offer, whatever stores it. `tests/contracts/check_journal.py` holds every store to it.

A write answers with a future that resolves once the write is durable (promise 1); what became of it is in the receipt,
never an exception, unless nothing could be written at all. Reads see every write that was acknowledged before them.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dayjob.journal.join import Window
from dayjob.records import CatalogItem, Decision, Joined, Json, Outcome, Stored, StoredOutcome, Written


class JournalWriter(Protocol):
    """The one writer of a journal. Every call may raise Overloaded (a full queue) or StorageFull."""

    def append_decision(self, decision: Decision, blobs: Sequence[bytes] = ()) -> "Future[Written]":
        """Append a decision with its candidates' encoded vectors (K of them, or none when all are known).

        RECORDED; REPEATED for an equal retry, with the first record; CONFLICT; ERASED. Outcomes that were held for it
        come after it, in the order in which they arrived.
        """
        ...

    def append_outcome(self, outcome: Outcome) -> "Future[Written]":
        """Append an outcome: RECORDED, REPEATED, HELD (its decision is not known yet), CROWDED (too many are held),
        CONFLICT, ERASED, REFUSED (it does not fit) or FORBIDDEN (the decision is somebody else's)."""
        ...

    def put_catalog(self, tenant: str, policy: str, *, items: Sequence[CatalogItem]) -> "Future[int]":
        """Replace a policy's catalog, whole; how many items it has."""
        ...

    def erase_user(self, tenant: str, user: str) -> "Future[dict[str, int]]":
        """Remove what a person did: counts of ``decisions``, ``outcomes``, ``held`` and ``vectors`` that went. Their
        ids are refused (ERASED) from then on. Vectors that others still use stay."""
        ...

    def expire_held(self, before_ms: int) -> "Future[int]":
        """Drop outcomes received before that time that still wait for their decision; how many."""
        ...

    def close(self) -> None:
        """Finish what is queued, and release the store."""
        ...


class JournalReader(Protocol):
    """Reading a journal, in journal order. Cursors are opaque: only ones that a read returned may be given back."""

    def decision(self, tenant: str, decision_id: str) -> Stored | None:
        """One decision by its id."""
        ...

    def decisions(self, tenant: str, policy: str, *, cursor: str = ..., limit: int = ...) -> tuple[list[Stored], str]:
        """The next decisions of a policy, oldest first, and the cursor that continues after them."""
        ...

    def recent(self, tenant: str, policy: str, limit: int, *, until: int = ...) -> list[Stored]:
        """The newest decisions up to sequence number ``until``, oldest of them first."""
        ...

    def cursor_before(self, tenant: str, policy: str, count: int, *, until: int = ...) -> str:
        """The cursor after which the newest ``count`` decisions up to sequence number ``until`` come."""
        ...

    def outcomes(self, tenant: str, decisions: Sequence[Stored]) -> dict[str, list[StoredOutcome]]:
        """The outcomes of these decisions by decision id, held ones left out; a session's stand at each of its."""
        ...

    def joined(
        self, tenant: str, policy: str, *, window: Window, now_ms: int, cursor: str = ..., until: int | None = None
    ) -> Iterator[list[Joined]]:
        """Pages of decisions with their outcomes and what closed them; nothing after sequence number ``until``."""
        ...

    def get_many(self, tenant: str, digests: Sequence[bytes], *, dim: int) -> npt.NDArray[np.float32]:
        """The vectors of these digests, (N, dim). Raises Damaged when one is missing."""
        ...

    def catalog(self, tenant: str, policy: str) -> tuple[list[str], list[bytes], list[Json | None]]:
        """A catalog's ids, vector digests and metadata, in order."""
        ...

    def counts(self, tenant: str, policy: str) -> dict[str, int]:
        """Decisions and outcomes by kind; a count that fell to nothing may be left out."""
        ...

    def of_user(self, tenant: str, user: str) -> tuple[Iterator[Stored], Iterator[StoredOutcome]]:
        """All that is held of a person: decisions and outcomes, waiting ones included, each in journal order."""
        ...

    def session_user(self, tenant: str, session: str) -> str | None:
        """Whose a session is: the user of its latest decision that has one; None while it has none."""
        ...

    def last_seq(self) -> int:
        """The newest sequence number."""
        ...
