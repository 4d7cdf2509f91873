"""Someone is erased while a night learns from them: whatever moves meanwhile, nothing that knows them serves on."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest
from starlette.testclient import TestClient

from dayjob.cli.assemble import load_ranker
from dayjob.cli.serve import assemble
from dayjob.config import Config
from dayjob.endings import JobState, VersionStatus
from dayjob.gate.judge import Judge
from dayjob.journal import jobs
from dayjob.journal.backup import backup
from dayjob.journal.control import Control
from dayjob.journal.readers import Reader
from dayjob.journal.steering import override, rebuild, roll_back
from dayjob.learn import loop
from dayjob.learn.deaths import DEATHS, check_deaths
from dayjob.learn.fit import Fitted
from dayjob.learn.loop import Learner
from dayjob.records import Version
from dayjob.serve.app import create_app
from tests.journal.standing import stand

KEY = ("default", "geo")
RANKER = {"kind": "ranker", "context_dim": 3, "candidate_dim": 3, "recipe": "naive", "hidden": [4], "learn_every": 0}
ITEMS = [{"id": n, "features": [float(i == k) for i in range(3)]} for k, n in enumerate("abc")]


@pytest.fixture
def http(tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(create_app(assemble(Config(data=tmp_path / "data"), ())), base_url="http://127.0.0.1") as client:
        assert client.put("/v1/policies/geo", json=RANKER).status_code == 201
        for n in range(9):
            teach(client, f"u{n % 3}", n)
        yield client


@pytest.fixture
def control(http: TestClient) -> Control:
    return Control(http.app.state.service.hub.root)  # type: ignore[attr-defined]


def teach(client: TestClient, user: str, number: int) -> None:
    body = {"policy": "geo", "user": user, "context": {"features": [1.0, 0.5, number / 9]}, "candidates": ITEMS}
    told = client.post("/v1/rank", json=body).json()
    click = {"decision": told["id"], "kind": "click", "position": 1 + number % 3}
    assert client.post("/v1/feedback", json=click).status_code == 201


def learner(control: Control, reader: Reader | None = None) -> Learner:
    return Learner(control.root, control, reader or Reader(control.root), threads=1, holder="test")


def night(control: Control, reader: Reader | None = None) -> Any:
    """One job, done, and the job as it stands then."""
    one = learner(control, reader)
    job = one.ask("geo")
    assert one.step(watch_counts=False)
    return jobs.get_job(control, "default", job.id)


def champion(control: Control) -> Version:
    return control.version(*KEY, control.pointers(*KEY).champion)


def tainted(http: TestClient, control: Control) -> Version:
    """A champion that learned from somebody since erased."""
    first = control.version(*KEY, night(control).result["challenger"])
    override(control, control.pointers(*KEY), version=first, reason="a test", evidence={})
    assert http.delete("/v1/users/u0").json()["rebuilding"] == ["geo"]
    return first


def during_the_fit(monkeypatch: pytest.MonkeyPatch, what: Callable[[], object]) -> None:
    """Do this once, after the next fit and before anything is published."""
    todo = [what]

    def fit(*arguments: Any, **options: Any) -> Fitted:
        fitted = real(*arguments, **options)
        if todo:
            todo.pop()()
        return fitted

    real = loop.fit
    monkeypatch.setattr(loop, "fit", fit)


def files(control: Control) -> set[str]:
    """The versions whose weights are on the disk."""
    return {path.name for path in (control.root / "versions").glob("*/*/v*")}


def test_pointers_that_move_while_a_champion_is_built_again_do_not_keep_it(
    http: TestClient, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tainted(http, control)
    during_the_fit(monkeypatch, lambda: control.move(*KEY, change={"frozen": "champion"}) and control.move(
        *KEY, change={"frozen": ""}))  # fmt: skip
    job = night(control)
    assert (job.state, job.result["challenger"]) == (JobState.SUCCEEDED, None)
    assert "serves as champion" in job.result["reason"]
    assert champion(control).name not in (gone.name, "v0-baseline")
    assert (champion(control).status, champion(control).to_seq) == (VersionStatus.CHAMPION, gone.to_seq)
    assert gone.name not in files(control), "nor do its weights stay on the disk"
    assert control.version(*KEY, gone.name).status is VersionStatus.TAINTED


@pytest.mark.parametrize("stands", [s for s in VersionStatus if s not in (VersionStatus.BASELINE,)])
def test_what_came_out_equal_before_serves_unless_it_was_withdrawn(
    http: TestClient, control: Control, monkeypatch: pytest.MonkeyPatch, stands: VersionStatus
) -> None:
    """A learner killed between publishing and installing left the version behind, wherever it was put since."""
    gone = tainted(http, control)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "rebuild", lambda *_, **__: False)
        night(control)
    again = control.versions(*KEY)[-1]
    assert champion(control).name == gone.name
    stand(control, *KEY, [again.name], stands)
    if stands is VersionStatus.TRIAL:
        control.move(*KEY, change={"challenger": again.name})
    assert night(control).state is JobState.SUCCEEDED
    pointers = control.pointers(*KEY)
    assert pointers.challenger is None
    if stands in (VersionStatus.TAINTED, VersionStatus.ROLLED_BACK):
        assert pointers.champion == pointers.baseline
    elif stands is VersionStatus.DAMAGED:
        assert champion(control).digest == again.digest
        assert champion(control).name not in (again.name, gone.name), "written anew, its files are sound"
    else:
        assert pointers.champion == again.name
        assert champion(control).status is VersionStatus.CHAMPION


def test_another_champion_that_serves_by_now_stays(
    http: TestClient, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    tainted(http, control)
    during_the_fit(monkeypatch, lambda: roll_back(control, control.pointers(*KEY), to="v0-baseline", evidence={}))
    job = night(control)
    assert "another version serves" in job.result["reason"]
    assert control.pointers(*KEY).champion == "v0-baseline"


def test_nothing_is_registered_of_a_night_in_which_a_teacher_was_erased(
    http: TestClient, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked at before the row is written: a learner killed right after it leaves nothing to find."""
    during_the_fit(monkeypatch, lambda: http.delete("/v1/users/u1").raise_for_status())
    job = night(control)
    assert job.state is JobState.FAILED
    assert "erased" in str(job.error)
    assert [one.name for one in control.versions(*KEY)] == ["v0-baseline"]
    assert files(control) == set()
    assert night(control).state is JobState.SUCCEEDED


