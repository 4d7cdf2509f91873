"""Rehearsal: attempts at the tasks of admitted environments, within a budget of compute.

Compute is counted in tokens that a learner reads: of every turn the prompt and what was said. A budget of ×1 is as many
as the night without the dream may read; what an attempt costs is measured while the environments are proved. The
curriculum deals out the tasks: environments that are solved sometimes come most, one that is mastered with less of its
solution shown. Tasks that choose between weights, those of the proof, on which the pass rates before and after are
told, and those that say what is asked elsewhere are passed over (`dream.apart`).

A proof is not the last word on a program: it may count its episodes, or watch a clock. So each group comes with one
episode in which nothing worth paying is said, in the same sandbox at the same time. Who pays for that, who fails time
and again, or has no task left, is dropped with the reason, and the others go on.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from dayjob.dream.apart import Apart, Held
from dayjob.dream.prove import STEP_S, UNSOUND, tokens_of
from dayjob.dream.trivial import PAID, WAYS, earned
from dayjob.endings import DayjobError, Invalid
from dayjob.policies.engine_protocol import Engine
from dayjob.practice.actor import EngineActor, Render
from dayjob.practice.curriculum import Curriculum
from dayjob.practice.environments.program import Program
from dayjob.practice.environments.program_wire import ProgramFault
from dayjob.practice.protocol import Mutation
from dayjob.practice.registry import digest
from dayjob.practice.rollout import roll
from dayjob.practice.same import begun
from dayjob.records import Json, Trajectory

MOST_STEPS = 100_000
IN_VAIN = 100  # draws in a row of tasks that are kept for something else
MOST_FAULTS = 8, 0.1  # attempts that failed: so many, and so much of all
MOST_PAID = 2.0  # rewards for nothing, together, above a mean of `PAID`


class NothingLeft(DayjobError):
    """Every environment was dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What rehearsal has cost."""

    episodes: int = 0
    turns: int = 0
    tokens: int = 0

    def after(self, attempts: Sequence[Trajectory]) -> Spent:
        """With these attempts too."""
        return Spent(
            episodes=self.episodes + len(attempts),
            turns=self.turns + sum(len(one.turns) for one in attempts),
            tokens=self.tokens + sum(map(tokens_of, attempts)),
        )


def steps_within(tokens: float, *, per_step: float) -> int:
    """How many steps, each of so many tokens, fit into a budget, at least one.

    >>> steps_within(96_000, per_step=64 * 150.0)
    10
    """
    if per_step <= 0:
        raise Invalid("a step costs more than nothing: measure what an attempt costs first", param="per_step")
    return max(1, min(MOST_STEPS, math.floor(tokens / per_step)))


def program_of(spec: Json) -> Program:
    """The program of a spec that the curriculum deals out."""
    return Program(**{name: value for name, value in spec.items() if name != "env"})


@dataclass(slots=True, kw_only=True)
class Seen:
    """What was seen of a program in the rehearsal, with as much shown as its spec says."""

    attempts: int = 0
    faults: int = 0
    fault: str = ""  # the last one
    probes: int = 0
    paid: float = 0.0  # for nothing, over all probes
    vain: int = 0  # draws in a row of tasks that nobody rehearses

    @property
    def reason(self) -> str:
        """Why it is to be dropped, "" where it is not."""
        least, share = MOST_FAULTS
        if self.faults >= least and self.faults > share * self.attempts:
            return f"it failed in {self.faults} of {self.attempts} attempts ({self.fault})"
        if self.paid >= MOST_PAID and self.paid > PAID * self.probes:
            return f"silence and the like earn {self.paid / self.probes:.2f} on average in the rehearsal"
        return "all of its tasks are kept for something else" if self.vain >= IN_VAIN else ""


@dataclass(slots=True)
class Rehearsal:
    """What is rehearsed in, for whoever learns from trajectories: a group of attempts for each ticket. ``context``: the
    longest prompt with its answer, in tokens; ``held``: of each program the tasks that nobody rehearses."""

    programs: tuple[Program, ...]
    render: Render
    context: int
    group: int = 8  # attempts at one task
    held: tuple[Held, ...] = ()
    apart: Apart = field(default_factory=Apart)
    spent: Spent = field(default_factory=Spent)
    dropped: dict[str, str] = field(default_factory=dict)  # why, by the digest of a spec
    curriculum: Curriculum | None = field(init=False)
    _seen: dict[str, Seen] = field(init=False, default_factory=dict)
    _rates: dict[str, float] = field(init=False, default_factory=dict)  # at the last look
    _kept: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        """Raises Invalid where nothing was admitted."""
        if not self.programs:
            raise Invalid("there is nothing to rehearse in: no environment was admitted", param="programs")
        self.held = self.held or tuple(Held() for _ in self.programs)
        self._kept = frozenset().union(*(one.marks for one in self.held))
        self.curriculum = Curriculum.open([one.spec for one in self.programs], neighbours=self._neighbours)

    @property
    def mark(self) -> str:
        """Of everything that decides which tasks there are."""
        told = [[one.spec for one in self.programs], self.group, sorted(self._kept), self.apart.mark]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def state(self) -> Json:
        """What was spent and what is known of the tasks, for a checkpoint."""
        return {
            "spent": asdict(self.spent), "curriculum": None if self.curriculum is None else self.curriculum.state(),
            "dropped": dict(self.dropped), "rates": dict(self._rates),
            "seen": {key: asdict(one) for key, one in self._seen.items()},
        }  # fmt: skip

    def restore(self, state: Json) -> None:
        """The inverse of :meth:`state`."""
        self.spent = Spent(**state["spent"])
        self.dropped, self._rates = dict(state["dropped"]), dict(state["rates"])
        self._seen = {key: Seen(**one) for key, one in state["seen"].items()}
        known = state["curriculum"]
        self.curriculum = None if known is None else Curriculum.open(known, neighbours=self._neighbours)

    async def rehearsed(self, engine: Engine, version: str, *, ticket: int) -> list[Trajectory]:
        """The attempts of one ticket, at the first task drawn that has any which ended soundly. Raises NothingLeft."""
        while True:
            program, seed = await self._drawn()
            seen = self._seen_of(program)
            found = roll(
                program, [seed], actor=self.actor(engine, version), attempts=self.group, seed=ticket,
                step_timeout_s=STEP_S,
            )  # fmt: skip
            done = [one async for one in found]
            self.spent = self.spent.after(done)
            sound = [one for one in done if one.turns and one.ending not in UNSOUND]
            seen.attempts += len(done)
            if len(sound) < len(done):
                self._failed(program, "its code, or a task that cannot be put to this model", len(done) - len(sound))
            if sound:
                await self._probe(program, seed, ticket=ticket)
            is_in = not self._drops(program)
            self._tell(program, seed, rewards=[one.reward for one in sound] if is_in else [])
            if sound and is_in:
                return sound

    async def rates(self, engine: Engine, version: str) -> dict[str, float]:
        """The share solved of the tasks kept for this, by the environment's name. One that was dropped keeps what it
        had: it chooses between no weights any more."""
        names = [one.name for one in self.programs]
        actor = self.actor(engine, version)
        for program, held in zip(self.programs, self.held, strict=True):
            if held.look and digest(program.spec) not in self.dropped:
                found = roll(program, held.look, actor=actor, step_timeout_s=STEP_S)
                solved = [one.reward == 1.0 and one.ending not in UNSOUND async for one in found]
                name = program.name if names.count(program.name) == 1 else f"{program.name} {program.digest[:8]}"
                self._rates[name] = sum(solved) / len(solved)
        return dict(self._rates)

    def lost(self) -> dict[str, str]:
        """Why programs were dropped as they were admitted, by their digest."""
        found = ((one.digest, self.dropped.get(digest(one.spec), "")) for one in self.programs)
        return {name: f"dropped in the rehearsal: {why}" for name, why in found if why}

    def actor(self, engine: Engine, version: str) -> EngineActor:
        """Who acts with this version."""
        return EngineActor(engine, version, render=self.render, context_tokens=self.context, salt="dream")

    # ---- what is rehearsed

    async def _drawn(self) -> tuple[Program, int]:
        """The next task that is kept for nothing else."""
        while self.curriculum is not None:
            [(spec, seed)] = self.curriculum.next(1)
            program = program_of(spec)
            seen = self._seen_of(program)
            try:
                # With its solution shown it is the same task.
                begins, mark = await begun(replace(program, shown=0), seed)
            except ProgramFault as fault:
                seen.attempts += self.group
                self._failed(program, str(fault), self.group)
            else:
                if mark not in self._kept and not self.apart.asked(begins):
                    seen.vain = 0
                    return program, seed
                seen.vain += 1
            self._tell(program, seed, rewards=[])
            self._drops(program)
        raise NothingLeft("every environment was dropped in the rehearsal")

    async def _probe(self, program: Program, seed: int, *, ticket: int) -> None:
        """One episode in which nothing is said that is worth anything."""
        seen = self._seen_of(program)
        try:
            seen.paid += await earned(program, seed, way=WAYS[ticket % len(WAYS)])
        except ProgramFault as fault:
            self._failed(program, str(fault), 1)
        seen.probes, seen.attempts = seen.probes + 1, seen.attempts + 1

    def _failed(self, program: Program, fault: str, times: int) -> None:
        seen = self._seen_of(program)
        seen.faults, seen.fault = seen.faults + times, fault

    def _seen_of(self, program: Program) -> Seen:
        return self._seen.setdefault(digest(program.spec), Seen())

    def _tell(self, program: Program, seed: int, *, rewards: Sequence[float]) -> None:
        if self.curriculum is not None:
            self.curriculum.tell(program.spec, seed, rewards=rewards)

    def _drops(self, program: Program) -> bool:
        """Whether a program is dropped as it is shown, by now or before."""
        key, reason = digest(program.spec), self._seen_of(program).reason
        if not reason:
            return key in self.dropped
        if key not in self.dropped and self.curriculum is not None:
            self.dropped[key] = reason
            state = self.curriculum.state()
            state["known"] = [one for one in state["known"] if digest(one["spec"]) not in self.dropped]
            self.curriculum = Curriculum.open(state, neighbours=self._neighbours) if state["known"] else None
        return True

    def _neighbours(self, spec: Json) -> Sequence[Mutation]:
        """With more of its solution shown, or less."""
        return [one for one in program_of(spec).mutations() if digest(one.spec) not in self.dropped]
