"""Practice for a policy: a night with a course of practice between what was taught and the exam.

The night goes first, so the version keeps what people taught; the course begins at the night's weights, and learns the
night's lessons and its anchor in every step beside the practice. The exam is the night's: what was taught, the suites,
recent traffic. Practice tasks are no evidence in it; what they showed is in the version's detail. The judge decides.

The job in the control database is an ordinary night of the policy's own recipe: whoever else takes it up, after a kill
or to build the version again without a person who was erased, makes the night without the practice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from dayjob.endings import Conflict, DayjobError, Invalid, JobState, PolicyKind
from dayjob.journal.control import put_state
from dayjob.journal.jobs import get_job, unfinished
from dayjob.journal.steering import drop_tainted
from dayjob.learn.language.anchors import make_anchors
from dayjob.learn.language.collect import Gathered
from dayjob.learn.language.exercises import encode
from dayjob.learn.language.job import NIGHT_BEFORE_DREAM, NIGHT_SHARE, Rehearsed, learn_layer
from dayjob.learn.language.lessons import Material
from dayjob.learn.language.mixture import parts_of
from dayjob.learn.language.night import Night
from dayjob.learn.language.parts import Part
from dayjob.learn.language.recipes import NightRecipe
from dayjob.learn.language.study import Study
from dayjob.learn.loop import LEASE_S, Learner
from dayjob.learn.practice.course import Course, Practised, mark_of
from dayjob.learn.practice.ground import Ground
from dayjob.learn.practice.recipe import PracticeRecipe
from dayjob.learn.practice.student import Student
from dayjob.learn.stages import Stages
from dayjob.learn.work import SEED, Made, Work
from dayjob.policies.engine_protocol import Engine
from dayjob.records import Job, Json

NOT_BETTER = "the practice made no weights that do better on held-out tasks than what there was"
BUSY = "another learner is at work on policy {policy!r}: wait for it to end, then ask again"
PRACTISING = "practising"  # the state that says which job is one of practice
WAITS = "policy {policy!r} has a job that waits or runs: let it end (`dayjob learn`), then ask again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be practised. ``ground`` is opened for the student that is to practise."""

    ground: Callable[[Student], Ground]
    recipe: PracticeRecipe


def parts_beside(
    study: Study, material: Material, *, recipe: NightRecipe, seed: int
) -> list[Part]:  # fmt: skip
    """The lessons of ``material`` and the anchor, as a night of ``recipe`` learns them: what practice must not cost."""
    exercises, _ = encode(
        material.lessons, study.tokens, method=recipe.method, room=study.writer.context_tokens,
        answer_tokens=recipe.answer_tokens,
    )  # fmt: skip
    anchors = make_anchors(
        study, material.rehearsals, exercises=exercises, recipe=recipe, seed=seed, held=material.held
    )  # fmt: skip
    return parts_of(study, exercises, anchors=anchors, recipe=recipe, seed=seed)


def told_of(practised: Practised) -> Json:
    """What a report says of a course: the steps taken and kept, the looks, the curve's reward."""
    return {
        "steps": len(practised.curve), "better": practised.better, "best_step": practised.best_step,
        "looks": [dict(one) for one in practised.looks], "reward": [one["reward"] for one in practised.curve],
    }  # fmt: skip


