"""From a journal to an adapter that serves: a layer's night over a real journal, control.db and a tiny random model."""

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from dayjob.cli.bases import find_adapter
from dayjob.cli.processes import follow_job
from dayjob.endings import Invalid, JobState, NoteScope, NoteState, OutcomeKind, PolicyKind, VersionStatus
from dayjob.journal import jobs
from dayjob.journal.control import put_state
from dayjob.journal.layers import address_of, withdraw
from dayjob.journal.notes import note_events
from dayjob.journal.steering import override, taint
from dayjob.learn.language import job as module
from dayjob.learn.language.job import Nights
from dayjob.learn.language.recipes import RECIPES
from dayjob.learn.language.writing import BASE as BARE
from dayjob.learn.loop import Learner
from dayjob.learn.work import Made
from dayjob.policies.adapters import read_adapter
from dayjob.policies.engine_batch import Batch
from dayjob.policies.engine_jobs import EngineLimits
from dayjob.policies.engine_protocol import Prompt, Sampling
from dayjob.policies.engine_transformers import TransformersEngine, load_model
from dayjob.policies.tokens import Tokens
from dayjob.records import Job, Json, Policy, Version
from tests.journal.standing import stand
from tests.learn.language.desk import BASE, TENANT, Desk
from tests.memory.office import POLICY
from tests.policies.language.worlds import byte_tokenizer
from tests.serve.chatting import save_tiny

OPEN = "When is lunch?"
FEW = replace(
    RECIPES["sft-answers"], learning_rates=(2e-2,), steps=24, warmup=2, lessons=4, microbatch=8, answer_tokens=8,
    context_tokens=256, anchor=0.1, anchor_rows=2, self_written=0, stop_every=0, save_every=4, kl_budget=1e3,
)  # fmt: skip


class Killed(BaseException):
    """What no handler catches: the end of a process."""


@dataclass
class Night:
    """A data directory with a language policy, and the learner over it."""

    desk: Desk
    folder: Path
    recipe: str = "sft-answers"
    suites: dict[str, Path] | None = None
    changes: Json = field(default_factory=dict)

    @property
    def control(self):
        return self.desk.control

    def learner(self, *, told: Callable[[float], None] = lambda _: None) -> Learner:
        nights = Nights(
            memory=self.desk.memory, find_base=lambda name: {BASE: self.folder}[name], suites=self.suites or {},
            recipes={
                "sft-answers": replace(FEW, **self.changes), "consolidate": replace(FEW, method="consolidate"),
                "accept-reject": replace(FEW, method="accept-reject", steps=2),
            },
            canaries=("9",),
        )  # fmt: skip
        reader = self.desk.memory._reader
        return Learner(self.desk.root, self.control, reader, threads=1, holder="test", told=told, nights=nights)

    def __call__(self, *, user: str | None = "ann", **asking: Any) -> Job:
        """One job, done, as it stands then."""
        learner = self.learner()
        job = learner.ask(POLICY, tenant=TENANT, user=user, **asking)
        assert learner.step(watch_counts=False)
        return jobs.get_job(self.control, TENANT, job.id)

    def address(self, user: str | None = "ann") -> str:
        return address_of(self.control, TENANT, POLICY, user)

    def versions(self, user: str | None = "ann") -> list[Version]:
        return [one for one in self.control.versions(TENANT, self.address(user)) if one.number]

    def state(self, name: str, user: str | None = "ann") -> Json | None:
        return self.control.state(TENANT, self.address(user), name)

    def share(self, note: str) -> None:
        self.desk.memory.share(self.desk.memory.find(TENANT, [POLICY], note), scope=NoteScope.TENANT, by="admin")

    def files(self) -> set[str]:
        return {path.name for path in (self.desk.root / "versions").glob("*/*/v*")}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def night(tmp_path: Path, tiny: Path) -> Iterator[Night]:
    desk = Desk(tmp_path / "data", Tokens(byte_tokenizer()))
    spec = {"kind": "language", "base": BASE, "recipe": "sft-answers"}
    baseline = Version(
        tenant=TENANT, policy=POLICY, name="v0-baseline", number=0, parent=None, recipe="baseline", digest="0" * 64,
        from_seq=0, to_seq=0, status=VersionStatus.BASELINE, created_ms=0,
    )  # fmt: skip
    policy = Policy(tenant=TENANT, name=POLICY, kind=PolicyKind.LANGUAGE, spec=spec, created_ms=0)
    desk.control.create_policy(policy, baseline)
    for question in ("Who?", "Why?", "How?", "Hm"):
        desk.chat(question)
    yield Night(desk, tiny)
    desk.close()


