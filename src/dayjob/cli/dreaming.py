"""Where a dream is put together: journal, author, sandbox, policy, learner. A job of the learner's process.

A dream's version is a night's with a rehearsal between the night and its exam: it begins at what the night learned,
learns from attempts at the environments that were proved sound, beside the night's own lessons and anchor, and is then
an ordinary challenger. What chooses between its weights are tasks of the dream; what judges it is real held-out work.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from dayjob.cli.dream_apart import apart_of, held_keys
from dayjob.config import Config
from dayjob.dream.apart import Apart
from dayjob.dream.author_model import ModelAuthor
from dayjob.dream.dreaming import Dreamt, OfflineAuthor, Prover, dream
from dayjob.dream.excerpts import Excerpt
from dayjob.dream.kept import Kept
from dayjob.dream.propose import Allowance, Author
from dayjob.dream.prove import Demands, fault_of, prove
from dayjob.dream.rehearse import NothingLeft, Rehearsal, Spent, steps_within
from dayjob.dream.store import programs, rates_after, record
from dayjob.endings import Ending, Invalid, OutcomeKind
from dayjob.journal.control import Control, add_point
from dayjob.journal.jobs import budget_of
from dayjob.journal.readers import Reader
from dayjob.learn.language.anchors import Anchors, make_anchors
from dayjob.learn.language.collect import Gathered
from dayjob.learn.language.exercises import Exercise, encode
from dayjob.learn.language.job import NIGHT_BEFORE_DREAM, NIGHT_SHARE, Nights, Rehearsed, learn_layer
from dayjob.learn.language.mixture import parts_of
from dayjob.learn.language.night import Night
from dayjob.learn.language.parts import Part
from dayjob.learn.language.readings import Read, thumb_of, verdict_of
from dayjob.learn.language.recipes import NightRecipe
from dayjob.learn.language.splits import key_of
from dayjob.learn.practice.apart import ALIAS
from dayjob.learn.practice.course import Course, Practised, mark_of
from dayjob.learn.practice.ground import Look
from dayjob.learn.practice.local import LocalEngine
from dayjob.learn.practice.recipe import PracticeRecipe
from dayjob.learn.practice.student import Student
from dayjob.learn.stages import Stages
from dayjob.learn.work import SEED, Made, Work
from dayjob.policies.engine_protocol import Engine
from dayjob.policies.tokens import Tokens
from dayjob.practice.actor import EngineActor
from dayjob.practice.calls import read_calls
from dayjob.practice.environments.program import close_idle
from dayjob.records import Json, Outcome, Trajectory

DEMANDS = Demands()
LOOKS = 5  # at held-out tasks of the dream, in one rehearsal
TEACHING = (OutcomeKind.CORRECTION, OutcomeKind.DEMONSTRATION)
NOT_BETTER = "the rehearsal made no weights that do better in the dream than the night's own"
DREAMS = "dreams"  # the series of what was dreamt


def dream_layer(
    work: Work, nights: Nights, *, control: Control, reader: Reader, settings: Config,
    by: Sequence[Author] | None = None, prover: Prover = prove,
) -> Made:  # fmt: skip
    """One dream of one layer. ``by``: who writes; None: the authors of the settings. Raises what `learn_layer`
    raises."""

    def rehearse(night: Night, found: Gathered) -> Rehearsed:
        base = str(work.policy.spec["base"])
        rehearsed = _Rehearsing(
            work=work, night=night, found=found, folder=nights.find_base(base), settings=settings,
            recipe=nights.recipes[str(work.policy.spec["recipe"])], device=nights.devices.get(base, "cpu"),
            template=nights.templates.get(base), by=authors(settings) if by is None else by, prover=prover,
        ).done()  # fmt: skip
        with control.write() as db:
            point = rehearsed.told | {"job": work.job.id, "at_ms": int(time.time() * 1000)}
            add_point(db, work.job.tenant, work.job.policy, name=DREAMS, point=point)
        return rehearsed

    night_work = replace(work, recipe=str(work.policy.spec["recipe"]))
    return learn_layer(night_work, nights, control=control, reader=reader, rehearse=rehearse)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rehearsing:
    """One dream's rehearsal."""

    work: Work
    night: Night
    found: Gathered
    folder: Path
    recipe: NightRecipe
    device: str
    template: Mapping[str, Any] | None
    settings: Config
    by: Sequence[Author]
    prover: Prover

    def done(self) -> Rehearsed:
        """Propose, prove, rehearse; where nothing was admitted, the night stays as it was."""
        kept = self.work.checkpoint.with_name(f"{self.work.job.id}.dreamt.safetensors")
        try:
            rehearsed = self._done(kept)
        except Exception:
            kept.unlink(missing_ok=True)
            raise
        finally:
            close_idle()
        kept.unlink(missing_ok=True)  # people's words: only who is killed leaves them, to go on with
        return rehearsed

    def _done(self, kept: Path) -> Rehearsed:
        shape = self.night.shape
        practice = PracticeRecipe(lora=shape, context_tokens=self.recipe.context_tokens, slots=self.recipe.microbatch)
        student = Student(self.folder, practice, seed=SEED, device=self.device, template=self.template)
        if self.night.state:
            student.weights.restore(self.night.state)
        actor = EngineActor(
            LocalEngine(student, name=ALIAS), ALIAS, render=_render(student.tokens),
            context_tokens=student.writer.context_tokens, salt="dream",
        )  # fmt: skip
        excerpts = list(excerpts_of(self.found))
        apart = apart_of(self.found, excerpts)
        dreamt = self._dreamt(excerpts, actor=actor, apart=apart, kept=kept)
        budget = budget_of(self.work.recipe)
        assert budget is not None, "it is a dream"
        if not dreamt.admitted:
            told = record(dreamt, budget=budget, spent=Spent(), after={}, steps=0)
            return self._rehearsed(self.night, dreamt, told)
        ground = DreamGround(
            tuple(one.program for one in dreamt.admitted if one.program is not None), _render(student.tokens),
            student.writer.context_tokens, group=practice.attempts, held=tuple(one.held for one in dreamt.admitted),
            apart=apart,
        )  # fmt: skip
        exercises, anchors = self._beside(student)
        beside = step_tokens(exercises, anchors, recipe=self.recipe)
        steps = steps_within(
            budget * night_tokens(self.found, student.tokens, recipe=self.recipe, beside=beside),
            per_step=practice.groups * practice.attempts * _per_attempt(dreamt) + beside,
        )  # fmt: skip
        practice = replace(practice, steps=steps, look_every=max(1, steps // LOOKS))
        parts = parts_of(student, exercises, anchors=anchors, recipe=self.recipe, seed=SEED)
        practised = self._practise(student, ground, recipe=practice, parts=parts)
        better = practised is not None and practised.better
        after = {}
        if practised is not None:
            student.weights.restore(practised.best)
            after = asyncio.run(rates_after(dreamt, actor=actor, demands=DEMANDS))
        told = record(
            dreamt, budget=budget, spent=ground.spent, after=after, dropped=ground.lost(),
            steps=practised.best_step if practised is not None else 0,
            beside=beside * len(practised.curve) if practised is not None else 0.0,
        )  # fmt: skip
        if practised is None or not better:
            why = self.night.why if self.night.state else NOT_BETTER
            return self._rehearsed(replace(self.night, why=why), dreamt, told)
        return self._rehearsed(replace(self.night, state=practised.best, why=""), dreamt, told)

    def _dreamt(self, excerpts: Sequence[Excerpt], *, actor: EngineActor, apart: Apart, kept: Path) -> Dreamt:
        """What authors and proofs came to; of a dream that was killed, as far as it is known already."""
        inputs = [[asdict(one) for one in excerpts], apart.mark, asdict(DEMANDS), asdict(allowance(self.settings))]
        told = [inputs, self.settings.dream_author, self.settings.dream_author_url, asdict(self.recipe)]
        mark = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode())
        for name, one in sorted(self.night.state.items()):
            mark.update(name.encode() + one.numpy().tobytes())
        stages = Stages(path=kept, mark=mark.hexdigest())
        saved = stages.load()
        if not saved:
            kept.unlink(missing_ok=True)  # of other inputs: somebody may have been erased since
        known = Kept.of(
            saved["dreamt"].tobytes() if saved else b"",
            lambda data: stages.save({"dreamt": np.frombuffer(data, np.uint8)}),
        )
        return asyncio.run(
            dream(
                excerpts, authors=known.authors(self.by), actor=actor, allowance=allowance(self.settings),
                demands=DEMANDS, progress=lambda share: self._say(0.3 * share), prover=known.prover(self.prover),
                apart=apart,
            )
        )  # fmt: skip

    def _practise(
        self, student: Student, ground: DreamGround, *, recipe: PracticeRecipe, parts: Sequence[Part]
    ) -> Practised | None:
        """None where every environment turned out to be none."""
        path = self.work.checkpoint.with_name(f"{self.work.job.id}.dream.safetensors")
        mark = mark_of(self.folder, ground, recipe=recipe, seed=SEED, template=student.tokens.template)
        stages = Stages(path=path, mark=mark, report=lambda share: self._say(0.3 + 0.7 * share))
        try:
            return Course(student, ground, recipe=recipe, seed=SEED, parts=parts, stages=stages).run()
        except NothingLeft:
            path.unlink(missing_ok=True)
            return None
        except Exception:
            path.unlink(missing_ok=True)  # it may hold what somebody said who was erased meanwhile
            raise

    def _beside(self, student: Student) -> tuple[list[Exercise], Anchors]:
        """The night's own lessons and anchor, which the rehearsal must not cost."""
        material, recipe = self.found.material, self.recipe
        exercises, _ = encode(
            material.lessons, student.tokens, method=recipe.method, room=student.writer.context_tokens,
            answer_tokens=recipe.answer_tokens,
        )  # fmt: skip
        anchors = make_anchors(
            student, material.rehearsals, exercises=exercises, recipe=recipe, seed=SEED, held=material.held
        )  # fmt: skip
        return exercises, anchors

    def _rehearsed(self, night: Night, dreamt: Dreamt, told: Json) -> Rehearsed:
        return Rehearsed(night=night, told=told, state={"job": self.work.job.id, "programs": programs(dreamt)})

    def _say(self, share: float) -> None:
        self.work.progress(NIGHT_BEFORE_DREAM + (NIGHT_SHARE - NIGHT_BEFORE_DREAM) * share)


class DreamGround(Rehearsal):
    """A rehearsal, as a course of practice sees it."""

    async def attempts(self, engine: Engine, version: str, *, ticket: int) -> list[Trajectory]:
        """See `learn.practice.ground`."""
        return await self.rehearsed(engine, version, ticket=ticket)

    async def look(self, engine: Engine, version: str) -> Look:
        """The mean over the environments."""
        rates = await self.rates(engine, version)
        return Look(score=fmean(rates.values()) if rates else 0.0, rates=rates)

    def curated(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """None: the references are the author's, not the job's."""
        return []


def authors(settings: Config) -> list[Author]:
    """The offline author, and the model that the configuration names."""
    found: list[Author] = [OfflineAuthor()]
    if settings.dream_author:
        found.append(
            ModelAuthor(
                url=settings.dream_author_url, model=settings.dream_author, key=settings.dream_author_key,
                check=fault_of,
            )
        )  # fmt: skip
    return found


def allowance(settings: Config) -> Allowance:
    """What an author may spend."""
    return Allowance(
        calls=settings.dream_author_calls, tokens=settings.dream_author_tokens, seconds=settings.dream_author_s
    )


def excerpts_of(found: Gathered) -> Iterable[Excerpt]:
    """What a dream may be made of: the decisions that may teach this layer, but for conversations that hold a question
    which the exam asks or early stopping reads."""
    held = held_keys(found)
    for read in found.recent.reads:
        messages = read.messages
        asked = (messages[: at + 1] for at, one in enumerate(messages) if one["role"] != "assistant")
        if not any(key_of(tuple(one)) in held for one in asked):
            yield from _excerpt(read, found.recent.notes)


def _excerpt(read: Read, notes: frozenset[str]) -> Iterable[Excerpt]:
    """The decision's only answer; what somebody taught instead counts where its note may teach this layer."""
    choices = read.generation.choices
    if len(choices) != 1 or choices[0].ending is Ending.ABORTED:
        return
    taught = [one.record for one in read.told if one.record.kind in TEACHING and one.record.id in notes]
    right = _right(taught[-1]) if taught else ""
    verdict = {"accept": 1, "reject": -1}.get(str(verdict_of(read, 0)), 0)
    liked = -1 if taught and not right else thumb_of(read) or verdict
    answer = {"role": "assistant", "content": choices[0].text}
    yield Excerpt(
        id=read.decision.id, messages=(*read.messages, answer), tools=read.generation.tools, liked=liked, right=right
    )  # fmt: skip


def _right(taught: Outcome) -> str:
    """A demonstration is the answer; a correction is one where it is a tool call, and else a rule or a hint."""
    text = taught.text or ""
    calls = read_calls(text)
    is_call = bool(calls) and not any(call.error for call in calls)
    return text if taught.kind is OutcomeKind.DEMONSTRATION or is_call else ""


def step_tokens(exercises: Sequence[Exercise], anchors: Anchors, *, recipe: NightRecipe) -> float:
    """Tokens of the lessons and of the anchor that a step reads, of a night as of a rehearsal: each row's prompt, and
    what is said behind it. What a teacher reads beside is on neither side of the account."""
    taught = [len(one.prompt) + (len(one.target or one.lesson.answer_ids) or recipe.answer_tokens) for one in exercises]
    kept = [len(one.prompt) + len(one.answer) for one in anchors.rows]
    return sum(
        fmean(lengths) * min(count, len(lengths))
        for lengths, count in ((taught, recipe.lessons), (kept, recipe.anchor_rows))
        if lengths
    )


def night_tokens(found: Gathered, tokens: Tokens, *, recipe: NightRecipe, beside: float) -> float:
    """Tokens that the night without the dream reads in its steps: what a budget of ×1 is. ``beside``: of one step. Of a
    night that has nothing to learn, as many as it would read of what was asked."""
    if not beside:
        lengths = []
        for one in found.recent.reads:
            try:
                lengths.append(len(tokens.render(one.messages)))
            except Invalid:
                continue
        beside = (fmean(lengths) if lengths else 1.0) * (recipe.lessons + recipe.anchor_rows)
    return beside * recipe.steps * len(recipe.learning_rates)


def _render(tokens: Tokens) -> Callable[..., tuple[int, ...]]:
    return lambda messages, tools: tokens.render(messages, tools=tools)


def _per_attempt(dreamt: Dreamt) -> float:
    """What an attempt costs on average, in tokens, as the proofs measured it."""
    figures = [check.figures for one in dreamt.admitted for check in one.checks if check.name == "useful"]
    return max(1.0, fmean(float(one["tokens"]) for one in figures))
