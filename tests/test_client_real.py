"""The client against a real server: every call, sync and async."""

import asyncio
import uuid
from collections.abc import Iterator

import numpy as np
import pytest

from dayjob.client import (
    ApiError,
    AsyncClient,
    Backoff,
    Candidate,
    Client,
    Feedback,
    LanguageSpec,
    RankerSpec,
    Unreachable,
)
from dayjob.endings import FeedbackState, Invalid, JobState, PolicyKind, Role, VersionStatus
from dayjob.lab.server import Server, running

SPEC = RankerSpec(context_dim=2, candidate_dim=2, explore={"changed_first": 0.0})
THREE = [Candidate(id=one, features=[1.0, n], score=-float(n)) for n, one in enumerate("abc")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("client")
    (root / "keys.toml").write_text('[[key]]\nkey = "secret"\ntenant = "acme"\nscopes = ["admin"]\n')
    arguments = ("--no-learner", "--no-judge", "--keys", str(root / "keys.toml"))
    with running(root / "data", arguments=arguments) as one:
        yield one


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    with Client(server.url, "secret", retries=1) as one:
        one.wait_ready()
        yield one


@pytest.fixture
def policy(client: Client) -> str:
    name = f"p{uuid.uuid4().hex[:12]}"
    client.put_policy(name, SPEC)
    return name


def test_a_policy_is_declared_read_and_steered(client, policy):
    told = client.policy(policy)
    assert (told.kind, told.champion, told.frozen, told.serves) == (PolicyKind.RANKER, told.baseline, False, "champion")
    assert told.spec["outcome_window_s"] == 60.0
    assert policy in [each.name for each in client.policies()]
    [version] = client.versions(policy)
    assert (version.version, version.status, version.journal_range) == (told.baseline, VersionStatus.BASELINE, (0, 0))
    assert client.freeze(policy, serve="baseline").serves == "baseline"
    assert client.policy(policy).frozen is True
    assert client.unfreeze(policy).frozen is False
    assert client.promote(policy, told.baseline, reason="to see").champion == told.baseline
    assert client.rollback(policy, to=told.baseline).champion == told.baseline
    report = client.report(policy)
    assert (report.feedback.state, report.gate["lag"]) == (FeedbackState.TOO_FEW, 0)


def test_a_job_is_asked_for_and_waited_for(client, policy):
    job = client.learn(policy, recipe="debiased")
    assert client.learn(policy).job == job.job
    assert (client.job(job.job).state, client.job(job.job).progress) == (JobState.QUEUED, 0.0)
    with pytest.raises(Unreachable):
        client.wait_job(job.job, timeout_s=0.02, every_s=0.01)
    dream = client.dream(policy, budget=4.0)
    assert client.dream(policy).job == dream.job != job.job
    with pytest.raises(ApiError) as refused:
        client.dream(policy, user="ann")
    assert (refused.value.status, refused.value.code) == (422, "invalid")


def test_rank_and_feedback(client, policy):
    told = client.rank(policy, [1.0, 0.0], candidates=THREE, user="u", session="s")
    assert [each.id for each in told.ranking] == ["a", "b", "c"]
    assert (told.role, told.role_propensity, told.position("c")) == (Role.CHAMPION, 1.0, 3)
    click = told.click("b")
    assert (client.feedback(click).status, client.feedback(click).status) == (201, 200)
    with pytest.raises(ApiError) as refused:
        client.feedback(Feedback(decision=told.id, kind="click", item="nobody"))
    assert refused.value.status == 422
    receipts = client.feedback_many(
        [
            told.truth({"a": 0.5, "c": 2.0}),
            Feedback(decision=str(uuid.uuid4()), kind="none"),
            Feedback(decision=told.id, kind="thumb", value=3.0),
            Feedback(session="s", kind="reward", value=1.0),
            click,
        ]
    )
    assert [each.status for each in receipts] == [201, 202, 422, 201, 200]
    assert [each.ok for each in receipts] == [True, True, False, True, True]
    assert receipts[2].error is not None
    counts = client.policy(policy).counts
    assert (counts.decisions, counts.outcomes) == (1, {"click": 1, "truth": 1, "reward": 1})
    [row] = client.export(policy)
    assert [each["kind"] for each in row["outcomes"]] == ["click", "truth", "reward"]


def test_a_catalog_is_put_and_searched(client, policy):
    rng = np.random.default_rng(0)
    items = [Candidate(id=f"i{n}", features=vector, meta={"n": n}) for n, vector in enumerate(rng.normal(size=(30, 2)))]
    assert client.put_catalog(policy, items) == 30
    assert len(client.rank(policy, [1.0, 0.0], k=4).ranking) == 4
    assert client.rank(policy, [1.0, 0.0], candidates=[Candidate(id="i7")], explore=False).ranking[0].id == "i7"


def test_the_same_object_sent_twice_counts_once_and_another_body_is_a_conflict(client, policy):
    one = str(uuid.uuid4())
    first = client.rank(policy, np.float64([0.1, 0.2]), candidates=THREE, id=one)
    assert client.rank(policy, np.float32([0.1, 0.2]), candidates=THREE, id=one) == first
    with pytest.raises(ApiError) as refused:
        client.rank(policy, [0.1, 0.3], candidates=THREE, id=one)
    assert refused.value.status == 409


def test_a_token_from_the_answer_is_enough_for_feedback(server, client, policy):
    told = client.rank(policy, [1.0, 0.0], candidates=THREE)
    with Client(server.url, retries=0) as browser:
        assert browser.feedback(Feedback(decision=told.id, kind="click", item="a", token=told.token)).status == 201
        with pytest.raises(ApiError) as refused:
            browser.policies()
    assert refused.value.status == 401


@pytest.mark.parametrize("user", ["u/1", "ü ?#&%", "..."])
def test_a_person_is_read_silenced_and_erased(client, policy, user):
    told = client.rank(policy, [1.0, 0.0], candidates=THREE, user=user)
    client.feedback(told.click("a"))
    record = client.user(user)
    assert (record.user, record.learn, record.decisions, record.outcomes, record.versions) == (user, True, 1, 1, ())
    assert client.user(user).learn is True
    erased = client.erase_user(user)
    assert (erased.decisions, erased.outcomes, erased.versions_tainted) == (1, 1, ())
    with pytest.raises(ApiError) as refused:
        client.feedback(told.click("b"))
    assert refused.value.status == 410


def test_a_wish_is_recorded(client):
    assert client.set_learning("someone", learn=False) is False
    assert client.user("someone").learn is False
    assert client.set_learning("someone", learn=True) is True


def test_what_the_server_refuses_is_said_in_its_words(client, policy):
    with pytest.raises(ApiError, match=r"context\.features") as refused:
        client.rank(policy, [1.0], candidates=THREE)
    assert (refused.value.status, refused.value.param) == (422, "context.features")
    with pytest.raises(ApiError) as conflict:
        client.put_policy(policy, RankerSpec(context_dim=3, candidate_dim=2))
    assert conflict.value.status == 409
    with pytest.raises(ApiError) as language:
        client.put_policy(policy, LanguageSpec(base="nobody/nothing"))
    assert language.value.status == 409
    with pytest.raises(ApiError) as missing:
        client.policy("none-such")
    assert missing.value.status == 404
    with pytest.raises(ApiError):
        list(client.export("none-such"))
    with pytest.raises(Invalid):
        client.rank(policy, [np.nan, 0.0])


def test_the_async_client_makes_many_calls_at_once(server, policy):
    async def play() -> list[int]:
        async with AsyncClient(server.url, "secret") as client:
            await client.wait_ready()
            told = await asyncio.gather(*(client.rank(policy, [1.0, 0.0], candidates=THREE) for _ in range(40)))
            receipts = await asyncio.gather(*(client.feedback(each.click("a")) for each in told))
            rows = [row async for row in client.export(policy)]
            assert {each.id for each in told} == {row["id"] for row in rows}
            return [each.status for each in receipts]

    assert asyncio.run(play()) == [201] * 40


def test_a_full_queue_is_waited_out(tmp_path):
    environ = {"DAYJOB_QUEUE_LIMIT": "1"}
    patient = Backoff(retries=40, first_s=0.02, longest_s=0.05)

    async def play(url: str) -> tuple[int, list[int]]:
        async with AsyncClient(url, retries=patient) as client, AsyncClient(url, retries=0) as hasty:
            await client.put_policy("p", SPEC)
            tries = await asyncio.gather(
                *(hasty.rank("p", [1.0, 0.0], candidates=THREE) for _ in range(30)), return_exceptions=True
            )
            refused = [one.status for one in tries if isinstance(one, ApiError)]
            await asyncio.gather(*(client.rank("p", [1.0, 0.0], candidates=THREE) for _ in range(8)))
            return (await client.policy("p")).counts.decisions, refused

    with running(tmp_path / "data", environ=environ) as server:
        decisions, refused = asyncio.run(play(server.url))
    assert refused
    assert set(refused) == {429}
    assert decisions == 30 - len(refused) + 8
