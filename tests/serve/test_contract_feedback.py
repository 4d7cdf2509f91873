"""The wire contract, held by a client written from the contract alone: feedback, people and data."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from dayjob.lab.server import Server, running
from tests.serve.asking import exported

RANKER = {"kind": "ranker", "context_dim": 2, "candidate_dim": 2, "explore": {"changed_first": 0.0}}
THREE = [{"id": one, "features": [1, 0], "score": -n} for n, one in enumerate("abc")]
Feedback = Callable[..., httpx2.Response]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("feedback") / "data", environ={"DAYJOB_HELD_PER_KEY": "20"}) as one:
        yield one


@pytest.fixture
def policy(http: httpx2.Client) -> str:
    return declare(http)


def declare(http: httpx2.Client, **changes: Any) -> str:
    name = f"p{uuid.uuid4().hex[:12]}"
    assert http.put(f"/v1/policies/{name}", json=RANKER | changes).status_code == 201
    return name


def rank(http: httpx2.Client, policy: str, **body: Any) -> str:
    """A served decision's id; a, b and c stand at positions 1, 2 and 3."""
    asked = {"policy": policy, "context": {"features": [1, 0]}, "candidates": THREE} | body
    answer = http.post("/v1/rank", json=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


def tell(http: httpx2.Client, status: int, **outcome: Any) -> dict[str, Any]:
    """Sends one outcome, expects this status."""
    answer = http.post("/v1/feedback", json=outcome)
    assert answer.status_code == status, answer.text
    told = answer.json()
    if status >= 400:
        assert set(told) == {"error"}
        assert set(told["error"]) == {"message", "type", "param", "code"}
    return told


def counts(http: httpx2.Client, policy: str) -> dict[str, int]:
    return http.get(f"/v1/policies/{policy}").json()["counts"]["outcomes"]


# ---- feedback ----------------------------------------------------------------------------------------------------


def test_the_contracts_own_example(http, policy):
    decision, one = rank(http, policy), str(uuid.uuid4())
    sent = {
        "id": one, "decision": decision, "kind": "click", "item": "a", "position": 1, "value": None, "text": None,
        "at": "2026-11-20T09:00:00Z", "source": "human",
    }  # fmt: skip
    told = tell(http, 201, **sent)
    assert (told["id"], told["receipt"], told["status"], told["error"]) == (one, "recorded", 201, None)
    assert tell(http, 200, **sent)["receipt"] == "repeated"
    assert counts(http, policy) == {"click": 1}
    [outcome] = exported(http, policy)[decision]["outcomes"]
    for name in ("id", "decision", "kind", "item", "position", "value", "text", "at", "source"):
        assert outcome[name] == sent[name]


@pytest.mark.parametrize(
    "outcome",
    [
        {"kind": "click", "item": "b"}, {"kind": "click", "position": 3}, {"kind": "click", "item": "c", "position": 3},
        {"kind": "none"}, {"kind": "accept"}, {"kind": "accept", "item": "a"}, {"kind": "reject"},
        {"kind": "thumb", "value": 1}, {"kind": "thumb", "value": -1}, {"kind": "reward", "value": 0.25},
        {"kind": "truth", "item": "c"}, {"kind": "truth", "value": {"relevance": {"a": -3.5, "b": 2}}},
        {"kind": "demonstration", "item": "b"},
    ],
)  # fmt: skip
def test_every_kind_that_fits_a_ranker_is_recorded(http, policy, outcome):
    told = tell(http, 201, decision=rank(http, policy), **outcome)
    assert uuid.UUID(told["id"]).version == 7
    assert counts(http, policy) == {outcome["kind"]: 1}


@pytest.mark.parametrize(
    "outcome",
    [
        {"kind": "click", "item": "d"}, {"kind": "click", "position": 4}, {"kind": "click", "item": "a", "position": 2},
        {"kind": "click"}, {"kind": "click", "item": "a", "value": 1}, {"kind": "none", "item": "a"},
        {"kind": "click", "position": 0}, {"kind": "thumb"}, {"kind": "thumb", "value": 0.5}, {"kind": "reward"},
        {"kind": "reward", "value": 1.5}, {"kind": "reward", "value": "1"}, {"kind": "reward", "value": True},
        {"kind": "truth"}, {"kind": "truth", "item": "d"}, {"kind": "truth", "value": {"relevance": {"d": 1}}},
        {"kind": "truth", "value": {"relevance": {}}}, {"kind": "correction", "text": "no"}, {"kind": "correction"},
        {"kind": "demonstration"}, {"kind": "applause"}, {}, {"kind": "click", "item": "a", "at": "yesterday"},
        {"kind": "click", "item": "a", "at": "2026-11-20T09:00:00"}, {"kind": "click", "item": "a", "colour": 1},
        {"kind": "click", "item": "a", "id": "7"}, {"kind": "click", "item": "a", "session": "s"},
        {"kind": "retract"}, {"kind": "retract", "value": "7"},
    ],
)  # fmt: skip
def test_what_does_not_fit_its_decision_is_422(http, policy, outcome):
    tell(http, 422, decision=rank(http, policy), **outcome)
    assert counts(http, policy) == {}


def test_a_text_is_refused_by_a_ranker_with_the_remedy(http, policy):
    for outcome in ({"kind": "correction", "text": "no"}, {"kind": "demonstration", "text": "so"}):
        error = tell(http, 422, decision=rank(http, policy), **outcome)["error"]
        assert "item" in error["message"]
        assert "text" in error["message"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_are_finite(http, policy, number):
    body = f'{{"decision": "{rank(http, policy)}", "kind": "reward", "value": {number}}}'
    answer = http.post("/v1/feedback", content=body.encode(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 422


def test_rewards_lie_in_the_declared_range(http):
    policy = declare(http, reward_range=[-5, 5])
    tell(http, 201, decision=rank(http, policy), kind="reward", value=-5)
    assert "-5" in tell(http, 422, decision=rank(http, policy), kind="reward", value=-5.1)["error"]["message"]


def test_the_same_id_with_another_body_is_409_and_an_equal_instant_is_equal(http, policy):
    decision, one = rank(http, policy), str(uuid.uuid4())
    sent = {"id": one, "decision": decision, "kind": "reward", "value": 1, "at": "2026-11-20T09:00:00Z"}
    tell(http, 201, **sent)
    tell(http, 200, **sent | {"at": "2026-11-20T10:00:00+01:00", "value": 1.0, "token": None, "item": None})
    for change in ({"value": 0}, {"item": "a"}, {"kind": "thumb"}, {"source": "robot"}, {"text": "x"}, {"at": None}):
        tell(http, 409, **sent | change)
    tell(http, 409, **sent | {"decision": rank(http, policy)})
    assert counts(http, policy) == {"reward": 1}


def test_many_outcomes_are_judged_each_alone_and_answered_in_order(http, policy):
    other = str(uuid.uuid4())
    decision, one = rank(http, policy), str(uuid.uuid4())
    items = [
        {"id": one, "decision": decision, "kind": "click", "item": "a"},
        {"decision": decision, "kind": "click", "item": "nobody"},
        {"kind": "thumb"},
        {"id": one, "decision": decision, "kind": "click", "item": "a"},
        {"id": one, "decision": decision, "kind": "click", "item": "b"},
        {"decision": str(uuid.uuid4()), "kind": "none"},
        7,
        {"decision": decision, "kind": "thumb", "value": 1},
        {"id": other.upper(), "decision": decision, "kind": "clik"},
        {"id": other, "decision": decision, "kind": "none", "token": "forged"},
        {"id": "7", "decision": decision, "kind": "none"},
    ]
    answer = http.post("/v1/feedback", json={"items": items})
    assert answer.status_code == 200
    told = answer.json()["items"]
    assert [each["status"] for each in told] == [201, 422, 422, 200, 409, 202, 422, 201, 422, 403, 422]
    assert [each["error"] is None for each in told] == [each["status"] < 400 for each in told]
    assert told[0]["id"] == one
    assert [each["id"] for each in told[-3:]] == [other, other, None], "refused before anything was recorded"
    assert told[6]["id"] is None
    assert counts(http, policy) == {"click": 1, "thumb": 1}
    for body in ({"items": []}, {"items": {}}, {"items": [{}] * 1001}, {"items": [{}], "kind": "click"}):
        assert http.post("/v1/feedback", json=body).status_code == 422


def test_early_feedback_is_held_and_counts_once_its_decision_comes(http, policy):
    decision, one = str(uuid.uuid4()), str(uuid.uuid4())
    sent = {"id": one, "decision": decision, "kind": "click", "item": "b", "position": 2}
    assert tell(http, 202, **sent)["receipt"] == "held"
    assert tell(http, 202, **sent)["receipt"] == "held"
    tell(http, 409, **sent | {"position": 1})
    tell(http, 202, decision=decision, kind="click", item="nobody")
    assert counts(http, policy) == {}
    rank(http, policy, id=decision)
    assert counts(http, policy) == {"click": 1}
    tell(http, 200, **sent)
    [outcome] = exported(http, policy)[decision]["outcomes"]
    assert outcome["id"] == one


def test_held_feedback_is_capped_per_key(http):
    sent = [http.post("/v1/feedback", json={"decision": str(uuid.uuid4()), "kind": "none"}) for _ in range(21)]
    assert sent[0].status_code in (202, 429)
    assert sent[-1].status_code == 429
    assert int(sent[-1].headers["retry-after"]) > 0
    error = sent[-1].json()["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "crowded")
    answer = http.post("/v1/feedback", json={"items": [{"decision": str(uuid.uuid4()), "kind": "none"}]})
    assert [each["status"] for each in answer.json()["items"]] == [429]
    assert int(answer.headers["retry-after"]) > 0


def test_a_session_is_spoken_of_as_a_whole(http, policy):
    session = str(uuid.uuid4())
    first, second = rank(http, policy, session=session), rank(http, policy, session=session)
    tell(http, 201, session=session, kind="thumb", value=1)
    tell(http, 201, session=session, kind="reward", value=0.5)
    tell(http, 422, session=session, kind="click", item="a")
    tell(http, 422, session=session, kind="reward", value=7)
    rows = exported(http, policy)
    assert [each["kind"] for each in rows[first]["outcomes"]] == ["thumb", "reward"]
    assert [each["session"] for each in rows[second]["outcomes"]] == [session, session]
    assert counts(http, policy) == {"thumb": 1, "reward": 1}


def test_an_outcome_is_retracted_by_its_id(http, policy):
    decision = rank(http, policy)
    one = tell(http, 201, decision=decision, kind="click", item="a")["id"]
    tell(http, 201, kind="retract", value=one)
    tell(http, 201, decision=decision, kind="retract", value=one)
    tell(http, 422, kind="retract", value=str(uuid.uuid4()))
    assert counts(http, policy) == {"click": 1, "retract": 2}
    assert [each["kind"] for each in exported(http, policy)[decision]["outcomes"]] == ["click", "retract", "retract"]


def test_late_feedback_is_recorded_too(http):
    policy = declare(http, outcome_window_s=0.05)
    decision = rank(http, policy)
    time.sleep(0.2)
    tell(http, 201, decision=decision, kind="click", item="c")


# ---- people and data ---------------------------------------------------------------------------------------------


def test_what_is_held_about_a_person_can_be_read_silenced_and_erased(http, policy):
    user = f"ü/{uuid.uuid4()} ?#"
    path = "/v1/users/" + "".join(f"%{byte:02X}" for byte in user.encode())
    mine, others = rank(http, policy, user=user), rank(http, policy, user="somebody else")
    outcome = tell(http, 201, decision=mine, kind="click", item="a")["id"]
    told = http.get(path).json()
    assert (told["user"], told["learn"], told["decisions"], told["outcomes"]) == (user, True, 1, 1)
    assert told["versions"] == []
    assert [each["id"] for each in told["held"]["decisions"]] == [mine]
    assert [each["id"] for each in told["held"]["outcomes"]] == [outcome]
    (held,) = told["held"]["decisions"]
    assert "outcomes" not in held, "they stand beside, not empty in each decision"
    assert (len(held["context"]), len(held["pair"]), len(held["vectors"])) == (2, *[len(held["candidates"])] * 2)
    assert set(held) >= {"extra", "rival_score"}, "what was decided on, too"

    assert http.patch(path, json={"learn": False}).json() == {"user": user, "learn": False}
    assert http.get(path).json()["learn"] is False
    assert http.patch(path, json={}).status_code == 422
    silent = http.post(
        "/v1/rank",
        json={"policy": policy, "user": user, "context": {"features": [1, 0]}, "candidates": THREE},
    ).json()
    assert [each["propensity"] for each in silent["ranking"]] == [1.0, 1.0, 1.0]
    assert (silent["role"], silent["role_propensity"]) == ("champion", 1.0)

    answer = http.delete(path)
    assert (answer.status_code, answer.json()["decisions"], answer.json()["outcomes"]) == (200, 2, 1)
    assert http.get(path).json()["decisions"] == 0
    assert set(exported(http, policy)) == {others}
    asked = {"policy": policy, "context": {"features": [1, 0]}, "candidates": THREE}
    assert http.post("/v1/rank", json=asked | {"id": mine, "user": user}).status_code == 410
    tell(http, 410, decision=mine, kind="none")
    tell(http, 410, id=outcome, decision=others, kind="none")
    assert http.get(f"/v1/policies/{policy}").json()["counts"]["decisions"] == 1

    assert answer.json()["learn"] is False, "the wish outlives the erasure"
    assert http.get(path).json()["learn"] is False
    again = http.post("/v1/rank", json=asked | {"user": user}).json()
    assert [each["propensity"] for each in again["ranking"]] == [1.0, 1.0, 1.0], "served, and never learned from"
    assert http.patch(path, json={"learn": True}).json()["learn"] is True
    assert http.delete(path).json()["learn"] is True


@pytest.mark.parametrize("user", ["%00", "a%0Ab", "x" * 257, "%7F"])
@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_a_name_that_nobody_can_have_is_422(http, method, user):
    answer = http.request(method, f"/v1/users/{user}", json={"learn": True} if method == "PATCH" else None)
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == "user"


def test_an_export_streams_every_decision_as_a_line(http, policy):
    ids = [rank(http, policy) for _ in range(12)]
    answer = http.get("/v1/export", params={"policy": policy, "format": "decisions"})
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    rows = [json.loads(line) for line in answer.text.splitlines()]
    assert [row["id"] for row in rows] == ids
    assert http.get("/v1/export", params={"policy": policy}).text == answer.text
    for wanted in ("chat", "preference", "openai-dpo", "xml"):
        assert http.get("/v1/export", params={"policy": policy, "format": wanted}).status_code == 422
    assert http.get("/v1/export").status_code == 422