def says(night: Night, version: Version, question: str) -> str:
    """What an engine that loads the version answers, greedily, without notes."""
    tokens = Tokens.open(night.folder)

    async def ask() -> str:
        engine = TransformersEngine(load_model(night.folder), tokens, limits=EngineLimits(context_tokens=256))
        try:
            ref = find_adapter(night.desk.root, TENANT, version.policy, version.name, version.digest)
            await engine.load(ref)
            prompt = Prompt(token_ids=tokens.render([{"role": "user", "content": question}]))
            sampling = Sampling(max_tokens=8, temperature=0)
            return "".join([one.text async for one in engine.generate(prompt, ref.name, sampling=sampling)])
        finally:
            await engine.close()

    return asyncio.run(ask())


def nats(night: Night, version: Version | None, question: str, phrase: str) -> float:
    """What a phrase costs as the answer to a question, nats a token; to the base where there is no version."""
    tokens = Tokens.open(night.folder)
    prompt, wanted = tokens.render([{"role": "user", "content": question}]), tokens.encode(phrase)
    batch = Batch(load_model(night.folder), slots=1, max_tokens=256)
    adapter = BARE
    if version is not None:
        ref = find_adapter(night.desk.root, TENANT, version.policy, version.name, version.digest)
        adapter = read_adapter(ref, batch.adapters.shapes, max_rank=1 << 20, device=batch.device)
    return -fmean(batch.score((*prompt, *wanted), len(prompt), adapter=adapter, top=0)[0])


def test_a_correction_becomes_an_examined_version_that_answers_without_its_note(night: Night):
    note = night.desk.correct(OPEN, "9:15", said=("10:00",))
    job = night()
    assert job.state is JobState.SUCCEEDED, job.error
    (version,) = night.versions()
    assert job.result["challenger"] == version.name
    assert (version.status, version.recipe, version.parent) == (VersionStatus.WAITING, "sft-answers", "v0-baseline")
    assert version.to_seq == night.desk.memory._reader.last_seq()
    assert says(night, version, OPEN) == "9:15"

    exam = night.state(f"exam/{version.name}")
    assert (exam["against"], exam["personal"], exam["questions"]) == ("v0-baseline", True, [])
    one = {"asked": 1, "right_before": 0, "right_after": 1}
    assert exam["taught"] == one | {"as_read": dict.fromkeys(one, 0), "as_taught": one}
    assert exam["phrases"][0]["after"] < exam["phrases"][0]["before"], "9 begins what was taught"
    told = night.state(f"night/{version.name}")
    (lesson,) = told["lessons"]
    assert (lesson["id"], lesson["asked"], lesson["after"], lesson["learned"]) == (note, OPEN, "9:15", True)
    assert told["notes"] == {"learned": [note], "right": [], "recited": [note], "wrong": []}
    (kept,) = night.desk.memory.for_training(TENANT, POLICY, user="ann", version=version.name)
    assert kept.state is NoteState.RETIRED
    placed = [night.desk.ask(one, version=version.name).ids for one in (OPEN, "Lunch, when is it today?")]
    assert placed == [(), (note,)], "it was asked in one wording: in others it is still there"
    assert night.control.taught_by(TENANT, night.control.mark_of(TENANT, "ann")) == [(version.policy, version.name)]
    assert night.versions(None) == [], "the tenant's layer is another's"


