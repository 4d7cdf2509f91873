"""Where practice is put together: environments, curriculum and rollout, as a course sees them.

Tasks that are looked at (``stop`` chooses between the weights of a course, ``judge`` says how good those are) are drawn
first. A task that begins and is solved like one of them is never practised, whatever seed or mutation it comes from.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean

from dayjob.endings import Invalid
from dayjob.learn.language.exercises import turn
from dayjob.learn.practice.buffer import UNLEARNED
from dayjob.learn.practice.credit import FULL
from dayjob.learn.practice.ground import Ids, Look
from dayjob.learn.practice.prompts import render_within
from dayjob.learn.practice.recipe import PracticeRecipe, check_whole
from dayjob.policies.engine_protocol import Engine
from dayjob.policies.tokens import Tokens
from dayjob.practice.actor import EngineActor
from dayjob.practice.curriculum import Curriculum, Plan
from dayjob.practice.hosting import LazyWorkers
from dayjob.practice.mutate import tasks_in
from dayjob.practice.protocol import Environment
from dayjob.practice.registry import make
from dayjob.practice.rollout import Lost, bounded, roll
from dayjob.practice.same import task_of
from dayjob.records import Json, Trajectory

JUDGE, STOP, PRACTICE, CURATED, LOOK = 1, 2, 3, 4, 5  # roles of seeds
TRIES = 50  # at a task that is not held out
ANSWER_TOKENS = 64  # of the context, left for the answer
SOLUTION_S = 10.0  # for an environment to say how a task begins, or is solved
STEP_S = 10.0  # for a step of an environment
log = logging.getLogger("dayjob.practice")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tasks:
    """How many tasks a course looks at, how often each is tried at a look, with how many reference solutions it begins,
    whether tasks are mutated."""

    stop: int = 32
    judge: int = 64
    tries: int = 2
    curated: int = 0
    curriculum: bool = False

    def __post_init__(self) -> None:
        # Every course looks at the weights it was given and at others: without tasks nothing could choose between them.
        check_whole(self, {"stop": 1, "judge": 1, "tries": 1, "curated": 0})


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
    host: LazyWorkers | None = None  # where episodes run; None: in this process

    @property
    def mark(self) -> str:
        """See the protocol."""
        told = [self.spec, asdict(self.tasks), self.seed]
        return hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=8).hexdigest()

    async def attempts(self, engine: Engine, version: str, *, ticket: int) -> list[Trajectory]:
        """See the protocol."""
        spec, seed = await self._task(ticket)
        found = roll(
            self._environment(spec), [seed], actor=self._actor(engine, version, self.recipe.temperature),
            attempts=self.recipe.attempts, parallel=self.recipe.attempts, seed=seed_of(self.seed, PRACTICE, ticket),
            step_timeout_s=STEP_S, host=self.host,
        )  # fmt: skip
        done = [one async for one in found]
        if self.curriculum is not None:
            sound = [one for one in done if one.ending not in UNLEARNED]
            self.curriculum.tell(
                spec, seed, rewards=[one.reward for one in sound], parts=[dict(one.parts) for one in sound]
            )  # fmt: skip
        return done

    async def look(self, engine: Engine, version: str) -> Look:
        """Held-out tasks as they are practised, ``tries`` attempts each: the mean reward of those that choose, and pass
        rates; ``greedy`` of the most probable answers to those that judge."""
        done = {
            role: await self._looked(engine, version, seeds=self.held[role], sampled=True) for role in (STOP, JUDGE)
        }
        chosen, judged = ([one.reward for one in done[role]] for role in (STOP, JUDGE))
        greedy = await self.rewards(engine, version, seeds=self.held[JUDGE])
        failed = [one for each in done.values() for one in each if one.ending in UNLEARNED]
        lost = len({one.seed for one in failed})
        if failed:
            log.warning("%d held-out tasks count as not solved; one of them: %s", lost, failed[0].error)
        rates = {"stop": passed(chosen), "judge": passed(judged), "judge_reward": fmean(judged)}
        return Look(score=fmean(chosen), rates=rates | {"greedy": passed(greedy), "failed": float(lost)})

    async def rewards(
        self, engine: Engine, version: str, *, seeds: Sequence[int], spec: Json | None = None
    ) -> list[float]:  # fmt: skip
        """Of the most probable answers to tasks, in the order in which they ended; of ``spec`` in place of our own."""
        return [one.reward for one in await self._looked(engine, version, seeds=seeds, spec=spec)]

    async def _looked(
        self, engine: Engine, version: str, *, seeds: Sequence[int], spec: Json | None = None, sampled: bool = False
    ) -> list[Trajectory]:  # fmt: skip
        actor = self._actor(engine, version, self.recipe.temperature if sampled else 0.0)
        found = roll(
            self._environment(spec or self.spec), seeds, actor=actor, seed=seed_of(self.seed, LOOK, 0),
            attempts=self.tasks.tries if sampled else 1, step_timeout_s=STEP_S, host=self.host,
        )  # fmt: skip
        return [one async for one in found]

    async def solution(self, attempt: Trajectory) -> Sequence[str]:
        """See `learn.practice.ground.KnowsSolutions`."""
        environment = self._environment(attempt.spec)

        async def known() -> list[str]:
            return [one.text for one in environment.reference(attempt.seed)]

        try:
            return await bounded(known(), SOLUTION_S)
        except Lost:
            return ()  # the environment's own code failed over it

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

    async def close(self) -> None:
        """See `learn.practice.ground.Closes`."""
        if self.host is not None:
            await self.host.close()

    async def _task(self, ticket: int) -> tuple[Json, int]:
        """What is practised next: never what is held out."""
        for number in range(TRIES):
            if self.curriculum is None:
                spec, seed = self.spec, seed_of(self.seed, PRACTICE, ticket, number)
            else:
                ((spec, seed),) = self.curriculum.next(1)
            if not await self._is_held(spec, seed):
                return spec, seed
            if self.curriculum is not None:
                self.curriculum.tell(spec, seed, rewards=[])  # it will not be tried
        raise Invalid(f"{self.spec['env']} has hardly a task that is not held out: hold out fewer", param="tasks")

    async def _is_held(self, spec: Json, seed: int) -> bool:
        """Whether a task is one of those that are held out, or made of one: with its solution shown, or beside another
        in one episode."""
        for each, its_seed in tasks_in(spec, seed):
            try:
                task = await bounded(task_of(self._environment(each), its_seed), SOLUTION_S)
            except Lost:
                continue  # attempts at it will fail, and say why
            if task in self.known:
                return True
        return False

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
    spec: Json, tokens: Tokens, *, recipe: PracticeRecipe, tasks: Tasks, seed: int, workers: int = 0
) -> PracticeGround:  # fmt: skip
    """``workers``: processes in which episodes run; 0: in this one. Raises Invalid where the environment is none, has
    fewer tasks than are to be held out, or no reference solution where some are wanted."""
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
                known |= {await task_of(make(inner), its) for inner, its in tasks_in(environment.spec, one)[1:]}
                found.append(one)
                met = 0
        if len(found) < count:
            raise Invalid(f"{spec['env']} has hardly more than {len(known)} tasks: hold out fewer", param="tasks")
        held[role] = tuple(found)
    references: list[tuple[Ids, Ids]] = []
    room, number, wanted = recipe.context_tokens - ANSWER_TOKENS, 0, tasks.curated
    while wanted and number < tasks.curated * TRIES:
        one, number = seed_of(seed, CURATED, number), number + 1
        if not known & {await task_of(make(each), its) for each, its in tasks_in(environment.spec, one)}:
            references += [pair async for pair in _solved(environment, one, tokens=tokens, room=room)]
            wanted -= 1
    if tasks.curated and not references:
        raise Invalid(f"{spec['env']} knows no reference solutions: begin without (curated=0)", param="curated")
    if recipe.teacher and not environment.reference(held[STOP][0]):
        raise Invalid(f"{spec['env']} knows no reference solutions: practise without (teacher=0)", param="teacher")
    curriculum = Curriculum.open(spec, plan=Plan(seed=seed)) if tasks.curriculum else None
    return PracticeGround(
        spec=spec, tokens=tokens, recipe=recipe, tasks=tasks, seed=seed, held=held, known=frozenset(known),
        references=tuple(references), curriculum=curriculum,
        made={json.dumps(spec, sort_keys=True): environment}, host=LazyWorkers(workers) if workers else None,
    )  # fmt: skip


def seed_of(*path: int) -> int:
    """A task's or an actor's seed, from 0 to 2**63 - 1, that depends on these numbers alone."""
    digest = hashlib.blake2b(" ".join(map(str, path)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def passed(rewards: Sequence[float]) -> float:
    """The share of full rewards; 0 of none."""
    return fmean(one >= FULL for one in rewards) if rewards else 0.0


async def _solved(
    environment: Environment, seed: int, *, tokens: Tokens, room: int
) -> AsyncIterator[tuple[Ids, Ids]]:  # fmt: skip
    """The turns of one reference solution, as an actor would have read and said them. Those that do not fit are left
    out, and so are those from the first on that holds a control token: no actor could read them."""
    episode = environment.reset(seed)
    try:
        opening, tools = tuple(episode.task.messages), episode.task.tools
        messages = list(opening)
        for action in environment.reference(seed):
            try:
                prompt = render_within(tokens, messages, tools=tools, room=room)
                answer = turn(tokens, opening, answer=action.text)  # the same behind a conversation of any length
            except Invalid:
                return
            if len(prompt) <= room and len(answer) <= ANSWER_TOKENS:
                yield prompt, answer
            step = await episode.step(action)
            messages += [{"role": "assistant", "content": action.text}, *step.messages]
            if step.ending is not None:
                return
    finally:
        await episode.close()
