"""What a course practises on, as far as it must know: whoever assembles joins environments, curriculum and rollout
behind this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from dayjob.policies.engine_protocol import Engine
from dayjob.records import Json, Trajectory

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at held-out tasks. ``score``: mean reward on those that choose between the weights of a course (the more
    the better); ``rates``: what else was seen, by name. What choose and what judges are different tasks."""

    score: float
    rates: Mapping[str, float] = field(default_factory=dict)


class Ground(Protocol):
    """Used from one event loop at a time."""

    @property
    def mark(self) -> str:
        """Of everything that decides which tasks there are: a checkpoint of other ones is not gone on from."""
        ...

    async def attempts(self, engine: Engine, version: str, *, ticket: int) -> Sequence[Trajectory]:
        """A group of attempts at one task, all ended. Equal tickets and weights, equal attempts, but for what a
        curriculum was told in between."""
        ...

    async def look(self, engine: Engine, version: str) -> Look:
        """How the weights do on held-out tasks. Changes nothing."""
        ...

    def curated(self) -> Sequence[tuple[Ids, Ids]]:
        """Turns of reference solutions to begin with, prompt and answer; none for no warm start."""
        ...

    def state(self) -> Json:
        """For a checkpoint: where the curriculum stands."""
        ...

    def restore(self, state: Json) -> None:
        """The inverse of :meth:`state`."""
        ...


@runtime_checkable
class Closes(Protocol):
    """A ground that holds something on the event loop that it is used from: worker processes, say."""

    async def close(self) -> None:
        """Let go of it, before the loop ends. Nothing is under way then; whoever asks again has it anew."""
        ...


async def close_ground(ground: Ground) -> None:
    """End what a ground holds on this event loop, if it holds anything."""
    if isinstance(ground, Closes):
        await ground.close()


@runtime_checkable
class KnowsSolutions(Protocol):
    """A ground whose tasks have reference solutions: what a privileged teacher is told."""

    async def solution(self, attempt: Trajectory) -> Sequence[str]:
        """What to say, turn by turn, to solve the task that this was an attempt at; empty where that is not known."""
        ...
