"""A dream from a real journal to a challenger: collected, proposed, proved in the sandbox, rehearsed, examined."""

import asyncio
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dayjob.cli import dreaming, dreams
from dayjob.cli.dream_apart import apart_of
from dayjob.cli.dreaming import excerpts_of, night_tokens, step_tokens
from dayjob.cli.dreams import Dreamer, ask_after_nights
from dayjob.config import Config
from dayjob.dream import prove as prove_module
from dayjob.dream.apart import Apart, hold
from dayjob.dream.author_offline import write_programs
from dayjob.dream.dreaming import OfflineAuthor
from dayjob.dream.excerpts import Excerpt
from dayjob.dream.faithful import agreement
from dayjob.dream.propose import Allowance, Proposed
from dayjob.dream.prove import Demands
from dayjob.dream.rehearse import NothingLeft
from dayjob.endings import Invalid, JobState, OutcomeKind, PolicyKind, VersionStatus
from dayjob.fakes import fake_generation
from dayjob.journal import jobs, layers
from dayjob.journal.layers import address_of
from dayjob.journal.steering import taint
from dayjob.learn.language.anchors import Anchors, Kept
from dayjob.learn.language.exercises import Exercise
from dayjob.learn.language.job import Nights
from dayjob.learn.language.lessons import Lesson
from dayjob.learn.language.recipes import RECIPES
from dayjob.learn.loop import Learner
from dayjob.memory.lessons import last_question
from dayjob.policies.tokens import Tokens, pack_ids
from dayjob.practice.environments import program as module
from dayjob.practice.environments.program import Program, close_idle
from dayjob.practice.same import begun
from dayjob.practice.sandbox import available
from dayjob.records import Decision, Job, Policy, Version
from tests.learn.language.desk import BASE, TENANT, Desk
from tests.memory.office import POLICY
from tests.policies.language.worlds import byte_tokenizer
from tests.serve.chatting import save_tiny

pytestmark = pytest.mark.skipif(available() is not None, reason="the sandbox is missing")
FEW = replace(
    RECIPES["sft-answers"], learning_rates=(2e-2,), steps=60, warmup=2, lessons=8, microbatch=16, answer_tokens=8,
    context_tokens=256, anchor=0.01, anchor_rows=2, self_written=0, stop_every=0, save_every=100, kl_budget=1e3,
)  # fmt: skip
ORDERS = {f"A{number}": "o" for number in range(10, 34)}


def look_up(desk: Desk, question: str, order: str, *, user: str = "ann") -> Decision:
    """A conversation in which a tool was called, as the server keeps its last answer."""
    messages = (
        {"role": "user", "content": question.format(order)},
        {"role": "assistant", "content": f"call see id={order}"},
        {"role": "tool", "content": f"{order}: {ORDERS[order]}"},
    )
    number = next(desk.numbers)
    decision = fake_generation(number, ["?"])
    assert decision.generation is not None
    generation = replace(
        decision.generation, base=BASE, messages=messages, notes=(), bare_ids=b"",
        prompt_ids=pack_ids(desk.tokens.render(messages)), choices=(desk.choice(ORDERS[order], "v0-baseline"),),
    )  # fmt: skip
    told = replace(
        decision, tenant=TENANT, id=str(uuid.UUID(int=number)), user=user, session=None, generation=generation,
        temperature=1.0, ranking=np.zeros(1, "<u2").tobytes(),
    )  # fmt: skip
    desk.store.append_decision(told).result()
    return told


