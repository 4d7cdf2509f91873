"""From practice to a waiting challenger of a policy: a night, a course, an exam."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from dayjob.endings import Conflict, EpisodeEnding, Invalid, JobState, NoteScope, PolicyKind, VersionStatus
from dayjob.journal import jobs
from dayjob.journal.versions import read_files
from dayjob.learn.language.job import Nights
from dayjob.learn.language.recipes import RECIPES
from dayjob.learn.loop import Learner
from dayjob.learn.practice.ground import Look
from dayjob.learn.practice.job import Plan, PracticeLearner
from dayjob.learn.practice.recipe import PracticeRecipe
from dayjob.policies.engine_protocol import Engine, Prompt, Sampling
from dayjob.policies.tokens import Tokens
from dayjob.records import Policy, Trajectory, Turn, Version
from tests.learn.language.desk import BASE, TENANT, Desk
from tests.memory.office import POLICY
from tests.policies.language.worlds import byte_tokenizer
from tests.serve.chatting import save_tiny

FEW = replace(
    RECIPES["sft-answers"], learning_rates=(2e-2,), steps=24, warmup=2, lessons=4, microbatch=8, answer_tokens=8,
    context_tokens=256, anchor=0.1, anchor_rows=2, self_written=0, stop_every=0, save_every=4, kl_budget=1e3,
)  # fmt: skip
RECIPE = PracticeRecipe(
    steps=8, groups=2, attempts=12, learning_rate=5e-3, look_every=4, save_every=2, context_tokens=256, anchor=0.0,
    self_written=0, kl_budget=1e3,
)  # fmt: skip
ASKED = [{"role": "user", "content": "Say a letter."}]


class Killed(BaseException):
    """What no handler catches: the end of a process."""


@dataclass
class Letters:
    """Rewarded is an answer that begins with a letter."""

    tokens: Tokens
    killed_at: int = -1
    mark = "letters"

    async def attempts(self, engine: Engine, version: str, *, ticket: int) -> list[Trajectory]:
        if ticket == self.killed_at:
            raise Killed
        return list(await asyncio.gather(*(self.one(engine, version, 100 * ticket + n, 1.0) for n in range(12))))

    async def one(self, engine: Engine, version: str, seed: int, temperature: float) -> Trajectory:
        prompt = self.tokens.render(ASKED)
        sampling = Sampling(max_tokens=1, seed=seed, temperature=temperature)
        (chunk,) = [one async for one in engine.generate(Prompt(token_ids=prompt), version, sampling=sampling)]
        turn = Turn(prompt_ids=prompt, token_ids=chunk.token_ids, logprobs=chunk.sample_logprobs or (),
                    versions=chunk.versions, text=chunk.text)  # fmt: skip
        reward = float(chunk.text.isascii() and chunk.text.isalpha())
        return Trajectory(spec={"env": "letters"}, seed=0, group="", turns=(turn,), messages=(), reward=reward,
                          parts=(), ending=EpisodeEnding.DONE)  # fmt: skip

    async def look(self, engine: Engine, version: str) -> Look:
        found = await asyncio.gather(*(self.one(engine, version, seed, 1.0) for seed in range(64)))
        rate = sum(one.reward for one in found) / len(found)
        return Look(score=rate, rates={"stop": rate, "judge": rate})

    def curated(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        return []

    def state(self) -> dict[str, int]:
        return {}

    def restore(self, state: dict[str, int]) -> None:
        assert state == {}


class Broken(Letters):
    """Every attempt ends the course."""

    async def attempts(self, *_: object, **__: object) -> list[Trajectory]:
        raise Invalid("no such thing")


@dataclass
class Practice:
    """A data directory with a language policy, and learners over it."""

    desk: Desk
    folder: Path

    def learner(
        self, kind: type[Learner] = PracticeLearner, *, told: Callable[[float], None] = lambda _: None
    ) -> Learner:
        nights = Nights(memory=self.desk.memory, find_base=lambda _: self.folder, recipes={"sft-answers": FEW})
        reader = self.desk.memory._reader
        return kind(self.desk.root, self.desk.control, reader, threads=1, holder="p", told=told, nights=nights)

    def plan(self, *, killed_at: int = -1) -> Plan:
        return Plan(ground=lambda student: Letters(student.tokens, killed_at=killed_at), recipe=RECIPE)

    def versions(self) -> list[Version]:
        return [one for one in self.desk.control.versions(TENANT, POLICY) if one.number]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def practice(tmp_path: Path, model: Path) -> Iterator[Practice]:
    desk = Desk(tmp_path / "data", Tokens(byte_tokenizer()))
    spec = {"kind": "language", "base": BASE, "recipe": "sft-answers"}
    baseline = Version(
        tenant=TENANT, policy=POLICY, name="v0-baseline", number=0, parent=None, recipe="baseline", digest="0" * 64,
        from_seq=0, to_seq=0, status=VersionStatus.BASELINE, created_ms=0,
    )  # fmt: skip
    policy = Policy(tenant=TENANT, name=POLICY, kind=PolicyKind.LANGUAGE, spec=spec, created_ms=0)
    desk.control.create_policy(policy, baseline)
    for question in ("Who?", "Why?", "How?"):
        desk.chat(question)
    note = desk.correct("When is lunch?", "9:15", said=("10:00",))
    desk.memory.share(desk.memory.find(TENANT, [POLICY], note), scope=NoteScope.TENANT, by="admin")
    yield Practice(desk, model)
    desk.close()


def test_practice_makes_a_waiting_challenger_that_keeps_what_people_taught(practice: Practice):
    job = practice.learner().practise(POLICY, practice.plan(), tenant=TENANT)
    (version,) = practice.versions()
    assert job.state is JobState.SUCCEEDED
    assert job.result["challenger"] == version.name
    assert (version.status, version.recipe) == (VersionStatus.WAITING, "sft-answers")
    told = version.detail["practice"]
    assert told["best_step"] > 0
    assert told["looks"][-1]["judge"] > told["looks"][0]["judge"] + 0.1
    assert job.result["practice"] == told
    # The exam is the night's, on what was taught, and no practice task is a question in it.
    exam = practice.desk.control.state(TENANT, POLICY, f"exam/{version.name}")
    taught = {"asked": 1, "right_before": 0, "right_after": 1}
    assert exam["taught"] | taught == exam["taught"]
    assert all("letter" not in str(one) for one in exam["questions"])
    assert practice.desk.control.state(TENANT, POLICY, f"dream/{version.name}") is None
    files, manifest = read_files(practice.desk.root, TENANT, POLICY, version.name, digest=version.digest)
    assert {"adapter_config.json", "adapter_model.safetensors"} <= files.keys()
    assert manifest.network["base"] == BASE


@pytest.mark.slow
def test_a_killed_course_goes_on_and_comes_to_the_same_bytes(practice: Practice):
    with pytest.raises(Killed):
        practice.learner().practise(POLICY, practice.plan(killed_at=11), tenant=TENANT)
    assert len(list((practice.desk.root / "work").glob("*.practice.safetensors"))) == 1
    done = practice.learner().practise(POLICY, practice.plan(), tenant=TENANT)
    (resumed,) = practice.versions()
    assert list((practice.desk.root / "work").glob("*.practice.safetensors")) == []
    practice.desk.control.db().execute("DELETE FROM versions WHERE number>0")
    practice.learner().practise(POLICY, practice.plan(), tenant=TENANT)
    assert [one.digest for one in practice.versions()] == [resumed.digest]
    assert done.result["practice"]["steps"] == RECIPE.steps


@pytest.mark.slow
def test_whoever_else_takes_it_up_makes_the_night_without_the_practice(practice: Practice):
    with pytest.raises(Killed):
        practice.learner().practise(POLICY, practice.plan(killed_at=0), tenant=TENANT)
    practice.desk.control.db().execute("DELETE FROM leases")
    assert practice.learner(Learner).step(watch_counts=False)
    (version,) = practice.versions()
    assert "practice" not in version.detail
    assert version.status is VersionStatus.WAITING


def test_what_others_asked_for_is_left_to_those_who_can_do_it(practice: Practice):
    """A dream that waits, and another policy's night: this learner does its own job alone."""
    control = practice.desk.control
    policy = control.policy(TENANT, POLICY)
    (baseline,) = control.versions(TENANT, POLICY)
    control.create_policy(replace(policy, name="other"), replace(baseline, policy="other"))
    waiting = [jobs.request_job(control, TENANT, POLICY, recipe="dream-x1"),
               jobs.request_job(control, TENANT, "other", recipe="sft-answers")]  # fmt: skip
    broken = Plan(ground=lambda student: Broken(student.tokens), recipe=RECIPE)
    with pytest.raises(Invalid, match="no such thing"):
        practice.learner().practise(POLICY, broken, tenant=TENANT)
    assert [jobs.get_job(control, TENANT, one.id).state for one in waiting] == [JobState.QUEUED] * 2
    assert control.take_lease(f"learn/{TENANT}/{POLICY}", "another", ttl_s=30.0) is not None


def test_it_stands_back_where_somebody_else_is_at_work(practice: Practice):
    control = practice.desk.control
    jobs.request_job(control, TENANT, POLICY, recipe="sft-answers")
    with pytest.raises(Conflict, match="a job that waits"):
        practice.learner().practise(POLICY, practice.plan(), tenant=TENANT)
    control.db().execute("DELETE FROM jobs")
    control.take_lease(f"learn/{TENANT}/{POLICY}", "another", ttl_s=30.0)
    with pytest.raises(Conflict, match="another learner"):
        practice.learner().practise(POLICY, practice.plan(), tenant=TENANT)
    assert jobs.unfinished(control) == []
    (practice.desk.root / "freeze").write_text("")
    with pytest.raises(Conflict, match="frozen"):
        practice.learner().practise(POLICY, practice.plan(), tenant=TENANT)


def test_what_fails_is_said(practice: Practice):
    plan = Plan(ground=lambda student: Broken(student.tokens), recipe=RECIPE)
    with pytest.raises(Invalid, match="no such thing"):
        practice.learner().practise(POLICY, plan, tenant=TENANT)
    assert practice.versions() == []