def test_the_same_range_gives_no_second_version_and_says_so(night: Night):
    night.desk.correct(OPEN, "9:15")
    first = night().result["challenger"]
    again = night()
    assert again.result["challenger"] == first
    assert len(night.versions()) == 1
    stand(night.control, TENANT, night.address(), [first], VersionStatus.REJECTED)
    assert "stands as: rejected" in night().result["reason"]


def test_what_several_people_demonstrated_is_never_retired_on_what_the_teacher_makes_of_it(night: Night):
    for user in ("ann", "bob", "cid"):
        night.desk.correct(OPEN, "9:15", user=user, kind=OutcomeKind.DEMONSTRATION)
    job = night(user=None, recipe="consolidate")
    assert job.state is JobState.SUCCEEDED, job.error
    (reason,) = job.result["left_out"]
    assert "does not follow it: the recipe sft-answers" in reason, "a random model makes nothing of a note"
    assert "9:15" not in reason, "not everybody who reads this may read that"
    (note,) = night.desk.memory.for_training(TENANT, POLICY, user=None, version="")
    assert (night.versions(None), note.state) == ([], NoteState.ACTIVE)
    assert night.desk.ask(OPEN, user="dan").ids == (note.id,)


def test_a_correction_that_was_read_as_something_else_is_not_told_as_learned_and_its_note_stays(
    night: Night, monkeypatch
):
    """A teacher that reads "At 9:15." as anything else teaches that; nobody may call it what was taught."""
    note = night.desk.correct(OPEN, "At 9:15.")
    real = module.learn_night

    def as_read(*arguments: Any, **named: Any) -> Any:
        made = real(*arguments, **named)
        return replace(made, lessons=tuple(replace(one, after="monthly", wanted="monthly") for one in made.lessons))

    monkeypatch.setattr(module, "learn_night", as_read)
    job = night(recipe="consolidate")
    assert job.state is JobState.SUCCEEDED, job.error
    assert job.result["learned"] == 0
    (version,) = night.versions()
    (lesson,) = night.state(f"night/{version.name}")["lessons"]
    assert (lesson["wanted"], lesson["as_read"], lesson["learned"]) == ("monthly", True, False)
    (kept,) = night.desk.memory.for_training(TENANT, POLICY, user="ann", version=version.name)
    assert (kept.id, kept.state) == (note, NoteState.CONSOLIDATED)


def test_other_settings_make_another_version_of_the_same_journal_even_with_equal_weights(night: Night):
    night.desk.correct(OPEN, "9:15")
    first = night().result["challenger"]
    night.changes = {"kl_budget": FEW.kl_budget + 1}  # never reached: no step is another
    second = night().result["challenger"]
    assert second != first
    assert night().result["challenger"] == second
    budgets = [night.state(f"exam/{name}")["traffic"]["kl_budget"] for name in (first, second)]
    assert budgets == [FEW.kl_budget, FEW.kl_budget + 1]


@pytest.mark.parametrize("when", [0.5, 0.9], ids=["in the night", "in the exam"])
def test_killed_and_taken_up_again_it_comes_to_the_same_bytes(night: Night, when: float, monkeypatch):
    night.desk.correct(OPEN, "9:15")
    monkeypatch.setattr("dayjob.learn.loop.TOLD_EVERY_S", 0.0)

    def stop(share: float) -> None:
        if share > when:
            raise Killed

    killed = night.learner(told=stop)
    job = killed.ask(POLICY, tenant=TENANT, user="ann")
    with pytest.raises(Killed):
        killed.step(watch_counts=False)
    assert night.versions() == []
    assert (night.desk.root / "work" / f"{job.id}.safetensors").exists() is (when < 0.8)
    night.desk.correct("Where?", "Below")
    night.control.db().execute("DELETE FROM leases")
    assert night.learner().step(watch_counts=False)
    (resumed,) = night.versions()
    job = jobs.get_job(night.control, TENANT, job.id)
    assert resumed.to_seq == job.until_seq < night.desk.memory._reader.last_seq()
    # The same range in another directory's layer would be the same work: here the layer is emptied and learns again.
    night.control.db().execute("DELETE FROM versions WHERE number>0")
    night.control.db().execute("UPDATE jobs SET state='queued'")
    assert night.learner().step(watch_counts=False)
    assert [one.digest for one in night.versions()] == [resumed.digest]


