"""What of a dream is kept until its rehearsal is over: what authors handed in, and what proofs found.

An author may cost money, and a proof minutes: a dream that was killed goes on with those it had.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

from dayjob.dream.apart import Apart, Held
from dayjob.dream.dreaming import Prover
from dayjob.dream.excerpts import Excerpt, Transition
from dayjob.dream.propose import Allowance, Author, Proposal, Proposed
from dayjob.dream.prove import Check, Demands, Proof
from dayjob.practice.environments.program import Program
from dayjob.practice.rollout import Actor
from dayjob.records import Json


@dataclass(slots=True)
class Kept:
    """``save`` is told all of it, each time that there is more."""

    save: Callable[[bytes], None]
    proposed: dict[str, Proposed] = field(default_factory=dict)  # by the author's place
    proofs: dict[str, Proof] = field(default_factory=dict)  # by the proposal's digest

    @staticmethod
    def of(data: bytes, save: Callable[[bytes], None]) -> Kept:
        """What was saved, b"" for nothing."""
        read: Json = json.loads(data) if data else {"proposed": {}, "proofs": {}}
        return Kept(
            save,
            {place: _proposed(one) for place, one in read["proposed"].items()},
            {digest: _proof(one) for digest, one in read["proofs"].items()},
        )

    def authors(self, authors: Sequence[Author]) -> list[Author]:
        """The same, asked once each."""
        return [_Once(one, str(place), self) for place, one in enumerate(authors)]

    def prover(self, prover: Prover) -> Prover:
        """The same, asked once of each proposal."""

        async def proved(
            proposal: Proposal, *, held_out: Sequence[Transition], actor: Actor | None,
            demands: Demands | None = None, record: Sequence[Transition] = (), apart: Apart | None = None,
        ) -> Proof:  # fmt: skip
            if proposal.digest not in self.proofs:
                self.proofs[proposal.digest] = await prover(
                    proposal, held_out=held_out, actor=actor, demands=demands, record=record, apart=apart
                )
                self._say()
            return self.proofs[proposal.digest]

        return proved

    def told(self, place: str, proposed: Proposed) -> None:
        """An author handed something in."""
        self.proposed[place] = proposed
        self._say()

    def _say(self) -> None:
        body = {
            "proposed": {place: asdict(one) for place, one in self.proposed.items()},
            "proofs": {digest: _written(one) for digest, one in self.proofs.items()},
        }
        self.save(json.dumps(body).encode())


@dataclass(frozen=True, slots=True)
class _Once:
    author: Author
    place: str
    kept: Kept

    async def propose(self, excerpts: Sequence[Excerpt], *, allowance: Allowance) -> Proposed:
        if self.place not in self.kept.proposed:
            self.kept.told(self.place, await self.author.propose(excerpts, allowance=allowance))
        return self.kept.proposed[self.place]


def _proposed(read: Json) -> Proposed:
    proposals = tuple(Proposal(**one) for one in read["proposals"])
    return Proposed(**read | {"proposals": proposals, "faults": tuple(read["faults"])})


def _written(proof: Proof) -> Json:
    held = replace(proof.held, marks=frozenset())
    return {
        "proposal": asdict(proof.proposal), "checks": [asdict(one) for one in proof.checks],
        "program": None if proof.program is None else asdict(proof.program),
        "held": asdict(held) | {"marks": sorted(proof.held.marks)},
    }  # fmt: skip


def _proof(read: Json) -> Proof:
    held = read["held"]
    return Proof(
        proposal=Proposal(**read["proposal"]), checks=tuple(Check(**one) for one in read["checks"]),
        program=None if read["program"] is None else Program(**read["program"]),
        held=Held(**held | {"seeds": tuple(held["seeds"]), "marks": frozenset(held["marks"])}),
    )  # fmt: skip
