"""One row of `dayjob lab dream`: a day in a journal, the night's job on it, and what came of it in the real depot.

The job is the learner's own, from the journal to a version on disk: a row differs from another by the recipe that is
asked for, and the two rows that no user can ask for by one setting each. The gate is left out; real held-out requests
judge every version, whatever the dream thought of it.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from dayjob.cli.dreaming import dream_layer
from dayjob.config import Config
from dayjob.dream.dreaming import OfflineAuthor
from dayjob.dream.prove import prove
from dayjob.endings import Invalid, JobState
from dayjob.journal.control import Control
from dayjob.journal.jobs import dream_recipe, get_job
from dayjob.journal.notes import NotesReader
from dayjob.journal.readers import Reader
from dayjob.journal.versions import find_files
from dayjob.lab.clerk_course import held_out
from dayjob.lab.clerk_desk import ANSWER, Desk
from dayjob.lab.clerk_exam import kept_suites
from dayjob.lab.dream_authors import CarelessAuthor, unproved
from dayjob.lab.dream_day import POLICY, RECIPE, TENANT, USER, record_day
from dayjob.lab.dream_depot import Depot, Request
from dayjob.learn.language.anchors import Kept
from dayjob.learn.language.exercises import turn
from dayjob.learn.language.job import Nights
from dayjob.learn.language.parts import base_states, retention
from dayjob.learn.language.recipes import NightRecipe
from dayjob.learn.language.table import Question
from dayjob.learn.loop import Learner
from dayjob.learn.practice.local import LocalEngine
from dayjob.learn.practice.recipe import PracticeRecipe
from dayjob.learn.practice.student import Student
from dayjob.learn.work import Made, Work
from dayjob.memory.notes import NotesMemory
from dayjob.policies.adapters import WEIGHTS
from dayjob.practice.actor import EngineActor
from dayjob.practice.rollout import roll
from dayjob.records import Job, Json

CLERK = "clerk"  # the version that judging calls by name
FACTS = "facts"  # of what the clerk knows, beside the suites of its exam
NOTES_TOKENS = 64  # of notes in a context: they only say which rows of the anchor contradict a lesson
Piece = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What is made of a day. ``budget`` None: no dream; ``longer``: steps of the night, times the recipe's; ``proved``
    False: whatever the authors write is rehearsed in. ``learns`` False: the clerk as it is."""

    name: str
    budget: float | None = None
    longer: int = 1
    proved: bool = True
    learns: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """Everything that a row is made from, but for the way. ``judged``: seeds of requests that nobody asked by day."""

    model: Path
    depot: Depot
    asked: Sequence[Request]
    judged: Sequence[int]
    night: NightRecipe
    kept: int  # questions of a suite of what is to stay
    seed: int


def row(day: Day, way: Way, *, work: Path) -> Piece:
    """The figures of one way. ``work``: the data directory, from which a killed run goes on; removed at the end.
    Raises Invalid where the job failed."""
    began = time.process_time()
    told: Json = {}
    state: Mapping[str, Tensor] = {}
    if way.learns:
        done = _job(day, way, work=work)
        told = _told(done)
        state = _weights(work, done)
    judge = Judge(day)
    rewards = judge.rewards(state)
    piece = {
        "way": way.name, "seed": day.seed, "interactions": len(day.asked), "success": fmean(rewards),
        "rewards": rewards, "kept": judge.kept(state), "kl": judge.kl(state), "job": told,
        "cpu_s": round(time.process_time() - began, 1),
    }  # fmt: skip
    if way.learns:
        shutil.rmtree(work)
    return piece


# ---- the job


def _job(day: Day, way: Way, *, work: Path) -> Job:
    """The day's journal and its learner, both as they were left by a killed run."""
    if not (work / "recorded").exists():
        shutil.rmtree(work, ignore_errors=True)
        record_day(work, Desk(day.model), depot=day.depot, asked=day.asked, seed=day.seed)
        (work / "recorded").touch()
    control, reader = Control(work), Reader(work)
    memory = NotesMemory(NotesReader(work), control, silent=control.silent_people)
    recipe = replace(day.night, steps=way.longer * day.night.steps)
    nights = Nights(memory=memory, find_base=lambda _: day.model, notes_tokens=NOTES_TOKENS, recipes={RECIPE: recipe})
    learner = Learner(
        work, control, reader, threads=torch.get_num_threads(), holder="lab", nights=nights,
        dream=partial(_dream, nights=nights, control=control, reader=reader, proved=way.proved),
    )  # fmt: skip
    asked = learner.ask(
        POLICY, recipe=RECIPE if way.budget is None else dream_recipe(way.budget), tenant=TENANT, user=USER
    )
    if asked.state in (JobState.QUEUED, JobState.RUNNING):
        learner.step(watch_counts=False)
    done = get_job(control, TENANT, asked.id)
    if done.state is not JobState.SUCCEEDED:
        raise Invalid(f"{way.name}: the job is {done.state}: {done.error}")
    return done


