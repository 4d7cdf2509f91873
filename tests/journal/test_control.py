"""control.db: one row moves the pointers, leases fence, what commits together commits or does not. Any process."""

import multiprocessing
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from dayjob.endings import Conflict, Fenced, JobState, NotFound, PolicyKind, VerdictKind, VersionStatus
from dayjob.journal import control as module
from dayjob.journal.control import Control, add_point, add_verdict, put_state
from dayjob.journal.jobs import get_job, request_job, unfinished, update_job
from dayjob.journal.steering import GONE, check_may_serve
from dayjob.records import Policy, Verdict, Version
from tests.journal.standing import mark_taught, stand

KEY = ("t", "p")


def version(number: int, status: VersionStatus = VersionStatus.WAITING) -> Version:
    name = "v0-baseline" if number == 0 else f"v{number}-{number:08x}"
    return Version(
        tenant="t", policy="p", name=name, number=number, parent=None, recipe="debiased", digest=f"{number:064x}",
        from_seq=0, to_seq=number, status=status, created_ms=number, detail={"temperature": 0.5},
    )  # fmt: skip


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    opened = Control(tmp_path)
    policy = Policy(tenant="t", name="p", kind=PolicyKind.RANKER, spec={"alpha": 0.05}, created_ms=5)
    opened.create_policy(policy, version(0, VersionStatus.BASELINE))
    yield opened
    opened.db().close()


def test_a_policy_starts_with_its_baseline_and_is_made_once(control: Control) -> None:
    pointers = control.pointers(*KEY)
    assert (pointers.champion, pointers.baseline, pointers.previous, pointers.challenger) == (
        "v0-baseline", "v0-baseline", None, None,
    )  # fmt: skip
    control.move(*KEY, change={"frozen": "champion"})
    other = Policy(tenant="t", name="p", kind=PolicyKind.RANKER, spec={"alpha": 0.5}, created_ms=9)
    control.create_policy(other, version(0, VersionStatus.BASELINE))
    assert control.policy(*KEY).spec == {"alpha": 0.05}
    assert control.pointers(*KEY).frozen == "champion"
    control.update_spec(*KEY, {"alpha": 0.1})
    assert control.policies("t")[0].spec == {"alpha": 0.1}
    assert control.policies("u") == []
    for missing in (
        lambda: control.policy("u", "p"),
        lambda: control.pointers("t", "q"),
        lambda: control.version(*KEY, "v9-00000009"),
    ):
        with pytest.raises(NotFound):
            missing()


def test_a_move_is_one_row_and_counts_generations(control: Control) -> None:
    before = control.pointers(*KEY)
    moved = control.move(*KEY, change={"champion": "v2-00000002", "previous": "v1-00000001"})
    assert (moved.champion, moved.previous, moved.generation) == ("v2-00000002", "v1-00000001", before.generation + 1)
    with pytest.raises(Fenced):
        control.move(*KEY, change={"champion": "v3-00000003"}, generation=before.generation)
    assert control.pointers(*KEY) == moved
    changes = control.db().total_changes()
    control.move(*KEY, change={"champion": "v1-00000001", "previous": None, "challenger": None})
    assert control.db().total_changes() == changes + 1, "a rollback is one row"
    moved = control.pointers(*KEY)
    with pytest.raises(AssertionError):
        control.move(*KEY, change={"baseline": "v1-00000001"})
    with pytest.raises(Fenced):
        control.move("u", "p", change={"champion": "v3-00000003"})


def test_another_connection_sees_that_something_changed(control: Control, tmp_path: Path) -> None:
    other = Control(tmp_path)
    before = other.change_count()
    assert other.change_count() == before
    control.move(*KEY, change={"frozen": "champion"})
    assert other.change_count() != before