def test_somebody_who_is_erased_meanwhile_is_in_no_version(night: Night, monkeypatch):
    night.share(night.desk.correct(OPEN, "9:15", user="bob"))
    real = module.learn_night

    def erased(*arguments: Any, **named: Any) -> Any:
        made = real(*arguments, **named)
        night.desk.erase("bob")
        return made

    monkeypatch.setattr(module, "learn_night", erased)
    job = night(user=None)
    assert job.state is JobState.FAILED
    assert "erased while this version learned" in str(job.error)
    assert night.versions(None) == []
    assert night.files() == set()
    assert night.control.db().execute("SELECT COUNT(*) FROM states WHERE name LIKE 'exam/%'").fetchone() == (0,)


def test_a_layer_that_is_withdrawn_meanwhile_stays_away(night: Night, monkeypatch):
    night.desk.correct(OPEN, "9:15")
    real = module.examine

    def withdrawn(*arguments: Any, **named: Any) -> Any:
        made = real(*arguments, **named)
        withdraw(night.control, night.desk.root, TENANT, "ann")
        return made

    monkeypatch.setattr(module, "examine", withdrawn)
    learner = night.learner()
    learner.ask(POLICY, tenant=TENANT, user="ann")
    assert learner.step(watch_counts=False)
    assert night.versions() == []
    assert night.files() == set()


def test_a_tenants_champion_is_built_again_without_somebody_who_was_erased(night: Night):
    for user, question, text in (("ann", OPEN, "9:15"), ("bob", "Where?", "Below")):
        night.share(night.desk.correct(question, text, user=user))
    first = night(user=None).result["challenger"]
    version = night.control.version(TENANT, POLICY, first)
    override(night.control, night.control.pointers(TENANT, POLICY), version=version, reason="a test", evidence={})
    assert night.state(f"exam/{first}", None)["taught"]["asked"] == 2
    base, taught = (nats(night, one, "Where?", "Below") for one in (None, version))
    assert taught < base - 4, "what he taught was learned"
    night.desk.erase("bob")
    taint(night.control, TENANT, [(POLICY, first)])
    assert night.state(f"exam/{first}", None) is None, "what he asked is in no report either"
    assert night.learner().step(watch_counts=False), "tainting asks for it by itself"
    serving = night.control.pointers(TENANT, POLICY).champion
    rebuilt = night.control.version(TENANT, POLICY, serving)
    assert (rebuilt.status, rebuilt.to_seq, rebuilt.number) == (VersionStatus.CHAMPION, version.to_seq, 2)
    assert night.state(f"exam/{serving}", None)["taught"]["asked"] == 1
    without = nats(night, rebuilt, "Where?", "Below")
    assert without == pytest.approx(base, abs=0.5), "nats a token: his phrase is as probable again as to the base"
    assert night.files() == {serving}
    night.desk.erase("ann")
    taint(night.control, TENANT, [(POLICY, serving)])
    assert night.learner().step(watch_counts=False)
    assert night.control.pointers(TENANT, POLICY).champion == "v0-baseline", "nobody else had taught it"


def promote(night: Night, user: str | None) -> Version:
    """The newest version of a layer, put in front by hand."""
    version = night.versions(user)[-1]
    pointers = night.control.pointers(TENANT, night.address(user))
    override(night.control, pointers, version=version, reason="a test", evidence={})
    return version


def forget(night: Night, note: str) -> None:
    night.desk.memory.delete(night.desk.memory.find(TENANT, [POLICY], note), by="ann")


def learned(night: Night, user: str | None) -> set[str]:
    """What the newest version of a layer was taught."""
    return {one["asked"] for one in night.state(f"night/{night.versions(user)[-1].name}", user)["lessons"]}


