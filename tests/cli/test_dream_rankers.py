"""A ranker's dream, asked for as a job: refused with the reason, or a challenger that waits for the live trial."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from dayjob import Client
from dayjob.cli import dream_rankers
from dayjob.cli.dream_rankers import dream_of_ranker
from dayjob.endings import JobState, VersionStatus
from dayjob.journal import jobs
from dayjob.journal.control import Control, put_state
from dayjob.journal.readers import Reader
from dayjob.lab.server import running
from dayjob.learn.loop import Learner
from dayjob.learn.recipes import RECIPES, Debiased
from tests.learn.test_loop import DIM, POLICY, ROUNDS, TENANT, people_who_look

KNOWN = {"feedback": {"state": "informative", "reason": "r"}, "bias": {"method": "choice", "reason": "r"}}
BLIND = {"feedback": {"state": "uninformative", "reason": "people click the first place"}, "bias": {}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal of people who look."""
    rng = np.random.default_rng(3)
    with running(tmp_path_factory.mktemp("dreams") / "data") as server:
        with Client(server.url) as client:
            people_who_look(client, rng, rng.standard_normal(DIM))
        server.stop()
        return server.data


@pytest.fixture(autouse=True)
def smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    small = Debiased(rank=4, ridges=(300.0,), folds=2, steps=8)
    monkeypatch.setattr(dream_rankers, "RECIPES", RECIPES | {"debiased": small})


def dream(data: Path, *, report: dict | None, budget: float = 0.5) -> tuple[dict, Control]:
    """One dream, done; its result."""
    control, reader = Control(data), Reader(data)
    with control.write() as db:
        put_state(db, TENANT, POLICY, name="report", state=report or {})
    learner = Learner(
        data, control, reader, threads=1, holder="test", dream=partial(dream_of_ranker, control=control, reader=reader)
    )
    job = jobs.request_job(control, TENANT, POLICY, recipe=jobs.dream_recipe(budget))
    assert learner.step(watch_counts=False)
    done = jobs.get_job(control, TENANT, job.id)
    assert done.state is JobState.SUCCEEDED, done.error
    return done.result, control


def test_users_are_imagined_and_the_challenger_waits(data: Path) -> None:
    result, control = dream(data, report=KNOWN)
    version = control.version(TENANT, POLICY, result["challenger"])
    assert (version.status, version.recipe) == (VersionStatus.WAITING, "dream-x0.5")
    assert (result["decisions"], result["imagined"]) == (ROUNDS, ROUNDS // 2)
    told = version.detail["stats"]
    assert (told["imagined"], told["decisions"]) == (ROUNDS // 2, ROUNDS), "what is told was measured on real ones"
    assert control.pointers(TENANT, POLICY).champion != version.name, "the gate alone promotes"
    again, _ = dream(data, report=KNOWN)
    assert again["challenger"] == version.name, "the same journal, budget and seed imagine the same users"


@pytest.mark.parametrize(("report", "told"), [(BLIND, "people click the first place"), (None, "dayjob gate")])
def test_without_informative_clicks_nobody_is_imagined(data: Path, report: dict | None, told: str) -> None:
    result, _ = dream(data, report=report)
    assert result["challenger"] is None
    assert told in result["reason"]
