"""The learner over a real journal: jobs, digests, erased people."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dayjob import ApiError, Candidate, Client, Feedback, RankerSpec, cli
from dayjob.endings import JobState, VersionStatus
from dayjob.journal import jobs, versions
from dayjob.journal.control import Control
from dayjob.journal.readers import Reader
from dayjob.lab.server import Server, running
from dayjob.learn import loop
from dayjob.learn.loop import Learner
from dayjob.learn.recipes import RECIPES, Debiased

DIM, K, ROUNDS = 8, 5, 600
POLICY, TENANT = "p", "default"


def people_who_look(client: Client, rng: np.random.Generator, taste_D: np.ndarray) -> None:
    """Ten people click what lies nearest to their common taste; the caller's score knows nothing of it."""
    client.put_policy(POLICY, RankerSpec(context_dim=DIM, candidate_dim=DIM, learn_every=0))
    clicks = []
    for n in range(ROUNDS):
        vector_KD = rng.standard_normal((K, DIM)).astype(np.float32)
        answer = client.rank(
            POLICY,
            rng.standard_normal(DIM),
            user=f"u{n % 10}",
            candidates=[Candidate(id=f"c{k}", features=vector_KD[k], score=-float(k)) for k in range(K)],
        )
        best = int((vector_KD @ taste_D).argmax())
        clicks.append(Feedback(decision=answer.id, kind="click", item=f"c{best}"))
    assert all(receipt.error is None for receipt in client.feedback_many(clicks))


@pytest.fixture(autouse=True)
def smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default recipe on a smaller grid: these tests are about nights, not about what a fit finds."""
    monkeypatch.setattr(loop, "RECIPES", RECIPES | {"debiased": Debiased(rank=8, ridges=(300.0,), folds=2)})


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    rng = np.random.default_rng(3)
    with running(tmp_path_factory.mktemp("learner") / "data") as server:
        with Client(server.url) as client:
            people_who_look(client, rng, rng.standard_normal(DIM))
        yield server


@pytest.fixture
def data(served: Server) -> Path:
    return served.data


def learner(root: Path) -> Learner:
    return Learner(root, Control(root), Reader(root), threads=1, holder="test")


def night(root: Path) -> dict[str, object]:
    """One job, done; its result."""
    one = learner(root)
    job = one.ask(POLICY)
    assert one.step(watch_counts=False)
    done = jobs.get_job(Control(root), TENANT, job.id)
    assert done.state is JobState.SUCCEEDED, done.error
    assert done.result is not None
    return done.result


def test_a_night_makes_a_waiting_challenger_that_loads_and_says_who_taught_it(data: Path) -> None:
    result = night(data)
    control = Control(data)
    version = control.version(TENANT, POLICY, str(result["challenger"]))
    assert version.status is VersionStatus.WAITING
    assert result["decisions"] == ROUNDS
    weights, manifest = versions.load(data, TENANT, POLICY, version.name, digest=version.digest)
    assert manifest.recipe == "debiased"
    assert weights


def test_the_same_range_gives_the_same_digest_and_no_second_version(data: Path) -> None:
    first = [v.digest for v in Control(data).versions(TENANT, POLICY)]
    night(data)
    assert [v.digest for v in Control(data).versions(TENANT, POLICY)] == first


@pytest.mark.parametrize("how", ["flag", "file"])
def test_a_freeze_stops_the_learner_and_a_job_waits_for_its_end(data: Path, how: str) -> None:
    control, one = Control(data), learner(data)
    job = one.ask(POLICY)
    if how == "flag":
        control.move(TENANT, POLICY, change={"frozen": "champion"})
    else:
        (data / "freeze").write_text("")
    assert not one.step(watch_counts=True)
    assert jobs.get_job(control, TENANT, job.id).state is JobState.QUEUED
    control.move(TENANT, POLICY, change={"frozen": ""})
    (data / "freeze").unlink(missing_ok=True)
    assert one.step(watch_counts=False)
    assert jobs.get_job(control, TENANT, job.id).state is JobState.SUCCEEDED


def test_learning_by_hand_says_what_came_of_it(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dayjob", "learn", "--data", str(data), *arguments])
        before = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
        try:
            with pytest.raises(SystemExit) as end:
                cli.main()
        finally:
            for number, handler in before:
                signal.signal(number, handler)
        return int(end.value.code or 0), *capsys.readouterr()

    status, said, _ = run("--policy", POLICY)
    assert status == 0
    assert "v1-" in said
    for wrong, remedy in (
        ((), "--policy NAME"),
        (("--policy", "nobody"), "no policy"),
        (("--policy", POLICY, "--recipe", "x"), "use one of"),
    ):
        status, _, told = run(*wrong)
        assert status == 2
        assert remedy in told


def test_an_erased_person_is_unlearned_and_the_champion_rebuilt_without_them(served: Server) -> None:
    data = served.data
    control = Control(data)
    taught = control.versions(TENANT, POLICY)[-1]
    with Client(served.url) as client:
        client.promote(POLICY, taught.name, reason="to see it erased")
        erased = client.erase_user("u3")
    assert erased.decisions == ROUNDS // 10
    assert control.version(TENANT, POLICY, taught.name).status is VersionStatus.TAINTED
    assert learner(data).step(watch_counts=False), "erasing asks for a rebuild by itself"
    pointers = control.pointers(TENANT, POLICY)
    assert pointers.champion not in (taught.name, pointers.baseline)
    rebuilt = control.version(TENANT, POLICY, pointers.champion)
    assert rebuilt.status is VersionStatus.CHAMPION
    assert (rebuilt.digest != taught.digest, rebuilt.to_seq <= taught.to_seq) == (True, True)
    assert control.verdicts(TENANT, POLICY)[-1].by == "erasure"
    with Client(served.url) as client:
        assert client.user("u3").decisions == 0
        with pytest.raises(ApiError, match="erased"):
            client.rollback(POLICY, to=taught.name)


def test_who_comes_back_after_an_erasure_does_not_stop_the_nights(served: Server) -> None:
    with Client(served.url) as client:
        answer = client.rank(
            POLICY,
            np.ones(DIM),
            user="u3",
            candidates=[Candidate(id=f"c{k}", features=np.full(DIM, k), score=-float(k)) for k in range(K)],
        )
        client.feedback(answer.click("c1"))
    result = night(served.data)
    version = Control(served.data).version(TENANT, POLICY, str(result["challenger"]))
    assert version.status is VersionStatus.WAITING


def test_a_champion_taught_by_one_person_alone_gives_way_to_the_baseline(served: Server) -> None:
    control = Control(served.data)
    champion = control.versions(TENANT, POLICY)[-1]
    with Client(served.url) as client:
        client.promote(POLICY, champion.name, reason="to see everybody go")
        for n in range(10):
            client.erase_user(f"u{n}")
    assert learner(served.data).step(watch_counts=True)
    pointers = control.pointers(TENANT, POLICY)
    assert pointers.champion == pointers.baseline