class Dream:
    """A data directory whose policy may dream, and the learner over it."""

    def __init__(self, desk: Desk, folder: Path) -> None:
        self.desk, self.folder, self.control = desk, folder, desk.control

    def learner(self, **settings: object) -> Learner:
        nights = Nights(memory=self.desk.memory, find_base=lambda _: self.folder, recipes={"sft-answers": FEW})
        reader = self.desk.memory._reader
        dreamer = Dreamer(settings=Config(**settings), control=self.control, reader=reader, nights=nights)  # type: ignore[arg-type]
        return Learner(
            self.desk.root, self.control, reader, threads=1, holder="test", nights=nights, dream=dreamer
        )  # fmt: skip

    def __call__(self, *, budget: float = 1.0, user: str | None = "ann", **settings: object) -> Job:
        learner = self.learner(**settings)
        asked = learner.ask(POLICY, recipe=jobs.dream_recipe(budget), tenant=TENANT, user=user)
        assert learner.step(watch_counts=False)
        return jobs.get_job(self.control, TENANT, asked.id)

    def address(self, user: str | None = "ann") -> str:
        return address_of(self.control, TENANT, POLICY, user)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def dream(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dream]:
    monkeypatch.setattr(dreaming, "allowance", lambda _: Allowance(programs=1))
    monkeypatch.setattr(dreaming, "DEMANDS", Demands(seeds=8, attempts=4, claims=2))
    desk = Desk(tmp_path / "data", Tokens(byte_tokenizer()))
    spec = {"kind": "language", "base": BASE, "recipe": "sft-answers"}
    baseline = Version(
        tenant=TENANT, policy=POLICY, name="v0-baseline", number=0, parent=None, recipe="baseline", digest="0" * 64,
        from_seq=0, to_seq=0, status=VersionStatus.BASELINE, created_ms=0,
    )  # fmt: skip
    policy = Policy(tenant=TENANT, name=POLICY, kind=PolicyKind.LANGUAGE, spec=spec, created_ms=0)
    desk.control.create_policy(policy, baseline)
    yield Dream(desk, tiny)
    desk.close()


def lived(dream: Dream) -> None:
    """Two days of looking up, some of it demonstrated."""
    for place, order in enumerate(ORDERS):
        first, second = (("{}?", "see {}", "now {}")[(place + more) % 3] for more in (0, 1))
        look_up(dream.desk, first, order)
        shown = look_up(dream.desk, second, order)
        if place < 8:
            dream.desk.tell(shown, OutcomeKind.DEMONSTRATION, text="o", user="ann")


def test_a_dream_becomes_a_waiting_challenger_with_its_exam_and_its_record(dream: Dream):
    lived(dream)
    done = dream(budget=0.01)
    assert (done.state, done.error) == (JobState.SUCCEEDED, None)
    version = dream.control.versions(TENANT, dream.address())[-1]
    assert done.result is not None
    assert (done.result["challenger"], version.recipe) == (version.name, "dream-x0.01")
    assert version.status is VersionStatus.WAITING
    exam = dream.control.state(TENANT, dream.address(), f"exam/{version.name}")
    assert exam is not None
    assert exam["against"] == "v0-baseline"
    [point] = dream.control.series(TENANT, dream.address(), "dreams")
    assert (point["job"], point["budget"], point["faults"]) == (done.id, 0.01, [])
    [environment] = point["environments"]
    assert (environment["admitted"], environment["reason"], environment["shown"]) == (True, "", 1)
    assert 0 < environment["before"] < 1
    assert environment["after"] is not None
    assert environment["faithful"]["agreed"] == environment["faithful"]["claimed"] >= 2
    # A step is 64 attempts, and one is the least there is.
    assert point["episodes"] == 64
    assert point["tokens"] > 64 * 20
    # The record holds no word of anybody's, the version's state the program.
    assert "A1" not in str(point)
    kept = dream.control.state(TENANT, dream.address(), f"dream/{version.name}")
    assert kept is not None
    assert list(kept["programs"]) == [environment["digest"]]
    assert "A1" in kept["programs"][environment["digest"]]
    # Its teachers are those of the whole record: once they are erased, it is tainted, and the programs go.
    mark = dream.control.mark_of(TENANT, "ann")
    assert (dream.address(), version.name) in dream.control.taught_by(TENANT, mark)
    taint(dream.control, TENANT, [(dream.address(), version.name)])
    assert dream.control.state(TENANT, dream.address(), f"dream/{version.name}") is None


def test_where_nothing_is_admitted_the_night_stands_alone_and_the_reasons_are_kept(dream: Dream):
    for question in ("Who?", "Why?", "How?"):
        dream.desk.correct(question, "o", kind=OutcomeKind.DEMONSTRATION)
        dream.desk.chat(question + "!?")
    done = dream()
    assert done.state is JobState.SUCCEEDED
    assert done.result is not None
    assert done.result["challenger"] is not None
    [point] = dream.control.series(TENANT, dream.address(), "dreams")
    assert (point["environments"], point["episodes"]) == ([], 0)
    assert "nothing is recorded" in point["faults"][0]


def test_without_the_sandbox_a_dream_is_refused_with_what_is_missing(dream: Dream, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dreams, "available", lambda: "the sandbox needs bwrap: apt-get install bubblewrap")
    done = dream()
    assert done.state is JobState.FAILED
    assert "apt-get install bubblewrap" in str(done.error)