class PracticeLearner(Learner):
    """A learner that practises in the job that it asked for itself."""

    plan: Plan
    asked_for = ""  # the job's id

    def practise(self, policy: str, plan: Plan, *, tenant: str) -> Job:
        """The job, done; one that was killed goes on. Raises Conflict where the policy is frozen or somebody else
        learns it, Invalid where it is no language policy or the job failed."""
        key = (tenant, policy)
        if self.control.policy(*key).kind is not PolicyKind.LANGUAGE:
            raise Invalid(f"policy {policy!r} is a ranker: only language policies practise", param="policy")
        if self.frozen(*key):
            raise Conflict(f"policy {policy!r} is frozen: unfreeze it first (`dayjob freeze {policy} --off`)")
        lease = self.control.take_lease(f"learn/{tenant}/{policy}", self.holder, ttl_s=LEASE_S)
        if lease is None:
            raise Conflict(BUSY.format(policy=policy))
        try:
            asked = self._own_job(key)
        except DayjobError:
            self.control.release_lease(lease)
            raise
        self.plan, self.asked_for = plan, asked.id
        done = asked
        with self._holding(lease):  # this job and no other: what else waits is for whoever can do it
            while done.state in (JobState.QUEUED, JobState.RUNNING):  # it begins again where a lesson was taken back
                self._do(asked)
                drop_tainted(self.control)
                done = get_job(self.control, tenant, asked.id)
        if done.state is JobState.FAILED:
            raise Invalid(str(done.error))
        return done

    def _own_job(self, key: tuple[str, str]) -> Job:
        """The job of this practice, new or left by one that was killed. Raises Conflict where there is another's."""
        mine = (self.control.state(*key, PRACTISING) or {}).get("job")
        others = {one.id for one in unfinished(self.control) if (one.tenant, one.policy) == key} - {mine}
        asked = self.ask(key[1], tenant=key[0])
        if asked.id in others:
            raise Conflict(WAITS.format(policy=key[1]))
        with self.control.write() as db:
            put_state(db, *key, name=PRACTISING, state={"job": asked.id})
        return asked

    def _language(self, work: Work) -> Made:
        if self.nights is None or work.job.id != self.asked_for:
            return super()._language(work)
        made = learn_layer(
            work, self.nights, control=self.control, reader=self.reader,
            rehearse=lambda night, found: self._rehearsed(work, night, found),
        )  # fmt: skip
        practice = made.told.get("dream", {})
        told = {name: value for name, value in made.told.items() if name != "dream"} | {"practice": practice}
        return replace(made, told=told, detail=dict(made.detail) | {"practice": practice})

    def _rehearsed(self, work: Work, night: Night, found: Gathered) -> Rehearsed:
        assert self.nights is not None
        base = str(work.policy.spec["base"])
        folder, nightly = self.nights.find_base(base), self.nights.recipes[work.recipe]
        recipe = replace(self.plan.recipe, lora=night.shape)
        student = Student(folder, recipe, seed=SEED, device=self.nights.devices.get(base, "cpu"),
                          template=self.nights.templates.get(base))  # fmt: skip
        parts = parts_beside(student, found.material, recipe=nightly, seed=SEED)
        if night.state:
            student.weights.restore(night.state)
        ground = self.plan.ground(student)
        path = work.checkpoint.with_name(f"{work.job.id}.practice.safetensors")
        stages = Stages(
            path=path, mark=mark_of(folder, ground, recipe=recipe, seed=SEED, template=student.tokens.template),
            report=lambda share: work.progress(NIGHT_BEFORE_DREAM + (NIGHT_SHARE - NIGHT_BEFORE_DREAM) * share),
        )  # fmt: skip
        try:
            practised = Course(student, ground, recipe=recipe, seed=SEED, parts=parts, stages=stages).run()
        except Exception:
            path.unlink(missing_ok=True)  # it may hold what somebody taught who was erased meanwhile
            raise
        told = told_of(practised)
        if not practised.better:
            return Rehearsed(night=replace(night, why=night.why if night.state else NOT_BETTER), told=told, state=None)
        return Rehearsed(night=replace(night, state=practised.best, why=""), told=told, state=None)


def practise_model(
    folder: Path, plan: Plan, *, seed: int, checkpoint: Path | None = None, engine: Engine | None = None,
    progress: Callable[[float], None] | None = None,
) -> Practised:  # fmt: skip
    """A course on a model of one's own, with nobody's lessons: the anchor holds it to what it says by itself.

    ``engine``: of actors apart, which is closed at the end. With ``checkpoint`` a killed course goes on where it was.
    """
    recipe = plan.recipe
    student = Student(folder, recipe, seed=seed)
    ground = plan.ground(student)
    parts = parts_beside(student, Material(lessons=()), recipe=recipe.night(), seed=seed) if recipe.anchor else []
    mark = mark_of(folder, ground, recipe=recipe, seed=seed, template=student.tokens.template)
    stages = Stages(path=checkpoint, mark=mark, report=progress)
    course = Course(student, ground, recipe=recipe, seed=seed, parts=parts, stages=stages)
    if engine is None:
        return course.run()
    with TemporaryDirectory(prefix="dayjob-practice-") as handed:
        return course.run(apart=(engine, Path(handed)))
