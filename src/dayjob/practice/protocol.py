"""What an environment is: a seeded task, steps of text, a reward with parts, an ending, and a reference solution.

Standard library only. **Deterministic and replayable**: an environment of one spec, one seed and the same actions says
the same bytes, in any process and on any machine; nothing reads the clock, the network or a global random state. An
environment holds settings alone and is never changed; what changes lives in its episodes, so thousands may run at once.

Every implementation passes the battery `practice.checks.check_environment`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from dayjob.endings import EpisodeEnding
from dayjob.records import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What an episode begins with.

    >>> Task(messages=({"role": "user", "content": "What is 2 + 3?"},)).max_turns
    1
    """

    messages: tuple[Json, ...]  # OpenAI's shape; the last one is the user's or a tool's
    tools: tuple[Json, ...] = ()  # OpenAI's shape, for chat templates that take them
    max_turns: int = 1
    answer_tokens: int = 64  # a turn; an actor stops there


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What the actor said. Tool calls stand in the text, as models write them (`practice.calls`)."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """``value`` in [0, 1] is what is learned from; ``parts`` say what it is made of, each in [0, 1]."""

    value: float
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What the environment answers. ``reward``, of the whole episode, comes with the ending and only then; ``progress``
    is what this turn alone earned, where the environment can tell (else 0)."""

    messages: tuple[Json, ...] = ()  # what it says next; empty with an ending
    progress: float = 0.0
    reward: Reward | None = None
    ending: EpisodeEnding | None = None


class Episode(Protocol):
    """One attempt. Steps come one after another; none after the ending."""

    @property
    def task(self) -> Task: ...

    async def step(self, action: Action) -> Step:
        """Read an action. Never raises for what an actor may say; a failure of the environment's own code may raise,
        and whoever rolls out turns it into `EpisodeEnding.FAILED`."""
        ...

    async def close(self) -> None:
        """Free what the episode holds. May be called at any time, and more than once."""
        ...


class Direction(StrEnum):
    """Where a mutation moves a task."""

    EASIER = "easier"
    HARDER = "harder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """A neighbour of an environment: ``spec`` is a whole one, that `practice.registry.make` can build."""

    name: str
    direction: Direction
    spec: Json


class Environment(Protocol):
    """A family of tasks, one a seed. Immutable."""

    @property
    def spec(self) -> Json:
        """``{"env": name, **settings}``: JSON that `practice.registry.make` makes an equal environment from."""
        ...

    def reset(self, seed: int) -> Episode:
        """The task of this seed, from its beginning. Seeds are any whole numbers from 0 to 2**63 - 1."""
        ...

    def reference(self, seed: int) -> Sequence[Action]:
        """Actions that solve the task of this seed with a reward of 1; empty where no solution is known."""
        ...

    def mutations(self) -> Sequence[Mutation]:
        """Neighbours, easier and harder; none where the environment knows none."""
        ...