def test_what_the_exam_asks_and_what_is_somebody_else_s_is_in_no_dream(dream: Dream):
    lived(dream)
    for order in list(ORDERS)[:6]:
        dream.desk.chat(f"bob asks for {order}", said=(f"call see id={order}",), user="bob")
        look_up(dream.desk, "bob asks for {}", order, user="bob")
    found = dream.desk.gather(user="ann", method="sft-answers")
    excerpts = list(excerpts_of(found))
    assert excerpts
    assert not any("bob" in str(one.messages) for one in excerpts)
    asked = {last_question(one.lesson.question) for one in (*found.split.exam, *found.split.stop)}
    asked |= {last_question(one.question) for one in (*found.split.exam_traffic, *found.split.stop_traffic)}
    assert asked
    assert not asked & {str(one.messages[0]["content"]) for one in excerpts}
    assert "bob" not in found.recent.users
    # The tenant's layer reads everybody's, but for what is a person's own.
    everybody = dream.desk.gather(user=None, method="sft-answers")
    assert "bob" in everybody.recent.users
    shared = [one.messages for one in excerpts_of(everybody)]
    assert any(len(one) == 4 and "bob" in str(one) for one in shared)
    # Of ann's the first turns are not in the journal: whose they were is not known.
    assert not any("see A" in str(one[0]["content"]) for one in shared)


def test_a_correction_is_an_answer_where_it_is_a_call_and_otherwise_says_what_was_wrong(dream: Dream):
    first, second = dream.desk.chat("Where is A1?", said=("no",)), dream.desk.chat("Where is A2?", said=("no",))
    dream.desk.tell(first, OutcomeKind.CORRECTION, text="call see id=A1", user="ann")
    dream.desk.tell(second, OutcomeKind.CORRECTION, text="look it up first", user="ann")
    said = {one.id: (one.right, one.liked) for one in excerpts_of(dream.desk.gather(user="ann"))}
    assert said == {first.id: ("call see id=A1", 0), second.id: ("", -1)}


def test_a_dream_follows_a_night_once_where_that_is_wanted(dream: Dream):
    control = dream.control
    ask_after_nights(control, budget=2.0)
    assert jobs.unfinished(control) == []
    night = replace(
        control.version(TENANT, POLICY, "v0-baseline"), name="v1-00000001", number=1, recipe="sft-answers",
        status=VersionStatus.WAITING,
    )  # fmt: skip
    control.add_version(night)
    ask_after_nights(control, budget=2.0)
    [job] = jobs.unfinished(control)
    assert (job.policy, job.recipe) == (POLICY, "dream-x2")
    jobs.update_job(control, job, state=JobState.SUCCEEDED, progress=1.0)
    ask_after_nights(control, budget=2.0)
    control.add_version(replace(night, name="v2-00000002", number=2, recipe="dream-x2"))
    ask_after_nights(control, budget=2.0)
    assert jobs.unfinished(control) == []


def test_a_night_and_a_dream_are_asked_for_beside_each_other(dream: Dream):
    night = jobs.request_job(dream.control, TENANT, POLICY, recipe="sft-answers")
    asked = jobs.request_job(dream.control, TENANT, POLICY, recipe=jobs.dream_recipe(4.0))
    assert jobs.request_job(dream.control, TENANT, POLICY, recipe=jobs.dream_recipe(8.0)).id == asked.id != night.id
    for wrong in (0.0, -1.0, 64.5, float("nan"), float("inf")):
        with pytest.raises(Invalid):
            jobs.dream_recipe(wrong)


def test_a_budget_of_one_is_what_the_night_reads_of_lessons_and_anchor(dream: Dream):
    lesson = Lesson(id="1", question=({"role": "user", "content": "?"},), family="f")
    served = replace(lesson, answer_ids=(1, 2, 3))
    exercises = [
        Exercise(lesson=lesson, prompt=(1,) * 10, beside=None, taught=None, target=(1,) * 4),
        Exercise(lesson=served, prompt=(1,) * 7, beside=None, taught=(1,) * 99, target=None),
        Exercise(lesson=lesson, prompt=(1,) * 8, beside=None, taught=(1,) * 99, target=None),
    ]  # read: 14, 10, and 8 with an answer that is written at night, of 8 at most
    rows = tuple(Kept(question=(), prompt=(1,) * 5, answer=(1,) * 2, self_written=True) for _ in range(9))
    anchors = Anchors(rows=rows, conflicts=(), unfit=0)
    recipe = replace(FEW, steps=10, lessons=3, anchor_rows=2)
    assert step_tokens(exercises, anchors, recipe=recipe) == pytest.approx(3 * (14 + 10 + 16) / 3 + 2 * 7)
    # A step deals out no more than there is.
    assert step_tokens(exercises[:1], anchors, recipe=recipe) == pytest.approx(14 + 2 * 7)
    found = dream.desk.gather(user="ann", method="sft-answers")
    assert night_tokens(found, dream.desk.tokens, recipe=recipe, beside=54.0) == 10 * 54.0
    twice = replace(recipe, learning_rates=(1e-3, 2e-3))
    assert night_tokens(found, dream.desk.tokens, recipe=twice, beside=54.0) == 2 * 10 * 54.0
    # Nothing is taught, and nothing kept: what would be read of what was asked.
    question = {"role": "user", "content": "Who?"}
    dream.desk.chat("Who?")
    found = dream.desk.gather(user="ann", method="sft-answers")
    length = len(dream.desk.tokens.render([question]))
    assert night_tokens(found, dream.desk.tokens, recipe=recipe, beside=0.0) == 10 * (3 + 2) * length


