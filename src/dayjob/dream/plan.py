"""Looking ahead: several actions are drawn, each is played on in a world model, and the best is what is done.

For every real step the policy draws ``candidates`` actions. Behind each, ``continuations`` futures of ``depth``
imagined answers are played by the policy itself in the world model; where one stands then, the model says how probably
it ends well. The action of the highest mean is taken; equal ones go by how often they were drawn, then by which came
first. Random shooting with the policy as proposal and a value at the leaf (Chua et al., PETS, NeurIPS 2018; MuZero and
EfficientZero search the same quantities with a tree).

Depth is never more than the world model's horizon: beyond it imagination is guessing. Depth 0 imagines nothing and
ranks the actions by the value alone. Every imagined step is counted, for planning is paid in them.

A planned action was chosen among several, so its log-probabilities are no behaviour log-probabilities: trajectories of
planning must not teach by policy gradient.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from dayjob.endings import Invalid
from dayjob.practice.environments.world import Responder, derived, imagine, real
from dayjob.practice.rollout import Acted, Actor
from dayjob.records import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is looked at before each real step. Raises Invalid for numbers that plan nothing."""

    candidates: int = 4  # actions drawn
    depth: int = 1  # imagined answers behind each
    continuations: int = 1  # futures of each

    def __post_init__(self) -> None:
        if self.candidates < 1 or self.continuations < 1 or self.depth < 0:
            raise Invalid("a plan has 1 or more candidates and continuations, and a depth of 0 or more", param="plan")


@dataclass(slots=True, kw_only=True)
class Spent:
    """What planning did so far."""

    real: int = 0  # actions that were taken
    imagined: int = 0  # answers of the world model
    valued: int = 0  # times that it said how probably something ends well
    changed: int = 0  # actions other than the one that was drawn first

    @property
    def imagined_per_real(self) -> float:
        """Imagined answers for each real action; 0 before the first."""
        return self.imagined / self.real if self.real else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Planner:
    """An actor that looks ahead. Safe to call for many episodes at once.

    ``horizon``: that of the world model, `world.Accuracy.horizon`.
    """

    actor: Actor
    responder: Responder
    plan: Plan
    horizon: int
    spent: Spent = field(default_factory=Spent)

    async def act(
        self, messages: Sequence[Json], *, tools: Sequence[Json], max_tokens: int, seed: int
    ) -> Acted | None:  # fmt: skip
        """The best of the drawn actions; None where none could be drawn."""
        drawn = await asyncio.gather(
            *(
                self.actor.act(messages, tools=tools, max_tokens=max_tokens, seed=_nth(seed, number))
                for number in range(self.plan.candidates)
            )
        )
        acted = [one for one in drawn if one is not None]
        if not acted:
            return None
        self.spent.real += 1
        times: dict[str, int] = {}
        for one in acted:
            times[one.text] = times.get(one.text, 0) + 1
        if len(times) == 1:
            return acted[0]  # there is nothing to choose
        scores = await asyncio.gather(
            *(self._score(messages, text, tools=tools, max_tokens=max_tokens, seed=seed) for text in times)
        )
        ranked = zip(scores, times.values(), times, strict=True)
        best = max(ranked, key=lambda one: (one[0], one[1]))[2]  # the first of equal ones: it was drawn earlier
        self.spent.changed += best != acted[0].text
        return next(one for one in acted if one.text == best)

    async def _score(
        self, messages: Sequence[Json], text: str, *, tools: Sequence[Json], max_tokens: int, seed: int
    ) -> float:
        """Mean value of the futures behind an action."""
        values = await asyncio.gather(
            *(
                self._future(messages, text, tools=tools, max_tokens=max_tokens, seed=derived(seed, -1, number))
                for number in range(self.plan.continuations)
            )
        )
        return sum(values) / len(values)

    async def _future(
        self, messages: Sequence[Json], text: str, *, tools: Sequence[Json], max_tokens: int, seed: int
    ) -> float:
        history = real(messages)
        for step in range(min(self.plan.depth, self.horizon)):
            said, over = await imagine(self.responder, history, text=text, seed=derived(seed, step, 0))
            self.spent.imagined += len(said) + over
            history += [{"role": "assistant", "content": text}, *real(said)]
            if over or step + 1 == min(self.plan.depth, self.horizon):
                break
            acted = await self.actor.act(history, tools=tools, max_tokens=max_tokens, seed=derived(seed, step, 1))
            if acted is None:
                break
            text = acted.text
        else:
            history += [{"role": "assistant", "content": text}]  # depth 0
        self.spent.valued += 1
        return await self.responder.success(history)


def _nth(seed: int, number: int) -> int:
    """The first candidate is what the actor alone would have drawn."""
    return seed if number == 0 else derived(seed, number)
