"""One dream from beginning to end, but for the rehearsal: propose, prove, admit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from dayjob.dream.apart import Apart
from dayjob.dream.author_offline import write_programs
from dayjob.dream.excerpts import Excerpt, Transition, conversations, hold_out, transitions
from dayjob.dream.propose import Allowance, Author, Proposal, Proposed
from dayjob.dream.prove import Demands, Proof, prove
from dayjob.practice.rollout import Actor
from dayjob.records import Json

NOTHING = "nothing is recorded that an environment could be made of: no answer used a tool, or none was right"


class Prover(Protocol):
    """Decides what is rehearsed in: `prove`, unless somebody measures what rehearsing without a proof costs."""

    async def __call__(
        self, proposal: Proposal, *, held_out: Sequence[Transition], actor: Actor | None,
        demands: Demands | None = None, record: Sequence[Transition] = (), apart: Apart | None = None,
    ) -> Proof: ...  # fmt: skip


class OfflineAuthor:
    """`author_offline` as an author: it costs no call and no token."""

    async def propose(self, excerpts: Sequence[Excerpt], *, allowance: Allowance) -> Proposed:
        """Its programs, the easiest first."""
        found = write_programs(excerpts)[: allowance.programs]
        return Proposed(proposals=tuple(found), faults=() if found else (NOTHING,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Dreamt:
    """What was proposed and what became of it. ``read`` and ``kept``: conversations that the authors read, and that
    were kept from them for the proof."""

    proposed: tuple[Proposed, ...]
    proofs: tuple[Proof, ...]
    read: int
    kept: int

    @property
    def admitted(self) -> tuple[Proof, ...]:
        """What held."""
        return tuple(one for one in self.proofs if one.program is not None)

    @property
    def faults(self) -> tuple[str, ...]:
        """What the authors could not do."""
        return tuple(fault for one in self.proposed for fault in one.faults)


async def dream(
    excerpts: Sequence[Excerpt], *, authors: Sequence[Author], actor: Actor | None, allowance: Allowance | None = None,
    demands: Demands | None = None, progress: Callable[[float], None] = lambda _: None, prover: Prover = prove,
    apart: Apart | None = None,
) -> Dreamt:  # fmt: skip
    """Ask every author, prove what they hand in. ``progress`` is told a share in [0, 1]; what it raises ends the dream.

    An author's program is nobody's twice: equal ones are proved once.
    """
    read, kept = hold_out(conversations(excerpts))
    held_out: list[Transition] = [found for one in kept for found in transitions(one)]
    record = [found for one in read for found in transitions(one)] + held_out
    proposed = []
    for place, author in enumerate(authors):
        proposed.append(await author.propose(read, allowance=allowance or Allowance()))
        progress(0.5 * (place + 1) / len(authors))
    unique: dict[str, Proposal] = {}
    for one in proposed:
        for proposal in one.proposals:
            unique.setdefault(proposal.digest, proposal)
    proofs = []
    for place, proposal in enumerate(unique.values()):
        proofs.append(
            await prover(
                proposal, held_out=held_out, actor=actor, demands=demands, record=record, apart=apart
            )
        )  # fmt: skip
        progress(0.5 + 0.5 * (place + 1) / len(unique))
    return Dreamt(proposed=tuple(proposed), proofs=tuple(proofs), read=len(read), kept=len(kept))


def costs(dreamt: Dreamt) -> Json:
    """What the authors cost."""
    return {
        "calls": sum(one.calls for one in dreamt.proposed), "tokens": sum(one.tokens for one in dreamt.proposed),
        "seconds": round(sum(one.seconds for one in dreamt.proposed), 3),
    }  # fmt: skip
