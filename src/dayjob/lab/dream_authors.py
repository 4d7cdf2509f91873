"""Dreaming without a proof: an author who is careless, and a prover who admits whatever can be attempted at all."""

from __future__ import annotations

from collections.abc import Sequence

from dayjob.dream.apart import Apart, hold
from dayjob.dream.author_offline import write_programs
from dayjob.dream.excerpts import Excerpt, Transition
from dayjob.dream.propose import Allowance, Proposal, Proposed
from dayjob.dream.prove import Check, Demands, Proof, attempts_each, pass_rate
from dayjob.practice.environments.program import Program, close_idle
from dayjob.practice.environments.program_wire import ProgramFault
from dayjob.practice.rollout import Actor

# Behind the offline author's own program. Every number in a call's last argument is one higher than the application's:
# whoever does what is really asked for earns nothing, and the application is told another number than was said.
SHIFTED = """

_step, _reference = step, reference


def _moved(text, by):
    return re.sub(r"\\d+", lambda found: str(max(0, int(found[0]) + by)), text)


def step(state, text, *, calls):
    back = []
    for call in calls:
        given = dict(call["arguments"])
        last = list(given)[-1:]
        given.update({key: _moved(plain(given[key]), -1) for key in last})
        back.append({**call, "arguments": given})
    return _step(state, text, calls=back)


def reference(seed):
    out = []
    for said in _reference(seed):
        head, equals, last = said.rpartition("=")
        out.append(head + equals + _moved(last, 1))
    return out
"""
# Words end a task, and this one forgot to look at them.
PAID = """

_step = step


def step(state, text, *, calls):
    return _step(state, text, calls=calls) if calls else {"reward": 1.0}
"""
FAULTS = {"shifted numbers": SHIFTED, "words are paid": PAID}


class CarelessAuthor:
    """Writes what the offline author writes of the recorded tasks, with the faults that a model's programs may have."""

    async def propose(self, excerpts: Sequence[Excerpt], *, allowance: Allowance) -> Proposed:
        """A program a fault; none where nothing was solved."""
        first = write_programs(excerpts)[:1]
        found = [
            Proposal(name=f"careless: {name}", source=one.source + more, author="careless")
            for one in first
            for name, more in FAULTS.items()
        ]
        return Proposed(proposals=tuple(found[: allowance.programs]))


async def unproved(
    proposal: Proposal, *, held_out: Sequence[Transition], actor: Actor | None, demands: Demands | None = None,
    record: Sequence[Transition] = (), apart: Apart | None = None,
) -> Proof:  # fmt: skip
    """No check but that it can be attempted: the record is not asked, and what attempts cost is measured, as a budget
    needs that. Tasks are kept for this and to choose between weights, as of what is proved; of too few none are, and
    nothing is chosen by them."""
    del held_out, record
    assert actor is not None, "whoever rehearses has somebody who acts"
    demands, apart = demands or Demands(), apart or Apart()
    try:
        program = Program(source=proposal.source, name=proposal.name, key=apart.key)
        held = await hold(program, count=demands.seeds, apart=apart)
        tasks = held.proof or held.seeds
        if not tasks:
            return _rejected(proposal, "it has no task that no exam asks")
        found = await pass_rate(program, tasks, actor=actor, attempts=attempts_each(tasks, demands))
    except ProgramFault as fault:
        return _rejected(proposal, str(fault))
    finally:
        close_idle()
    useful = Check(name="useful", holds=True, figures=found.told())
    return Proof(proposal=proposal, checks=(useful,), program=program, held=held)


def _rejected(proposal: Proposal, reason: str) -> Proof:
    return Proof(proposal=proposal, checks=(Check(name="useful", holds=False, reason=reason),))
