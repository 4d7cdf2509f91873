"""Tiny stand-ins for practice: an environment of counting, and an actor with as much skill as it is given.

Both are deterministic and need no model: with them a curriculum, a buffer or a learner is tried in milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from dayjob.endings import EpisodeEnding, Invalid
from dayjob.practice.protocol import Action, Direction, Mutation, Reward, Step, Task
from dayjob.practice.questions import check_seed, check_whole, neighbours, rng_of, spec_of
from dayjob.practice.rollout import Acted
from dayjob.records import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeEnvironment:
    """ "After 4 comes?", ``turns`` times; the reward is 1 when every answer was right, progress says which were.

    >>> FakeEnvironment(turns=3).reset(0).task.max_turns
    3
    """

    turns: int = 1
    limit: int = 9  # the greatest number asked about

    def __post_init__(self) -> None:
        check_whole(self, {"turns": (1, 10_000), "limit": (3, 1_000_000)})

    @property
    def spec(self) -> Json:
        return spec_of("fake", self)

    def reset(self, seed: int) -> FakeEpisode:
        """As `Environment.reset`."""
        return FakeEpisode(self.numbers(seed))

    def reference(self, seed: int) -> Sequence[Action]:
        """As `Environment.reference`."""
        return tuple(Action(text=str(number + 1)) for number in self.numbers(seed))

    def mutations(self) -> Sequence[Mutation]:
        """As `Environment.mutations`."""
        changes: list[tuple[str, Direction, Json]] = [
            ("fewer turns", Direction.EASIER, {"turns": self.turns - 1}),
            ("more turns", Direction.HARDER, {"turns": self.turns + 1}),
        ]
        return neighbours(self.spec, changes, make=lambda settings: FakeEnvironment(**settings))

    def numbers(self, seed: int) -> tuple[int, ...]:
        """What a seed asks about, turn by turn."""
        rng = rng_of("fake", check_seed(seed))
        return tuple(rng.randint(2, self.limit) for _ in range(self.turns))


class FakeEpisode:
    """One attempt at counting."""

    def __init__(self, numbers: tuple[int, ...]) -> None:
        self._numbers = numbers
        self._right: list[bool] = []

    @property
    def task(self) -> Task:
        return Task(messages=(_asked(self._numbers[0]),), max_turns=len(self._numbers), answer_tokens=8)

    async def step(self, action: Action) -> Step:
        """As `Episode.step`. Parts: "share" of right answers."""
        turn, turns = len(self._right), len(self._numbers)
        if turn == turns:
            raise Invalid("this episode is over: reset for another", param="action")
        self._right.append(action.text == str(self._numbers[turn] + 1))
        progress = self._right[-1] / turns
        if turn + 1 < turns:
            return Step(messages=(_asked(self._numbers[turn + 1]),), progress=progress)
        reward = Reward(value=float(all(self._right)), parts={"share": sum(self._right) / turns})
        return Step(progress=progress, reward=reward, ending=EpisodeEnding.DONE)

    async def close(self) -> None:
        """As `Episode.close`."""


@dataclass(frozen=True, slots=True)
class FakeActor:
    """Answers a `FakeEnvironment` rightly with a probability of ``skill``, below 1, else with 0.

    An answer is one token, its number; its log-probability is what it was drawn with.
    """

    skill: float
    version: str = "fake"

    def __post_init__(self) -> None:
        if not 0 < self.skill < 1:
            raise Invalid("skill must be between 0 and 1, ends excluded", param="skill")

    async def act(self, messages: Sequence[Json], *, tools: Sequence[Json], max_tokens: int, seed: int) -> Acted:
        """As `Actor.act`."""
        del tools, max_tokens
        right = Random(seed).random() < self.skill
        number = int(str(messages[-1]["content"]).split()[1]) + 1 if right else 0
        return Acted(
            text=str(number), prompt_ids=tuple(range(1, len(messages) + 1)), token_ids=(number,),
            logprobs=(math.log(self.skill if right else 1 - self.skill),), versions=(self.version,),
        )  # fmt: skip


def _asked(number: int) -> Json:
    return {"role": "user", "content": f"After {number} comes?"}
