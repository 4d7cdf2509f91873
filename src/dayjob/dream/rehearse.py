"""Rehearsal: attempts at the tasks of admitted environments, within a budget of compute.

Compute is counted in tokens that a learner reads: of every turn the prompt and what was said. A budget of ×1 is as many
as the night without the dream may read; what an attempt costs is measured while the environments are proved. The
curriculum deals out the tasks: environments that are solved sometimes come most, one that is mastered with less of its
solution shown. Seeds that choose between weights, and those of the proof, on which the pass rates before and after are
told, are kept apart from those that are rehearsed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from dayjob.dream.prove import PROOF_SEED, pass_rate, tokens_of
from dayjob.endings import EpisodeEnding, Invalid
from dayjob.policies.engine_protocol import Engine
from dayjob.practice.actor import EngineActor, Render
from dayjob.practice.curriculum import Curriculum
from dayjob.practice.environments.program import Program
from dayjob.practice.protocol import Mutation
from dayjob.practice.registry import make
from dayjob.practice.rollout import roll
from dayjob.records import Json, Trajectory

LOOK_SEED = PROOF_SEED * 2  # tasks from here on choose between weights
MOST_STEPS = 100_000


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


def steps_within(tokens: float, *, per_attempt: float, attempts: int) -> int:
    """How many steps of ``attempts`` attempts each fit into a budget of tokens, at least one.

    >>> steps_within(96_000, per_attempt=150.0, attempts=64)
    10
    """
    if per_attempt <= 0 or attempts < 1:
        raise Invalid("an attempt costs more than nothing: measure it first", param="per_attempt")
    return max(1, min(MOST_STEPS, math.floor(tokens / (per_attempt * attempts))))


def _neighbours(spec: Json) -> Sequence[Mutation]:
    """A program with more of its solution shown, or less."""
    return make(spec).mutations()


@dataclass(slots=True)
class Rehearsal:
    """What is rehearsed in, for whoever learns from trajectories: a group of attempts for each ticket. ``context``: the
    longest prompt with its answer, in tokens."""

    programs: tuple[Program, ...]
    render: Render
    context: int
    group: int = 8  # attempts at one task
    looked_at: int = 16  # tasks of each environment, when weights are chosen
    spent: Spent = field(default_factory=Spent)
    curriculum: Curriculum = field(init=False)

    def __post_init__(self) -> None:
        """Raises Invalid where nothing was admitted."""
        if not self.programs:
            raise Invalid("there is nothing to rehearse in: no environment was admitted", param="programs")
        self.curriculum = Curriculum.open([one.spec for one in self.programs], neighbours=_neighbours)

    @property
    def mark(self) -> str:
        """Of everything that decides which tasks there are."""
        told = json.dumps([[one.spec for one in self.programs], self.group, self.looked_at], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()

    def state(self) -> Json:
        """What was spent and what is known of the tasks, for a checkpoint."""
        return {"spent": asdict(self.spent), "curriculum": self.curriculum.state()}

    def restore(self, state: Json) -> None:
        """The inverse of :meth:`state`."""
        self.spent = Spent(**state["spent"])
        self.curriculum = Curriculum.open(state["curriculum"], neighbours=_neighbours)

    async def rehearsed(self, engine: Engine, version: str, *, ticket: int) -> list[Trajectory]:
        """The attempts of one ticket. What failed inside the environment is not among them."""
        [(spec, seed)] = self.curriculum.next(1)
        found = roll(make(spec), [seed], actor=self.actor(engine, version), attempts=self.group, seed=ticket)
        done = [one async for one in found]
        self.spent = self.spent.after(done)
        sound = [one for one in done if one.ending not in (EpisodeEnding.FAILED, EpisodeEnding.TIMEOUT)]
        self.curriculum.tell(spec, seed, rewards=[one.reward for one in sound])
        return sound

    async def rates(self, engine: Engine, version: str) -> dict[str, float]:
        """The share solved of tasks kept for this, by the environment's name."""
        seeds = range(LOOK_SEED, LOOK_SEED + self.looked_at)
        actor = self.actor(engine, version)
        return {one.name: (await pass_rate(one, seeds, actor=actor, attempts=1)).rate for one in self.programs}

    def actor(self, engine: Engine, version: str) -> EngineActor:
        """Who acts with this version."""
        return EngineActor(engine, version, render=self.render, context_tokens=self.context, salt="dream")