def test_versions_keep_what_was_said_of_them_first_but_their_status(control: Control) -> None:
    control.add_version(version(2))
    control.add_version(version(1))
    control.add_version(version(1, VersionStatus.CHAMPION))
    assert [v.number for v in control.versions(*KEY)] == [0, 1, 2]
    assert control.version(*KEY, version(1).name) == version(1)
    stand(control, *KEY, [version(1).name, version(2).name], VersionStatus.SUPERSEDED)
    assert [v.status for v in control.versions(*KEY)[1:]] == [VersionStatus.SUPERSEDED] * 2
    stand(control, *KEY, ["v0-baseline"], VersionStatus.ROLLED_BACK)
    assert control.versions(*KEY)[0].status is VersionStatus.BASELINE


def test_secrets_are_made_once_and_differ(control: Control, tmp_path: Path) -> None:
    made = control.secret("sampling")
    assert len(made) == 32
    assert Control(tmp_path).secret("sampling") == made
    assert control.secret("tokens") != made


# ---- leases ----------------------------------------------------------------------------------------------------------


def test_one_holds_the_lease_and_a_newer_holder_fences_the_older(control: Control) -> None:
    first = control.take_lease("judge", "one", ttl_s=60)
    assert first is not None
    assert control.take_lease("judge", "two", ttl_s=60) is None
    renewed = control.take_lease("judge", "one", ttl_s=0)
    assert renewed is not None
    assert renewed.token == first.token, "renewing is no new holder"
    second = control.take_lease("judge", "two", ttl_s=60)
    assert second is not None
    assert second.token > first.token
    with pytest.raises(Fenced, match="newer process"), control.fenced(first) as db:
        put_state(db, *KEY, name="judge", state={"by": "one"})
    assert control.state(*KEY, "judge") is None
    with control.fenced(second) as db:
        put_state(db, *KEY, name="judge", state={"by": "two"})
    assert control.state(*KEY, "judge") == {"by": "two"}
    assert control.take_lease("another", "one", ttl_s=60) is not None


