"""Where practice is put together: environments, curriculum and rollout, as a course sees them.

Tasks that are looked at (``stop`` chooses between the weights of a course, ``judge`` says how good those are) are drawn
first. A task that begins and is solved like one of them is never practised, whatever seed or mutation it comes from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from dayjob.endings import Invalid
from dayjob.learn.language.exercises import turn
from dayjob.learn.practice.buffer import UNLEARNED
from dayjob.learn.practice.credit import FULL
from dayjob.learn.practice.ground import Ids, Look
from dayjob.learn.practice.prompts import render_within
from dayjob.learn.practice.recipe import PracticeRecipe
from dayjob.policies.engine_protocol import Engine
from dayjob.policies.tokens import Tokens
from dayjob.practice.actor import EngineActor
from dayjob.practice.curriculum import Curriculum, Plan
from dayjob.practice.protocol import Environment
from dayjob.practice.registry import make
from dayjob.practice.rollout import roll
from dayjob.records import Json, Trajectory

JUDGE, STOP, PRACTICE, CURATED, LOOK = 1, 2, 3, 4, 5  # roles of seeds
TRIES = 50  # at a task that is not held out
ANSWER_TOKENS = 64  # of the context, left for the answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Tasks:
    """How many tasks a course looks at, with how many reference solutions it begins, whether tasks are mutated."""

    stop: int = 32
    judge: int = 64
    curated: int = 0
    curriculum: bool = False


@dataclass(slots=True, kw_only=True)
class PracticeGround:
    """A `learn.practice.ground.Ground` on one environment, or on its neighbourhood with a curriculum. Made by
    :func:`open_ground`."""

    spec: Json
    tokens: Tokens
    recipe: PracticeRecipe
    tasks: Tasks
    seed: int
    held: Mapping[int, tuple[int, ...]]  # role -> seeds of held-out tasks
    known: frozenset[str]  # what those are
    references: tuple[tuple[Ids, Ids], ...]
    curriculum: Curriculum | None
    made: dict[str, Environment] = field(default_factory=dict)

    @property
    def mark(self) -> str:
        """See the protocol."""
        told = [self.spec, self.tasks.stop, self.tasks.judge, self.tasks.curated, self.tasks.curriculum, self.seed]
        return hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=8).hexdigest()

    async def attempts(self, engine: Engine, version: str, *, ticket: int) -> list[Trajectory]:
        """See the protocol."""
        spec, seed = await self._task(ticket)
        found = roll(
            self._environment(spec), [seed], actor=self._actor(engine, version, self.recipe.temperature),
            attempts=self.recipe.attempts, parallel=self.recipe.attempts, seed=seed_of(self.seed, PRACTICE, ticket),
        )  # fmt: skip
        done = [one async for one in found]
        if self.curriculum is not None:
            sound = [one for one in done if one.ending not in UNLEARNED]
            self.curriculum.tell(
                spec, seed, rewards=[one.reward for one in sound], parts=[dict(one.parts) for one in sound]
            )  # fmt: skip
        return done

    async def look(self, engine: Engine, version: str) -> Look:
        """The most probable answers to the held-out tasks: the mean reward of those that choose, and pass rates."""
        chosen, judged = [await self.rewards(engine, version, seeds=self.held[role]) for role in (STOP, JUDGE)]
        rates = {"stop": passed(chosen), "judge": passed(judged), "judge_reward": fmean(judged) if judged else 0.0}
        return Look(score=fmean(chosen) if chosen else 0.0, rates=rates)

    async def rewards(
        self, engine: Engine, version: str, *, seeds: Sequence[int], spec: Json | None = None
    ) -> list[float]:  # fmt: skip
        """Of the most probable answers to tasks, in the order in which they ended; of ``spec`` in place of our own."""
        if not seeds:
            return []
        actor, seed = self._actor(engine, version, 0.0), seed_of(self.seed, LOOK, 0)
        return [one.reward async for one in roll(self._environment(spec or self.spec), seeds, actor=actor, seed=seed)]

    def curated(self) -> Sequence[tuple[Ids, Ids]]:
        """See the protocol."""
        return self.references

    def state(self) -> Json:
        """See the protocol."""
        return {} if self.curriculum is None else dict(self.curriculum.state())

    def restore(self, state: Json) -> None:
        """See the protocol."""
        if self.curriculum is not None:
            self.curriculum = Curriculum.open(state)

    async def _task(self, ticket: int) -> tuple[Json, int]:
        """What is practised next: never what is held out."""
        for number in range(TRIES):
            if self.curriculum is None:
                spec, seed = self.spec, seed_of(self.seed, PRACTICE, ticket, number)
            else:
                ((spec, seed),) = self.curriculum.next(1)
            # With its solution shown it is the same task.
            if await task_of(self._environment(spec.get("inner", spec)), seed) not in self.known:
                return spec, seed
            if self.curriculum is not None:
                self.curriculum.tell(spec, seed, rewards=[])  # it will not be tried
        raise Invalid(f"{self.spec['env']} has hardly a task that is not held out: hold out fewer", param="tasks")

    def _actor(self, engine: Engine, version: str, temperature: float) -> EngineActor:
        return EngineActor(
            engine, version, render=self._render, context_tokens=self.recipe.context_tokens, temperature=temperature
        )  # fmt: skip

    def _render(self, messages: Sequence[Json], tools: Sequence[Json]) -> Ids:
        room = self.recipe.context_tokens - ANSWER_TOKENS
        return render_within(self.tokens, messages, tools=tools, room=room)

    def _environment(self, spec: Json) -> Environment:
        key = json.dumps(spec, sort_keys=True)
        if key not in self.made:
            self.made[key] = make(spec)
        return self.made[key]


async def open_ground(
    spec: Json, tokens: Tokens, *, recipe: PracticeRecipe, tasks: Tasks, seed: int
) -> PracticeGround:  # fmt: skip
    """Raises Invalid where the environment is none, has fewer tasks than are to be held out, or no reference solution
    where some are wanted."""
    environment = make(spec)
    known: set[str] = set()
    held: dict[int, tuple[int, ...]] = {}
    for role, count in ((JUDGE, tasks.judge), (STOP, tasks.stop)):
        found: list[int] = []
        number = met = 0  # seeds tried, and those since the last that was new
        while len(found) < count and met < TRIES:
            one, number, met = seed_of(seed, role, number), number + 1, met + 1
            task = await task_of(environment, one)
            if task not in known:
                known.add(task)
                found.append(one)
                met = 0
        if len(found) < count:
            raise Invalid(f"{spec['env']} has hardly more than {len(known)} tasks: hold out fewer", param="tasks")
        held[role] = tuple(found)
    references: list[tuple[Ids, Ids]] = []
    room, number, wanted = recipe.context_tokens - ANSWER_TOKENS, 0, tasks.curated
    while wanted and number < tasks.curated * TRIES:
        one, number = seed_of(seed, CURATED, number), number + 1
        if await task_of(environment, one) not in known:
            references += [pair async for pair in _solved(environment, one, tokens=tokens, room=room)]
            wanted -= 1
    if tasks.curated and not references:
        raise Invalid(f"{spec['env']} knows no reference solutions: begin without (curated=0)", param="curated")
    curriculum = Curriculum.open(spec, plan=Plan(seed=seed)) if tasks.curriculum else None
    return PracticeGround(
        spec=spec, tokens=tokens, recipe=recipe, tasks=tasks, seed=seed, held=held, known=frozenset(known),
        references=tuple(references), curriculum=curriculum,
        made={json.dumps(spec, sort_keys=True): environment},
    )  # fmt: skip


def seed_of(*path: int) -> int:
    """A task's or an actor's seed, from 0 to 2**63 - 1, that depends on these numbers alone."""
    digest = hashlib.blake2b(" ".join(map(str, path)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


async def task_of(environment: Environment, seed: int) -> str:
    """What a task is, hashed: how it begins and how it is solved, or its seed where no solution is known."""
    episode = environment.reset(seed)
    try:
        said = [dict(one) for one in episode.task.messages]
    finally:
        await episode.close()
    solution = [one.text for one in environment.reference(seed)] or [str(seed)]
    return hashlib.blake2b(json.dumps([said, solution], sort_keys=True).encode(), digest_size=12).hexdigest()


def passed(rewards: Sequence[float]) -> float:
    """The share of full rewards; 0 of none."""
    return fmean(one >= FULL for one in rewards) if rewards else 0.0


async def _solved(
    environment: Environment, seed: int, *, tokens: Tokens, room: int
) -> AsyncIterator[tuple[Ids, Ids]]:  # fmt: skip
    """The turns of one reference solution, as an actor would have read and said them. Those that do not fit are left
    out."""
    episode = environment.reset(seed)
    try:
        messages, tools = list(episode.task.messages), episode.task.tools
        for action in environment.reference(seed):
            prompt = render_within(tokens, messages, tools=tools, room=room)
            answer = turn(tokens, tuple(messages), answer=action.text)
            if len(prompt) <= room and len(answer) <= ANSWER_TOKENS:
                yield prompt, answer
            step = await episode.step(action)
            messages += [{"role": "assistant", "content": action.text}, *step.messages]
            if step.ending is not None:
                return
    finally:
        await episode.close()