def test_programs_written_of_this_record_set_nothing_that_the_exam_asks(dream: Dream):
    lived(dream)
    found = dream.desk.gather(user="ann", method="sft-answers")
    excerpts = list(excerpts_of(found))
    apart = apart_of(found, excerpts)
    asked = [one.question for one in (*found.split.exam_traffic, *found.split.stop_traffic)]
    asked += [one.lesson.question for one in (*found.split.exam, *found.split.stop)]
    assert asked
    assert all(apart.asked([{"role": "user", "content": last_question(one)}]) for one in asked)
    assert apart_of(found, excerpts).key == apart.key != apart_of(found, excerpts[1:]).key

    async def set_by(program: Program, by: Apart) -> list[bool]:
        held = await hold(program, count=3, apart=by)
        return [apart.asked((await begun(program, seed))[0]) for seed in held.seeds]

    written = [Program(source=one.source) for one in write_programs(excerpts)[:2]]
    assert any(any(asyncio.run(set_by(one, Apart()))) for one in written)  # they would
    assert not any(any(asyncio.run(set_by(one, apart))) for one in written)
    close_idle()


def test_a_killed_dream_goes_on_with_what_authors_and_proofs_came_to(dream: Dream, monkeypatch: pytest.MonkeyPatch):
    lived(dream)
    asked: list[str] = []

    class Paid(OfflineAuthor):
        async def propose(self, excerpts: Sequence[Excerpt], *, allowance: Allowance) -> Proposed:
            asked.append("author")
            return replace(await super().propose(excerpts, allowance=allowance), calls=3)

    async def counted(*args: object, **more: object) -> object:
        asked.append("proof")
        return await agreement(*args, **more)  # type: ignore[arg-type]

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def nothing(*_: object, **__: object) -> None:
        raise NothingLeft("every environment was dropped")

    monkeypatch.setattr(dreaming, "authors", lambda _: [Paid()])
    monkeypatch.setattr(prove_module, "agreement", counted)
    monkeypatch.setattr(dreaming.Course, "run", killed)
    with pytest.raises(KeyboardInterrupt):
        dream(budget=0.01)
    [kept] = (dream.desk.root / "work").glob("*.dreamt.safetensors")
    assert asked == ["author", "proof"]
    assert not module._ROOMS  # the sandboxes go with the dream, however that ends
    beside = kept.with_name("another.dreamt.safetensors")
    beside.write_bytes(kept.read_bytes())
    kept.rename(kept.with_name("safe"))
    layers.withdraw(dream.control, dream.control.root, TENANT, "bob")  # whose words are in it, nobody knows
    assert not beside.exists()
    kept.with_name("safe").rename(kept)
    # Where every environment is dropped then, the night stands.
    monkeypatch.setattr(dreaming.Course, "run", nothing)
    monkeypatch.setattr(dreaming.DreamGround, "lost", lambda self: {self.programs[0].digest: "dropped: it failed"})
    assert dream.learner().step(watch_counts=False)
    [point] = dream.control.series(TENANT, dream.address(), "dreams")
    [environment] = point["environments"]
    assert (environment["admitted"], environment["dropped"], environment["after"]) == (True, True, None)
    assert environment["reason"] == "dropped: it failed"
    assert point["author"]["calls"] == 3
    assert asked == ["author", "proof"]
    assert not kept.exists()
    done = jobs.get_job(dream.control, TENANT, point["job"])
    assert (done.state, done.error) == (JobState.SUCCEEDED, None)
    assert done.result is not None
    assert done.result["challenger"] is not None