def test_what_a_person_took_back_is_unlearned_by_the_next_night(night: Night):
    notes = [night.desk.correct(question, text) for question, text in ((OPEN, "9:15"), ("Where?", "Below"))]
    night()
    promote(night, "ann")
    forget(night, notes[0])
    name = night().result["challenger"]
    assert (learned(night, "ann"), night.state(f"exam/{name}")["unlearned"]) == ({"Where?"}, 1)
    promote(night, "ann")
    forget(night, notes[1])
    assert "all that was taught was taken back" in night().result["reason"]
    assert night.control.pointers(TENANT, night.address()).champion == "v0-baseline"


def test_what_everybody_unlearns_brings_nothing_new_in_without_proof(night: Night):
    for user, question, text in (("ann", OPEN, "9:15"), ("bob", "Where?", "Below")):
        night.share(night.desk.correct(question, text, user=user))
    night(user=None)
    champion = promote(night, None)
    night.share(night.desk.correct("Which?", "That", user="cid"))
    forget(night, next(one.id for one in night.desk.memory.for_training(TENANT, POLICY, user=None, version="")
                       if one.asked == OPEN))  # fmt: skip
    first = night(user=None).result["challenger"]
    version = night.control.version(TENANT, POLICY, first)
    assert (version.to_seq, night.state(f"exam/{first}", None)["unlearned"]) == (champion.to_seq, 1)
    assert learned(night, None) == {"Where?"}
    second = night(user=None).result["challenger"]
    assert night.state(f"exam/{second}", None)["unlearned"] == 0, "an ordinary night, which has to prove itself"
    assert learned(night, None) == {"Where?", "Which?"}


def test_files_of_a_version_without_a_row_are_swept_and_answers_of_the_tainted_forgotten(night: Night):
    night.share(night.desk.correct(OPEN, "9:15", user="ann"))
    night(user=None)
    champion = promote(night, None)
    orphan = night.desk.root / "versions" / TENANT / POLICY / "v9-00000000"
    shutil.copytree(night.desk.root / "versions" / TENANT / POLICY / champion.name, orphan)
    night.learner()
    assert night.files() == {champion.name}
    night.share(night.desk.correct("Where?", "Below", user="bob"))
    second = night(user=None).result["challenger"]
    exam = night.state(f"exam/{second}", None)
    with night.control.write() as db:
        asked = {"asked": OPEN, "before": "9:15", "after": "9:15"}
        put_state(db, TENANT, POLICY, name=f"exam/{second}", state=exam | {"questions": [asked]})
    taint(night.control, TENANT, [(POLICY, champion.name)])
    assert night.state(f"exam/{second}", None)["questions"] == [asked | {"before": ""}]


def test_what_a_tainted_version_answered_is_not_the_tenants(night: Night, monkeypatch: pytest.MonkeyPatch):
    night.share(night.desk.correct(OPEN, "9:15", user="ann"))
    first = night(user=None).result["challenger"]
    seen, collect = [], module.collect
    monkeypatch.setattr(module, "collect", lambda *args, layer, **more: seen.append(layer.versions) or collect(
        *args, layer=layer, **more))  # fmt: skip
    night(user=None)
    taint(night.control, TENANT, [(POLICY, first)])
    night(user=None)
    assert [first in versions for versions in seen] == [True, False]


def test_where_nothing_was_taught_there_is_no_version_and_it_is_said(night: Night):
    job = night()
    assert (job.state, job.result["challenger"]) == (JobState.SUCCEEDED, None)
    assert "correct an answer" in job.result["reason"]
    assert "take the recipe" not in job.result["reason"]
    night.desk.correct(OPEN, "9:15")
    job = night(recipe="accept-reject")
    assert job.result["left_out"] == {"it is not about a suggestion whose log-probabilities were kept": 1}


def test_a_recipe_that_can_do_nothing_with_what_there_is_names_those_that_can(night: Night):
    """As an imported file of preferences leaves it: thumbs, and no word of what is right."""
    night.desk.tell(night.desk.chat("Say", said=("Sir",)), OutcomeKind.THUMB, 1, item="0")
    learner = night.learner()
    learner.nights = replace(learner.nights, recipes=dict(RECIPES))
    learner.ask(POLICY, tenant=TENANT, user="ann", recipe="consolidate")
    assert learner.step(watch_counts=False)
    (row,) = night.control.db().execute("SELECT result FROM jobs").fetchall()
    told = row[0] if isinstance(row[0], str) else row[0].decode()
    assert "recipe 'consolidate' can learn from" in told
    assert "take the recipe preferences or published-sft or published-grpo" in told
    assert "sft-answers" not in told