def _dream(work: Work, *, nights: Nights, control: Control, reader: Reader, proved: bool) -> Made:
    """As `cli.dreams.Dreamer` does it, by the offline author and a careless one."""
    return dream_layer(
        work, nights, control=control, reader=reader, settings=Config(), by=(OfflineAuthor(), CarelessAuthor()),
        prover=prove if proved else unproved,
    )  # fmt: skip


def _told(done: Job) -> Json:
    """What is kept of a job's result: of a dream the figures, without what its programs are made of."""
    result = done.result or {}
    dream = result.get("dream")
    told: Json = {
        "challenger": result.get("challenger"),
        "reason": result.get("reason"),
        "learned": result.get("learned"),
    }
    if dream is None:
        return told
    names = ("name", "author", "admitted", "reason", "before", "after", "shown")
    return told | {
        "dream": {key: dream[key] for key in ("read", "kept", "steps", "episodes", "tokens", "faults")},
        "environments": [{key: one[key] for key in names} for one in dream["environments"]],
    }  # fmt: skip


def _weights(work: Path, done: Job) -> Mapping[str, Tensor]:
    """The factors of the version that a job made; none where it made none: the base stays."""
    name = (done.result or {}).get("challenger")
    if name is None:
        return {}
    control = Control(work)
    digest = control.version(TENANT, done.policy, name).digest
    folder, _ = find_files(work, TENANT, done.policy, name, digest=digest)
    found: dict[str, Tensor] = safetensors.torch.load_file(folder / WEIGHTS)
    return found


# ---- what judges


class Judge:
    """The real depot and what the clerk could do before; the base's answers are written once."""

    def __init__(self, day: Day) -> None:
        self._day = day
        recipe = PracticeRecipe(lora=day.night.lora, context_tokens=1024, slots=64)
        self._student = Student(day.model, recipe, seed=day.seed)
        self._begin = self._student.weights.state()  # an adapter that changes nothing
        self._suites = suites_of(day)

    def rewards(self, state: Mapping[str, Tensor]) -> list[float]:
        """Of the most probable actions on the real requests that nobody asked by day, in the order of their seeds."""
        self._be(state)
        student = self._student
        actor = EngineActor(
            LocalEngine(student, name=CLERK), CLERK, temperature=0.0, context_tokens=student.writer.context_tokens,
            render=lambda messages, tools: student.tokens.render(messages, tools=tools),
        )  # fmt: skip

        async def played() -> dict[int, float]:
            return {one.seed: one.reward async for one in roll(self._day.depot, self._day.judged, actor=actor)}

        found = asyncio.run(played())
        return [found[seed] for seed in self._day.judged]

    def kept(self, state: Mapping[str, Tensor]) -> dict[str, float]:
        """The share of each suite that the most probable answer gets right, token for token, its end too."""
        self._be(state)
        flat = [one for questions in self._suites.values() for one in questions]
        written = self._student.writer.write(self._prompts(flat), seeds=[0] * len(flat), max_tokens=ANSWER,
                                             temperature=0.0)  # fmt: skip
        tokens = self._student.tokens
        right = iter([
            one.token_ids == turn(tokens, asked.messages, answer=asked.answer)
            for asked, one in zip(flat, written, strict=True)
        ])  # fmt: skip
        return {name: fmean(next(right) for _ in questions) for name, questions in self._suites.items()}

    @torch.no_grad()
    def kl(self, state: Mapping[str, Tensor]) -> float:
        """KL(base || new), nats a token, along the base's most probable answers to the same questions."""
        self._be(state)
        flat = [one for questions in self._suites.values() for one in questions]
        prompts = self._prompts(flat)
        with self._student.base() as writer:
            said = writer.write(prompts, seeds=[0] * len(flat), max_tokens=ANSWER, temperature=0.0)
        rows = [
            Kept(question=asked.messages, prompt=prompt, answer=one.token_ids, self_written=False)
            for asked, prompt, one in zip(flat, prompts, said, strict=True)
        ]
        base = base_states(self._student, rows, microbatch=64)
        told = retention(self._student, rows, base=base, microbatch=64)
        return float(sum(float(stats["kl"]) for _, stats in told))

    def _prompts(self, questions: Sequence[Question]) -> list[tuple[int, ...]]:
        return [self._student.tokens.render(one.messages) for one in questions]

    def _be(self, state: Mapping[str, Tensor]) -> None:
        self._student.weights.restore(state or self._begin)


def suites_of(day: Day) -> dict[str, list[Question]]:
    """Facts and skills that the clerk was brought up with, not knowing, and obeying notes."""
    known = [
        Question(messages=({"role": "user", "content": one.messages[0][1]},), answer=one.messages[-1][1])
        for one in held_out("facts", count=day.kept, seed=day.seed)
    ]
    return {FACTS: known} | kept_suites(each=day.kept, seed=day.seed)
