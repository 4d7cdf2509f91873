"""Decisions on their way into a replay, in memory that is bounded whatever the journal holds.

A replay pads every list to its longest, so one long list would cost all the others. The bounds:

- A list is cut to ``WIDEST`` candidates: those that were shown, the ones that somebody spoke of, then the highest by
  the caller's score. A choice among part of a list is consistent with one among all of it where utilities differ
  independently of the others (McFadden, 1978). A list whose click lies beyond what is kept is left out.
- The newest decisions are kept, as many as all of them together hold ``NUMBERS`` numbers of candidates, of contexts,
  of the candidates' distinct vectors and of losses, each for itself.
- Padded, they hold as many: where one list is much longer than the others, it is cut further.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import isqrt
from typing import Any

import numpy as np

from dayjob.endings import Role
from dayjob.learn.replay import F32, F64, FILLER, I32
from dayjob.records import Decision, Json

WIDEST = 200  # candidates of a list
NUMBERS = 40_000_000  # of candidates, with their padding: 160 MB
VECTOR_NUMBERS = 256_000_000  # of contexts, and of distinct candidates: 1 GB
LOSS_NUMBERS = 50_000_000  # of loss matrices that callers sent, with their padding: 200 MB
PER_CANDIDATE = 8  # numbers that a candidate takes beside its pair features
DIGEST = 16  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What came of a decision: clicked position, right slot, reward in [0, 1] and the slot it speaks of; -1 and nan for
    none."""

    click: int
    truth: int
    reward: float
    rewarded: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A decision as a replay needs it: K candidates, R of them shown."""

    seq: int
    user: str | None
    role: Role
    speakers: frozenset[str]
    told: Told
    context: bytes
    digests: bytes  # 16 for each candidate
    pair_KP: F32
    base_K: F32
    shown_R: I32  # slots
    propensity_R: F32
    place_K2: F64 | None
    loss_KK: F32 | None

    def __len__(self) -> int:
        return len(self.base_K)

    def each_digest(self) -> Iterator[bytes]:
        """The candidates' digests, by slot."""
        return (self.digests[at : at + DIGEST] for at in range(0, len(self.digests), DIGEST))

    def cut(self, width: int) -> Row | None:
        """The same with ``width`` candidates at most; None when it teaches nothing without the others."""
        if len(self) <= width:
            return self
        spoken = {slot for slot in (self.told.truth, self.told.rewarded) if slot != FILLER}
        shown_R = self.shown_R[: max(0, width - len(spoken))]
        if self.told.click >= len(shown_R):
            return None
        keep = dict.fromkeys([*shown_R.tolist(), *sorted(spoken)])
        by_score = np.argsort(-self.base_K, kind="stable").tolist()
        slots = np.array(sorted([*keep, *(slot for slot in by_score if slot not in keep)][:width]), np.int64)
        new_K = np.full(len(self), FILLER, np.int32)
        new_K[slots] = np.arange(len(slots), dtype=np.int32)
        told = replace(self.told, truth=_moved(new_K, self.told.truth), rewarded=_moved(new_K, self.told.rewarded))
        digests = b"".join(self.digests[slot * DIGEST : (slot + 1) * DIGEST] for slot in slots.tolist())
        return replace(
            self, told=told, digests=digests, pair_KP=self.pair_KP[slots], base_K=self.base_K[slots],
            shown_R=new_K[shown_R], propensity_R=self.propensity_R[: len(shown_R)].copy(),
            place_K2=None if self.place_K2 is None else self.place_K2[slots],
            loss_KK=None if self.loss_KK is None else self.loss_KK[np.ix_(slots, slots)],
        )  # fmt: skip


def _moved(new_K: I32, slot: int) -> int:
    return FILLER if slot == FILLER else int(new_K[slot])


def row_of(decision: Decision, *, seq: int, speakers: frozenset[str], told: Told, pair_dim: int) -> Row:
    """A journaled decision, and what came of it, as a row."""
    k, extra = len(decision.candidates), decision.extra
    place_K2: Any = np.array(extra["latlon"], np.float64) if "latlon" in extra else None
    loss_KK: Any = np.array(extra["loss"], np.float32) if "loss" in extra and place_K2 is None else None
    return Row(
        seq=seq, user=decision.user, role=decision.role, speakers=speakers, told=told, context=decision.context,
        digests=b"".join(candidate.digest for candidate in decision.candidates),
        pair_KP=np.frombuffer(decision.pair, "<f4").reshape(k, pair_dim) if pair_dim else np.zeros((k, 0), np.float32),
        base_K=np.frombuffer(decision.base, "<f8").astype(np.float32),
        shown_R=np.frombuffer(decision.ranking, "<u2").astype(np.int32),
        propensity_R=np.frombuffer(decision.propensity, "<f8").astype(np.float32),
        place_K2=place_K2, loss_KK=loss_KK,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much is kept of decisions of these sizes."""

    candidates: int  # of all lists together, padded too
    decisions: int
    vectors: int  # distinct candidates
    losses: int = LOSS_NUMBERS

    @classmethod
    def of(cls, spec: Json) -> Limits:
        """The bounds of this module for a policy as declared."""
        return cls(
            candidates=NUMBERS // (PER_CANDIDATE + int(spec["pair_dim"])),
            decisions=VECTOR_NUMBERS // max(int(spec["context_dim"]), 1),
            vectors=VECTOR_NUMBERS // max(int(spec["candidate_dim"]), 1),
        )


class Kept:
    """The newest rows that fit; oldest go first."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.rows: deque[Row] = deque()
        self.candidates = self.losses = self.lists_cut = self.left_out = 0

    def add(self, row: Row) -> None:
        """Take the next decision in, in the order of the journal."""
        short = self._cut(row, WIDEST)
        if short is None:
            return
        self.rows.append(short)
        self._count(short, 1)
        while self.rows and (
            self.candidates > self.limits.candidates
            or len(self.rows) > self.limits.decisions
            or self.losses > self.limits.losses
        ):
            self._count(self.rows.popleft(), -1)
            self.left_out += 1

    def settle(self) -> list[Row]:
        """What is kept, oldest first, none longer than what all can be padded to."""
        seen: set[bytes] = set()
        newest = list[Row]()
        for row in reversed(self.rows):
            seen.update(row.each_digest())
            if len(seen) > self.limits.vectors:
                break
            newest.append(row)
        self.left_out += len(self.rows) - len(newest)
        width = self.limits.candidates // max(len(newest), 1)
        if any(row.loss_KK is not None for row in newest):
            width = min(width, isqrt(self.limits.losses // len(newest)))
        return [short for row in reversed(newest) if (short := self._cut(row, max(1, width))) is not None]

    def stats(self) -> dict[str, float]:
        """How many lists were cut, and how many decisions left out."""
        counts = {"lists_cut": float(self.lists_cut), "left_out": float(self.left_out)}
        return {name: count for name, count in counts.items() if count}

    def _cut(self, row: Row, width: int) -> Row | None:
        short = row.cut(width)
        if short is None:
            self.left_out += 1
        elif short is not row:
            self.lists_cut += 1
        return short

    def _count(self, row: Row, sign: int) -> None:
        self.candidates += sign * len(row)
        self.losses += sign * (0 if row.loss_KK is None else row.loss_KK.size)