class Late(Reader):
    """Somebody is erased just after the first look for erasures found none."""

    erase: Callable[[], object] | None = None

    def any_erased(self, tenant: str, marks: Sequence[bytes], *, after: int) -> bool:
        found = super().any_erased(tenant, marks, after=after)
        if self.erase is not None:
            erase, self.erase = self.erase, None
            erase()
        return found


def test_an_erasure_between_the_look_and_the_row_is_seen_by_the_second_look(http: TestClient, control: Control) -> None:
    reader = Late(control.root)
    store = http.app.state.service.hub.store  # type: ignore[attr-defined]
    reader.erase = lambda: store.erase_user("default", "u1").result()
    assert night(control, reader).state is JobState.FAILED
    (made,) = control.versions(*KEY)[1:]
    assert made.status is VersionStatus.TAINTED
    assert files(control) == set()


def test_a_learner_killed_between_the_two_looks_is_made_up_for_by_the_next(
    http: TestClient, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Late(control.root)
    store = http.app.state.service.hub.store  # type: ignore[attr-defined]
    reader.erase = lambda: store.erase_user("default", "u1").result()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "taint", lambda *_: None)
        night(control, reader)
    (made,) = control.versions(*KEY)[1:]
    assert made.status is VersionStatus.WAITING
    learner(control)
    assert control.version(*KEY, made.name).status is VersionStatus.TAINTED