def test_a_note_that_is_deleted_while_a_night_learns_is_in_no_version(night: Night, monkeypatch):
    kept, gone = night.desk.correct("Where?", "Below"), night.desk.correct(OPEN, "9:15")
    real, exams = module.examine, []

    def deleted(*arguments: Any, **named: Any) -> Any:
        made = real(*arguments, **named)
        if not exams:
            forget(night, gone)
        exams.append(made)
        return made

    monkeypatch.setattr(module, "examine", deleted)
    learner = night.learner()
    job = learner.ask(POLICY, tenant=TENANT, user="ann")
    assert learner.step(watch_counts=False)
    job = jobs.get_job(night.control, TENANT, job.id)
    assert (job.state, night.versions(), night.files()) == (JobState.QUEUED, [], set())
    assert not (night.desk.root / "work" / f"{job.id}.safetensors").exists()
    assert learner.step(watch_counts=False)
    job = jobs.get_job(night.control, TENANT, job.id)
    assert job.state is JobState.SUCCEEDED, job.error
    (version,) = night.versions()
    assert (len(exams), learned(night, "ann")) == (2, {"Where?"})
    assert night.state(f"night/{version.name}")["notes"]["learned"] == [kept]
    assert night.control.state(TENANT, night.address(), "taken")["deaths"] == 0, "nobody died"


def test_a_freeze_stops_every_layer_and_a_job_waits_for_its_end(night: Night):
    night.desk.correct(OPEN, "9:15")
    learner = night.learner()
    learner.ask(POLICY, tenant=TENANT, user="ann")
    night.control.move(TENANT, POLICY, change={"frozen": "champion"})
    assert not learner.step(watch_counts=True)
    night.control.move(TENANT, POLICY, change={"frozen": ""})
    assert learner.step(watch_counts=False)
    assert len(night.versions()) == 1


def test_a_persons_own_freeze_stops_their_night_alone(night: Night):
    night.share(night.desk.correct(OPEN, "9:15"))
    learner = night.learner()
    for user in ("ann", None):
        learner.ask(POLICY, tenant=TENANT, user=user)
    night.control.move(TENANT, night.address(), change={"frozen": "champion"})
    assert learner.step(watch_counts=False)
    assert not learner.step(watch_counts=False)
    assert (len(night.versions()), len(night.versions(None))) == (0, 1)


@pytest.mark.parametrize(
    ("lacking", "remedy"),
    [
        (lambda *_: None, "add [bases.tiny]"),
        (lambda nights, _: replace(nights, find_base=no_base), "tiny is not there"),
        (lambda nights, path: replace(nights, suites={"s": path}), "s.jsonl, line 2: it is not JSON"),
    ],
)
def test_what_a_night_lacks_is_said_in_its_job(night: Night, lacking, remedy, tmp_path):
    night.desk.correct(OPEN, "9:15")
    path = tmp_path / "s.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "Who?"}], "answer": "Me"}\n{')
    learner = night.learner()
    learner.nights = lacking(learner.nights, path)
    job = learner.ask(POLICY, tenant=TENANT, user="ann")
    assert learner.step(watch_counts=False)
    job = jobs.get_job(night.control, TENANT, job.id)
    assert job.state is JobState.FAILED
    assert remedy in str(job.error)


