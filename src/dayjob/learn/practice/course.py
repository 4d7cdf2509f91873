"""A course of practice on one page: attempt, credit, correct, step, look, keep the best.

It begins at the base model. With the actors at hand (the default) attempts and steps take turns, and equal tasks,
recipe, seed, threads and torch build give equal weights; apart they run at once, and no two runs are equal.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dayjob.endings import Invalid
from dayjob.learn.language.parts import Anchor, Likelihood, Part
from dayjob.learn.practice.apart import ALIAS, Actors
from dayjob.learn.practice.buffer import Group, ReplayBuffer, version_name
from dayjob.learn.practice.ground import Ground, KnowsSolutions, Look, close_ground
from dayjob.learn.practice.local import LocalEngine
from dayjob.learn.practice.progress import Arrays, CourseProgress, named
from dayjob.learn.practice.recipe import PracticeRecipe
from dayjob.learn.practice.step import PracticeStep
from dayjob.learn.practice.student import Student
from dayjob.learn.practice.teacher import SelfTeacher, Taught
from dayjob.learn.stages import Stages
from dayjob.objectives.checks import Stats
from dayjob.objectives.language.mix import add_stats, mix
from dayjob.objectives.language.retention import brake
from dayjob.policies.engine_protocol import Engine, VersionRef

PRACTICE, TEACHER = "practice", "teacher"
_WAIT_S = 0.5  # for groups, between two looks whether the actors live


@dataclass(frozen=True, slots=True, kw_only=True)
class Practised:
    """What a course made: the best weights, those of the last step, and how it went. ``curve``: a row a step;
    ``looks``: at held-out tasks, with the step, the steps of the warm start, and what was seen, the first at the
    weights as they were given; ``best_look``: the place of that at the best weights."""

    best: Mapping[str, Tensor]
    last: Mapping[str, Tensor]
    best_look: int
    curve: tuple[Mapping[str, Any], ...]
    looks: tuple[Mapping[str, Any], ...]

    @property
    def better(self) -> bool:
        """Whether any weights did better on the tasks that choose than those that were given."""
        return self.best_look > 0

    @property
    def best_step(self) -> int:
        """After how many steps the best weights were; 0 also for those of the warm start."""
        return int(self.looks[self.best_look]["step"])


class Course:
    """The steps of one course."""

    def __init__(
        self, student: Student, ground: Ground, *, recipe: PracticeRecipe, seed: int, parts: Sequence[Part] = (),
        stages: Stages | None = None,
    ) -> None:  # fmt: skip
        """``parts``: what else each step learns, the anchor among them (`learn.language.mixture`)."""
        self._student, self._ground, self._recipe, self._seed = student, ground, recipe, seed
        self._parts, self._stages = parts, stages or Stages()
        self._step = PracticeStep(student, recipe)
        self._engine = LocalEngine(student, name=ALIAS)
        self._at = CourseProgress.begin(student.weights, lag=recipe.lag)
        self._await: Callable[[Coroutine[Any, Any, Any]], Any]  # on the loop that the ground is used from
        self._teacher: SelfTeacher | None = None
        if recipe.teacher:
            if not isinstance(ground, KnowsSolutions):
                raise Invalid("these tasks have no known solutions to teach from: leave out teacher", param="teacher")
            self._teacher = SelfTeacher(student, recipe, solution=ground.solution)

    def run(self, *, apart: tuple[Engine, Path] | None = None) -> Practised:
        """All steps. ``apart``: an engine of its own, which is closed at the end, for actors that run at once with the
        learner, and the folder in which they are handed adapters.

        Raises Invalid for full weights or a lag apart, and where the tasks give nothing to learn from.
        """
        recipe = self._recipe
        if apart is not None and (recipe.full or recipe.lag):
            raise Invalid("full weights and a lag on purpose need the actors at hand: leave out apart", param="apart")
        # At hand nothing is begun ahead of its step, so that runs can be repeated.
        buffer = ReplayBuffer(per_step=recipe.groups, ahead=recipe.ahead if apart else 0, reuse=recipe.reuse)
        self._resume(buffer)
        if apart is None:
            with asyncio.Runner() as runner:
                self._await = runner.run
                try:
                    self._begin()
                    self._at_hand(buffer)
                finally:
                    runner.run(close_ground(self._ground))
        else:
            engine, folder = apart
            actors = Actors(self._ground, buffer, engine=engine, folder=folder, shape=recipe.lora)
            # One loop for everything that the ground does: nobody looks, or writes down where the curriculum stands,
            # while a group is told of.
            self._await = actors.run
            self._apart(buffer, actors)
        self._stages.finish()
        at = self._at
        return Practised(
            best=at.best, last=self._student.weights.state(), best_look=at.best_look, curve=tuple(at.curve),
            looks=tuple(at.looks),
        )  # fmt: skip

    def _begin(self) -> None:
        """Look at the weights as they were given, and again after a warm start: either may turn out the best."""
        if self._at.looks:
            return
        self._look()
        if self._warm():
            self._look()

    # ---- two ways to come by attempts

    def _at_hand(self, buffer: ReplayBuffer) -> None:
        while self._at.step < self._recipe.steps:
            self._await(self._collect(buffer))
            self._learn(buffer.take(0.0))
            self._after(buffer)

    async def _collect(self, buffer: ReplayBuffer) -> None:
        """Groups until a step has enough, written by the weights of ``lag`` updates ago."""
        at, weights = self._at, self._student.weights
        now = weights.state() if self._recipe.lag else None
        if now is not None:
            weights.restore(at.past[0])
        update = at.update - (len(at.past) - 1)
        await self._engine.swap(ALIAS, VersionRef(name=version_name(update), digest=version_name(update)))
        try:
            while buffer.missing():
                _check_fault(buffer)
                tickets = [buffer.ticket() for _ in range(buffer.missing())]
                await asyncio.gather(*(self._group(buffer, one) for one in tickets if one is not None))
        finally:
            if now is not None:
                weights.restore(now)

    async def _group(self, buffer: ReplayBuffer, ticket: int) -> None:
        buffer.add(ticket, await self._ground.attempts(self._engine, ALIAS, ticket=ticket))

    def _apart(self, buffer: ReplayBuffer, actors: Actors) -> None:
        at = self._at
        try:
            self._begin()
            actors.start(self._student.weights.state(), update=at.update)
            while at.step < self._recipe.steps:
                groups = buffer.take(_WAIT_S)
                actors.check()
                if not groups:
                    _check_fault(buffer)
                    continue
                before = at.update
                self._learn(groups)
                if at.update > before:
                    actors.send(self._student.weights.state(), update=at.update)
                self._after(buffer)
        finally:
            buffer.close()
            actors.close()

    # ---- one step

    def _learn(self, groups: Sequence[Group]) -> None:
        at, recipe, weights = self._at, self._recipe, self._student.weights
        found, stale, stats = self._step.prepare(groups, update=at.update)
        name, corrections = self._step.correction(stale)
        others = [part for part in self._parts if part.name != Anchor.name]
        taught: Sequence[Taught] = ()
        if self._teacher is not None:
            taught, told_of_it = self._teacher.rows(groups, self._await(self._teacher.solutions(groups)))
            stats |= told_of_it
        # The KL of the step before: shares are known before a step, so microbatches add up.
        pace = brake(at.kl, budget=recipe.kl_budget)
        told: dict[str, float] = {}
        if found.rows or taught or others:
            at.optimizer.zero_grad()
            seen: Stats = {}
            for piece in self._step.losses(found.rows, corrections=corrections):
                loss, more = mix({PRACTICE: piece}, shares={PRACTICE: pace})
                torch.autograd.backward(loss)
                seen = add_stats(seen, more)
            if self._teacher is not None:
                for piece in self._teacher.losses(taught):
                    loss, more = mix({TEACHER: piece}, shares={TEACHER: recipe.teacher * pace})
                    torch.autograd.backward(loss)
                    seen = add_stats(seen, more)
            seen = self._other_parts(seen, pace)
            told = {one: float(value) for one, value in seen.items()}
            told["gradient"] = float(torch.nn.utils.clip_grad_norm_(weights.parameters(), recipe.max_gradient))
            for group in at.optimizer.param_groups:
                group["lr"] = recipe.learning_rate * min(1.0, (at.update + 1) / max(recipe.warmup, 1))
            at.optimizer.step()
            at.update += 1
            at.kl = told.get(f"{Anchor.name}/kl", 0.0)
            if recipe.lag:
                at.past.append(weights.state())
        at.step += 1
        at.curve.append({"step": at.step, "update": at.update, "correction": name, "brake": pace} | stats | told)

    def _other_parts(self, seen: Stats, pace: float) -> Stats:
        for part in self._parts:
            share = part.share if part.name == Anchor.name else part.share * pace
            for piece in part.losses(self._student, self._at.step):
                loss, more = mix({part.name: piece}, shares={part.name: share})
                torch.autograd.backward(loss)
                seen = add_stats(seen, more)
        return seen

    def _warm(self) -> bool:
        """Supervised steps on curated turns, before anything was attempted; whether there were any."""
        at, recipe = self._at, self._recipe
        deck = list(self._ground.curated()) if recipe.warm_steps else []
        if not deck:
            return False
        part = Likelihood("curated", deck, recipe=recipe.night(), seed=self._seed)
        for step in range(recipe.warm_steps):
            at.optimizer.zero_grad()
            for loss, _ in part.losses(self._student, step):
                torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(self._student.weights.parameters(), recipe.max_gradient)
            for group in at.optimizer.param_groups:
                group["lr"] = recipe.learning_rate * min(1.0, (step + 1) / max(recipe.warmup, 1))
            at.optimizer.step()
            at.warmed = step + 1
        at.update += 1
        at.past.clear()
        at.past.append(self._student.weights.state())
        return True

    # ---- between steps

    def _after(self, buffer: ReplayBuffer) -> None:
        at, recipe = self._at, self._recipe
        is_last = at.step == recipe.steps
        if is_last or (recipe.look_every and at.step % recipe.look_every == 0):
            self._look()
        if not is_last and at.step % recipe.save_every == 0:
            self._save(buffer)
        self._stages.say(at.step / recipe.steps)

    def _look(self) -> None:
        look: Look = self._await(self._ground.look(self._engine, ALIAS))
        self._at.looked(self._student.weights, score=look.score, rates=look.rates)

    def _save(self, buffer: ReplayBuffer) -> None:
        others: dict[str, Arrays] = {
            "buffer": {"groups": buffer.state()},
            "ground": {"state": np.frombuffer(self._await(self._state_of_ground()), np.uint8)},
        }
        if self._step.value is not None:
            others["value"] = self._step.value.state()
        self._at.save(self._stages, self._student.weights, others=others)

    async def _state_of_ground(self) -> bytes:
        return json.dumps(self._ground.state()).encode()

    def _resume(self, buffer: ReplayBuffer) -> None:
        saved = self._at.load(self._stages, self._student.weights)
        if saved is None:
            return
        buffer.restore(named(saved, "buffer")["groups"])
        self._ground.restore(json.loads(named(saved, "ground")["state"].tobytes()))
        if self._step.value is not None:
            self._step.value.restore(named(saved, "value"))


def _check_fault(buffer: ReplayBuffer) -> None:
    """Raises Invalid where attempts come to nothing, one after the other."""
    fault = buffer.fault()
    if fault is not None:
        told = f" (one of them: {fault})" if fault else ""
        message = f"attempt after attempt failed inside the environment{told}: check it with"
        raise Invalid(f"{message} practice.checks.check_environment", param="env")


def mark_of(
    folder: Path, ground: Ground, *, recipe: PracticeRecipe, seed: int, template: Mapping[str, Any] | None = None
) -> str:
    """SHA-256 of everything a course depends on: a checkpoint of anything else is not gone on from."""
    said = [asdict(recipe), seed, ground.mark, dict(template or {})]
    digest = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode())
    for path in sorted(folder.iterdir()):
        if path.is_file():
            with path.open("rb") as file:
                digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