def test_a_judge_puts_nothing_on_trial_that_an_erasure_overlooked(
    http: TestClient, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Late(control.root)
    store = http.app.state.service.hub.store  # type: ignore[attr-defined]
    reader.erase = lambda: store.erase_user("default", "u1").result()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "taint", lambda *_: None)
        night(control, reader)
    judge = Judge(control, Reader(control.root), load_ranker=partial(load_ranker, control.root), holder="test")
    judge.step()
    assert control.pointers(*KEY).challenger is None
    assert control.versions(*KEY)[-1].status is VersionStatus.TAINTED


@pytest.mark.parametrize("cut", ["UPDATE ON versions", "UPDATE ON pointers", "INSERT ON verdicts"])
@pytest.mark.parametrize("how", ["promotion", "rebuild", "rollback"])
def test_killed_anywhere_a_move_by_hand_is_done_or_not(http: TestClient, control: Control, cut: str, how: str) -> None:
    """Never a pointer to a version that does not stand as champion, nor one that stands so without it."""
    gone = tainted(http, control)
    made = control.version(*KEY, gone.name)
    other = Version(
        tenant="default", policy="geo", name="v9-00000009", number=9, parent=None, recipe="naive", digest="9" * 64,
        from_seq=0, to_seq=1, status=VersionStatus.WAITING, created_ms=0,
    )  # fmt: skip
    control.add_version(other)
    before, pointers = control.versions(*KEY), control.pointers(*KEY)

    def move() -> None:
        if how == "promotion":
            override(control, pointers, version=other, reason="a test", evidence={})
        elif how == "rebuild":
            assert rebuild(control, *KEY, champion=made.name, name=other.name)
        else:
            roll_back(control, pointers, to=other.name, evidence={})

    control.db().execute(f"CREATE TRIGGER killed BEFORE {cut} BEGIN SELECT RAISE(ABORT, 'killed'); END")
    with pytest.raises(apsw.ConstraintError, match="killed"):
        move()
    moved = (control.versions(*KEY), control.pointers(*KEY)) != (before, pointers)
    assert moved is (how == "rollback" and "verdicts" in cut), "a rollback's verdict only tells the story"
    control.db().execute("DROP TRIGGER killed")
    if not moved:
        move()
    assert champion(control).name == other.name
    assert champion(control).status is VersionStatus.CHAMPION


def test_a_backup_holds_what_learned_from_the_erased_only_while_it_serves(
    http: TestClient, control: Control, tmp_path: Path
) -> None:
    gone = tainted(http, control)
    assert gone.name in files(control), "it serves until another is built"
    assert backup(control.root, tmp_path / "before").versions == 1
    assert night(control).state is JobState.SUCCEEDED
    found = backup(control.root, tmp_path / "after")
    assert (found.versions, found.damaged) == (1, {})
    assert not list((tmp_path / "after").rglob(gone.name))


def test_a_challenger_that_learned_from_the_erased_is_off_the_disk_at_once(http: TestClient, control: Control) -> None:
    made = night(control).result["challenger"]
    assert files(control) == {made}
    assert http.delete("/v1/users/u0").json()["versions_tainted"] == [f"geo/{made}"]
    assert files(control) == set()


def test_a_job_over_which_learners_die_is_given_up_and_says_why(control: Control) -> None:
    job = learner(control).ask("geo")
    for _ in range(DEATHS):  # each begins, and is not heard of again
        jobs.start_job(control, job, newest_seq=1)
        check_deaths(control, job)
    assert learner(control).step(watch_counts=False)
    failed = jobs.get_job(control, "default", job.id)
    assert failed.state is JobState.FAILED
    assert "want of memory" in str(failed.error)
    assert night(control).state is JobState.SUCCEEDED, "the next job is another one"


def test_restarts_of_everything_are_no_deaths_over_a_job(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    job = learner(control).ask("geo")
    for number in range(5):
        monkeypatch.setattr(os, "getppid", lambda number=number: 10_000 + number)
        check_deaths(control, job)
    assert learner(control).step(watch_counts=False)
    assert jobs.get_job(control, "default", job.id).state is JobState.SUCCEEDED