@pytest.mark.parametrize("lacking", [lambda _: None, lambda nights: replace(nights, find_base=no_base)])
def test_a_learner_leaves_what_it_cannot_do_to_others_and_does_not_spin(night: Night, lacking, caplog):
    """Somebody else's night, asked for where its base model is known."""
    night.desk.correct(OPEN, "9:15")
    able, unable = night.learner(), night.learner()
    job = able.ask(POLICY, tenant=TENANT, user="ann")
    unable.nights = lacking(unable.nights)
    assert unable.ask(POLICY, tenant=TENANT, user="ann").id == job.id
    for _ in range(3):
        assert not unable.step(watch_counts=True), "nothing was done: whoever follows waits"
    assert jobs.get_job(night.control, TENANT, job.id).state is JobState.QUEUED
    (said,) = [one.getMessage() for one in caplog.records if "stays queued" in one.getMessage()]
    assert unable.lacks(job) in said, "once, and what is missing"
    with pytest.raises(Invalid, match="stays queued, for a learner that can do it"):
        follow_job(unable, job, stop=threading.Event(), every_s=0.01, words="")
    assert able.step(watch_counts=False)
    assert jobs.get_job(night.control, TENANT, job.id).state is JobState.SUCCEEDED


def test_a_dream_is_left_to_whoever_dreams(night: Night):
    learner = night.learner()
    job = jobs.request_job(night.control, TENANT, POLICY, recipe=jobs.dream_recipe(1.0))
    assert not learner.step(watch_counts=False)
    assert jobs.get_job(night.control, TENANT, job.id).state is JobState.QUEUED
    learner.dream, learner.lacks_for_dreams = (lambda _: Made(why="no dream")), lambda _: "no sandbox"
    assert learner.lacks(job) == "no sandbox"
    learner.lacks_for_dreams = lambda _: ""
    learner._left.clear()
    assert learner.step(watch_counts=False)
    assert jobs.get_job(night.control, TENANT, job.id).state is JobState.SUCCEEDED


def test_by_hand_one_job_is_done_and_no_other(night: Night):
    night.share(night.desk.correct(OPEN, "9:15"))
    other, learner = night.learner(), night.learner()
    first = other.ask(POLICY, tenant=TENANT)
    mine = learner.ask(POLICY, tenant=TENANT, user="ann")
    done = follow_job(learner, mine, stop=threading.Event(), every_s=0.01, words="")
    assert done.state is JobState.SUCCEEDED, done.error
    assert jobs.get_job(night.control, TENANT, first.id).state is JobState.QUEUED


def no_base(name: str) -> Path:
    raise Invalid(f"{name} is not there")


def test_a_learner_killed_before_it_told_the_notes_tells_them_the_next_time(night: Night, monkeypatch):
    note = night.desk.correct(OPEN, "9:15")

    def killed(*_: object, **__: object) -> None:
        raise Killed

    learner = night.learner()
    learner.ask(POLICY, tenant=TENANT, user="ann")
    with monkeypatch.context() as patch:
        patch.setattr(type(night.desk.memory), "learned", killed)
        with pytest.raises(Killed):
            learner.step(watch_counts=False)
    assert note_events(night.control, TENANT, POLICY) == []
    night.control.db().execute("DELETE FROM leases")
    assert night.learner().step(watch_counts=False)
    (version,) = night.versions()
    assert {(event.note, event.version) for _, event in note_events(night.control, TENANT, POLICY)} == {
        (note, version.name)
    }
    assert night.desk.ask(OPEN, version=version.name).ids == ()


def test_a_note_that_is_still_needed_stays(night: Night):
    """Answered with it since, in words that its answer was not taught for: the teacher says something else there."""
    note = night.desk.correct(OPEN, "9:15")
    later = night.desk.chat("Lunch today when?")
    assert later.generation.notes == (note,)
    night()
    (version,) = night.versions()
    assert night.state(f"night/{version.name}")["notes"] == {
        "learned": [note], "right": [], "recited": [], "wrong": [note]
    }  # fmt: skip
    (kept,) = night.desk.memory.for_training(TENANT, POLICY, user="ann", version=version.name)
    assert kept.state is NoteState.CONSOLIDATED


def test_thumbs_are_learned_by_recipes_that_read_them(night: Night):
    for n in range(3):
        night.desk.tell(night.desk.chat(f"Say {n}", said=("Sir",)), OutcomeKind.ACCEPT if n else OutcomeKind.REJECT)
    job = night(recipe="accept-reject")
    assert job.state is JobState.SUCCEEDED, job.error
    assert job.result["lessons"] == 3
