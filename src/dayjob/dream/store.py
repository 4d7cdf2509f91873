"""What is kept of a dream, as JSON: a record for whoever may see that there was one, and the programs themselves.

The record holds names, digests, reasons and figures, and no word that anybody said: it may outlive whoever taught. The
programs are built of people's words, and go where the version goes that learned from them.
"""

from __future__ import annotations

from collections.abc import Mapping

from dayjob.dream.dreaming import Dreamt, costs
from dayjob.dream.prove import Demands, Proof, attempts_each, pass_rate
from dayjob.dream.rehearse import Spent
from dayjob.practice.environments.program_wire import ProgramFault
from dayjob.practice.rollout import Actor
from dayjob.records import Json

MOST_SOURCES = 1 << 20  # characters of programs that are kept with a version


async def rates_after(dreamt: Dreamt, *, actor: Actor, demands: Demands | None = None) -> dict[str, float]:
    """The pass rates of admitted environments on the tasks of their proofs, which nobody rehearsed, by digest. One
    whose own code fails now has none."""
    demands = demands or Demands()
    out = {}
    for one in dreamt.admitted:
        assert one.program is not None, "an admitted one has a program"
        if not one.held.proof:
            continue
        try:
            found = await pass_rate(
                one.program, one.held.proof, actor=actor, attempts=attempts_each(one.held.proof, demands)
            )  # fmt: skip
        except ProgramFault:
            continue
        out[one.proposal.digest] = found.rate
    return out


def record(
    dreamt: Dreamt, *, budget: float, spent: Spent, after: Mapping[str, float], steps: int,
    beside: float = 0.0, dropped: Mapping[str, str] | None = None,
) -> Json:  # fmt: skip
    """One dream. ``after``: `rates_after` the rehearsal, {} where there was none. ``beside``: tokens of lessons and
    anchor that were read with the attempts'; ``dropped``: why environments were left in the rehearsal, by digest."""
    return {
        "budget": budget, "read": dreamt.read, "kept": dreamt.kept, "faults": list(dreamt.faults),
        "author": costs(dreamt), "steps": steps, "episodes": spent.episodes, "turns": spent.turns,
        "tokens": spent.tokens, "beside": round(beside),
        "environments": [_told(one, after, dropped or {}) for one in dreamt.proofs],
    }  # fmt: skip


def _told(proof: Proof, after: Mapping[str, float], dropped: Mapping[str, str]) -> Json:
    figures = {one.name: one.figures for one in proof.checks}
    faithful = figures.get("faithful") or None
    told = proof.told()
    left = dropped.get(proof.proposal.digest, "")
    return told | {
        "reason": told["reason"] or left, "dropped": bool(left),
        "faithful": faithful, "before": figures.get("useful", {}).get("pass_rate"),
        "after": after.get(proof.proposal.digest),
    }  # fmt: skip


def programs(dreamt: Dreamt) -> dict[str, str]:
    """The programs by digest, admitted ones first, as many as have room."""
    room, out = MOST_SOURCES, {}
    for one in sorted(dreamt.proofs, key=lambda proof: proof.program is None):
        source = one.proposal.source
        if len(source) <= room:
            room -= len(source)
            out[one.proposal.digest] = source
    return out
