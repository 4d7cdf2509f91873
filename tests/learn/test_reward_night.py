"""Rewards over HTTP, from the journal to a version: no click anywhere."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dayjob import Candidate, Client, Feedback, RankerSpec
from dayjob.endings import FeedbackState, JobState
from dayjob.fakes import fake_id
from dayjob.gate.desk import Desk
from dayjob.journal import jobs, versions
from dayjob.journal.control import Control
from dayjob.journal.join import window_of
from dayjob.journal.readers import Reader
from dayjob.lab.server import Server, running
from dayjob.learn import loop
from dayjob.learn.collect import collect
from dayjob.learn.loop import Learner
from dayjob.learn.recipes import RECIPES, Debiased
from dayjob.policies.protocol import Lists
from dayjob.policies.ranker import NumpyRanker
from dayjob.signals.detector import feedback

DIM, K, ROUNDS = 8, 5, 1000
POLICY, TENANT = "paid", "default"
TASTE_D = np.random.default_rng(3).standard_normal(DIM)


def play(client: Client, rng: np.random.Generator) -> list[str]:
    """Rewards between -1 and 3 for the first place, high with chance .85 where it is what people like best, else with
    .15; the caller's score knows nothing of it. First, one decision of each kind of feedback."""
    spec = RankerSpec(
        context_dim=DIM, candidate_dim=DIM, learn_every=0, metric="reward", reward_range=(-1.0, 3.0),
        explore={"changed_first": 0.3}, outcome_window_s=3600.0,
    )  # fmt: skip
    client.put_policy(POLICY, spec)
    asked, rewards = [], []
    for n in range(ROUNDS):
        vector_KD = rng.standard_normal((K, DIM)).astype(np.float32)
        candidates = [Candidate(id=f"c{k}", features=vector_KD[k], score=-float(k)) for k in range(K)]
        context_D, name = rng.standard_normal(DIM), fake_id(n + 1)
        answer = client.rank(POLICY, context_D, user=f"u{n % 20}", candidates=candidates, id=name)
        first, second = (place.id for place in answer.ranking[:2])
        asked.append(second if n in (1, 3) else first)
        if n == 0:
            client.feedback(Feedback(decision=answer.id, kind="thumb", value=-1))
        elif n == 1:
            client.feedback(Feedback(decision=answer.id, kind="reward", item=second, value=1.0))
        elif n == 2:
            client.feedback(Feedback(decision=answer.id, kind="reward", value=0.0))
            client.feedback(Feedback(decision=answer.id, kind="thumb", value=1))  # a reward beats a thumb
        elif n == 3:
            client.feedback(Feedback(decision=answer.id, kind="click", item=second))
            client.feedback(Feedback(decision=answer.id, kind="thumb", value=1))  # of what was clicked
        else:
            best = f"c{int((vector_KD @ TASTE_D).argmax())}"
            high = rng.random() < (0.85 if first == best else 0.15)
            rewards.append(Feedback(decision=answer.id, kind="reward", value=3.0 if high else -1.0))
    assert all(receipt.error is None for receipt in client.feedback_many(rewards))
    return asked


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, list[str]]]:
    data = tmp_path_factory.mktemp("rewards") / "data"
    Control(data).secret("sampling")  # with it and the ids, the same is shown again
    with running(data) as server:
        with Client(server.url) as client:
            asked = play(client, np.random.default_rng(0))
        yield server, asked


def test_rewards_and_thumbs_are_read_as_they_were_meant(played: tuple[Server, list[str]]) -> None:
    data, asked = played[0].data, played[1]
    spec = Control(data).policy(TENANT, POLICY).spec
    reader = Reader(data)
    replay = collect(reader, TENANT, POLICY, spec=spec, until=reader.last_seq(), silent=set()).replay
    assert replay.reward_B is not None
    assert replay.rewarded_B is not None
    assert len(replay) == ROUNDS
    assert replay.reward_B[:4].tolist() == [0.0, 0.5, 0.25, 1.0]
    assert set(replay.reward_B[4:].tolist()) == {0.0, 1.0}
    assert [f"c{slot}" for slot in replay.rewarded_B] == asked


def test_the_report_asks_its_question_of_rewards_where_nobody_clicks(played: tuple[Server, list[str]]) -> None:
    data = played[0].data
    spec, reader, desk = Control(data).policy(TENANT, POLICY).spec, Reader(data), Desk(key=b"k" * 32)
    for page in reader.joined(TENANT, POLICY, window=window_of(spec), now_ms=2**50):
        desk.add(page, spec, reader=reader)
    log = desk.log()
    assert np.isnan(log.reward_B[1])  # it speaks of the second place
    assert log.reward_B[[0, 2, 3]].tolist() == [0.0, 1.0, 1.0]  # the newest, a thumb or a reward
    said = feedback(log)
    assert said.clicks == ROUNDS - 1  # the rewards of the first place
    # What is liked is no column; how a candidate stands apart from the others is, and tells a little: luck decides
    # whether 999 rewards show it. They may never be called uninformative, as the same log with all rewards alike is.
    assert said.state in (FeedbackState.TOO_FEW, FeedbackState.INFORMATIVE), said
    assert feedback(replace(log, reward_B=np.ones(ROUNDS))).state is FeedbackState.UNINFORMATIVE


def test_a_night_on_rewards_makes_a_version_that_orders_by_what_is_rewarded(
    played: tuple[Server, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "RECIPES", RECIPES | {"debiased": Debiased(rank=8, ridges=(300.0,), folds=2)})
    data: Path = played[0].data
    control = Control(data)
    learner = Learner(data, control, Reader(data), threads=1, holder="test")
    job = learner.ask(POLICY)
    assert learner.step(watch_counts=False)
    done = jobs.get_job(control, TENANT, job.id)
    assert done.state is JobState.SUCCEEDED, done.error
    assert done.result is not None
    version = control.version(TENANT, POLICY, str(done.result["challenger"]))
    weights, manifest = versions.load(data, TENANT, POLICY, version.name, digest=version.digest)
    rng = np.random.default_rng(9)
    vector_BKE = rng.standard_normal((2000, K, DIM)).astype(np.float32)
    lists = Lists(
        context_BD=rng.standard_normal((2000, DIM)).astype(np.float32), candidate_BKE=vector_BKE,
        pair_BKP=np.zeros((2000, K, 0), np.float32), base_BK=np.tile(-np.arange(K, dtype=np.float64), (2000, 1)),
    )  # fmt: skip
    first_B = NumpyRanker(weights, manifest.network).score(lists).argmax(axis=1)
    assert (first_B == (vector_BKE @ TASTE_D).argmax(axis=1)).mean() > 0.5  # a fifth by the caller's order