def test_a_lease_from_before_the_clock_was_set_back_is_over(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1e9
    monkeypatch.setattr(module.time, "time", lambda: now)
    assert control.take_lease("judge", "dead", ttl_s=10) is not None
    now -= 5
    assert control.take_lease("judge", "two", ttl_s=10) is None, "a little back: it may still live"
    now -= 3_600
    taken = control.take_lease("judge", "two", ttl_s=10)
    assert taken is not None
    assert taken.token == 2


def test_what_is_written_under_a_lease_commits_together_or_not(control: Control) -> None:
    lease = control.take_lease("judge", "one", ttl_s=60)
    assert lease is not None
    verdict = Verdict(
        tenant="t", policy="p", challenger="v1", champion="v0", kind=VerdictKind.REJECT, reason="worse",
        evidence={"e": 1.5}, at_ms=3, by="gate",
    )  # fmt: skip

    def cut_short() -> None:
        with control.fenced(lease) as db:
            put_state(db, *KEY, name="judge", state={"cursor": 1})
            add_verdict(db, verdict)
            add_point(db, *KEY, name="trial", point={"n": 1})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cut_short()
    assert control.state(*KEY, "judge") is None
    assert control.verdicts(*KEY) == []
    assert control.series(*KEY, "trial") == []
    with control.fenced(lease) as db:
        for n in range(3):
            add_verdict(db, verdict)
            add_point(db, *KEY, name="trial", point={"n": n})
    assert control.verdicts(*KEY) == [verdict] * 3
    assert control.series(*KEY, "trial", limit=2) == [{"n": 1}, {"n": 2}], "the newest, oldest of them first"


def _promote(root: str, number: int, rounds: int) -> None:
    control = Control(Path(root))
    for _ in range(rounds):
        while True:
            pointers = control.pointers(*KEY)
            try:
                control.move(
                    *KEY,
                    change={"champion": f"v{number}", "previous": pointers.champion},
                    generation=pointers.generation,
                )
                break
            except Fenced:
                continue


def test_processes_that_move_pointers_never_lose_a_move(control: Control, tmp_path: Path) -> None:
    before = control.pointers(*KEY).generation
    context = multiprocessing.get_context("spawn")
    movers = [context.Process(target=_promote, args=(str(tmp_path), number, 15)) for number in (1, 2)]
    for mover in movers:
        mover.start()
    for mover in movers:
        mover.join(30)
        assert mover.exitcode == 0
    assert control.pointers(*KEY).generation == before + 30


def test_threads_have_connections_of_their_own(control: Control) -> None:
    failures = []

    def work(number: int) -> None:
        try:
            for _ in range(20):
                control.move(*KEY, change={"challenger": f"v{number}"})
                control.pointers(*KEY)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert control.pointers(*KEY).generation == 81


# ---- jobs, people ----------------------------------------------------------------------------------------------------


def test_asking_twice_starts_one_job_and_an_interrupted_one_is_taken_up(control: Control) -> None:
    job = request_job(control, *KEY, recipe="debiased")
    assert request_job(control, *KEY, recipe="naive") == job
    update_job(control, job, state=JobState.RUNNING, progress=0.5)
    assert [one.id for one in unfinished(control)] == [job.id]
    assert request_job(control, *KEY, recipe="naive").id == job.id
    update_job(control, job, state=JobState.SUCCEEDED, progress=1.0, result={"challenger": "v1"})
    done = get_job(control, "t", job.id)
    assert (done.state, done.progress, done.result) == (JobState.SUCCEEDED, 1.0, {"challenger": "v1"})
    assert unfinished(control) == []
    assert request_job(control, *KEY, recipe="naive").id != job.id
    with pytest.raises(NotFound, match="the id that POST /v1/policies/NAME/learn"):
        get_job(control, "u", job.id)


@pytest.mark.parametrize("status", VersionStatus)
def test_what_can_never_serve_again_is_refused_with_what_to_do(status: VersionStatus) -> None:
    with (
        nullcontext() if status not in GONE else pytest.raises(Conflict, match="name another, or let the policy learn")
    ):
        check_may_serve(version(1, status))


def test_a_persons_wish_is_kept_until_they_are_forgotten(control: Control, tmp_path: Path) -> None:
    assert control.learns("t", "ann")
    control.set_learns("t", "ann", False)
    control.set_learns("t", "bob", False)
    control.set_learns("t", "bob", True)
    assert not control.learns("t", "ann")
    assert control.learns("u", "ann")
    assert control.silent_people() == {("t", "ann")}
    control.forget("t", "ann")
    control.forget("t", "bob")
    assert control.silent_people() == set()
    assert not control.learns("t", "ann"), "the wish outlives the name"
    assert control.learns("t", "bob"), "who never said no is learned from"
    assert control.silent_marks() == {("t", control.mark_of("t", "ann"))}
    assert not [path for path in tmp_path.iterdir() if b"ann" in path.read_bytes()]


def test_a_wish_that_outlived_its_name_is_withdrawn_by_its_owner(control: Control) -> None:
    control.set_learns("t", "ann", False)
    control.forget("t", "ann")
    control.set_learns("t", "ann", True)
    assert control.learns("t", "ann")
    assert control.silent_marks() == set()


def test_who_taught_a_version_is_known_by_mark_alone(control: Control) -> None:
    mark_taught(control, *KEY, "v1", marks=[b"m" * 16, b"n" * 16])
    mark_taught(control, *KEY, "v1", marks=[b"m" * 16])
    mark_taught(control, "u", "p", "v9", marks=[b"m" * 16])
    assert control.taught_by("t", b"m" * 16) == [("p", "v1")]
    assert control.taught_by("t", b"x" * 16) == []


def test_the_freeze_file_is_read_as_it_stands(control: Control, tmp_path: Path) -> None:
    assert control.freeze_file() == ""
    (tmp_path / "freeze").touch()
    assert control.freeze_file() == "champion"
    (tmp_path / "freeze").write_text("baseline\n")
    assert control.freeze_file() == "baseline"
    (tmp_path / "freeze").unlink()
    assert control.freeze_file() == ""
