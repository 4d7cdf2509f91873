"""The wire contract, held by a client written from the contract alone: learning, trials, promotion and rollback."""

import json
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx2
import numpy as np
import pytest

from dayjob.journal.control import Control
from dayjob.lab.server import Server, running

RANKER = {
    "kind": "ranker", "context_dim": 2, "candidate_dim": 2, "hidden": [8], "learn_every": 0,
    "explore": {"changed_first": 0.5},
}  # fmt: skip
SETTINGS = {
    "DAYJOB_HOLDBACK": "0.2",
    "DAYJOB_WATCH_SHARE": "0.2",
    "DAYJOB_WATCH_MOST_SHARE": "0.2",
    "DAYJOB_TRIAL_SHARE": "0.5",
}
ROUNDS = 400


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("versions")
    Control(root / "data").secret("sampling")  # with it and the ids, every part and every coin below is the same again
    with running(root / "data", arguments=(), environ=SETTINGS) as one:
        yield one


def rank(http: httpx2.Client, policy: str, rng: np.random.Generator, **body: Any) -> dict[str, Any]:
    """Five candidates whose caller's score is noise; the better one has a larger first feature."""
    body["id"] = str(uuid.UUID(bytes=rng.bytes(16), version=4))
    five = [{"id": f"c{n}", "features": rng.normal(size=2).tolist(), "score": rng.normal()} for n in range(5)]
    answer = http.post("/v1/rank", json={"policy": policy, "context": {"features": [1, 0]}, "candidates": five} | body)
    assert answer.status_code == 200, answer.text
    best = max(five, key=lambda each: each["features"][0])["id"]
    return answer.json() | {"best": best}


@pytest.fixture(scope="module")
def policy(http: httpx2.Client) -> str:
    """A policy that users have taught: they click the best candidate of each list."""
    name, rng = "taught", np.random.default_rng(0)
    assert http.put(f"/v1/policies/{name}", json=RANKER).status_code == 201
    told = [rank(http, name, rng, user=f"u{n % 20}") for n in range(ROUNDS)]
    items = [{"decision": each["id"], "kind": "click", "item": each["best"]} for each in told]
    answer = http.post("/v1/feedback", json={"items": items})
    assert {each["status"] for each in answer.json()["items"]} == {201}
    return name


@pytest.fixture(scope="module")
def learned(http: httpx2.Client, policy: str) -> str:
    """The challenger that a learning job left."""
    job = http.post(f"/v1/policies/{policy}/learn", json={}).json()["job"]
    ends = time.monotonic() + 60
    while (told := http.get(f"/v1/jobs/{job}").json())["state"] in ("queued", "running"):
        assert 0 <= told["progress"] <= 1
        assert time.monotonic() < ends, told
        time.sleep(0.1)
    assert (told["state"], told["progress"], told["error"]) == ("succeeded", 1.0, None), told
    name = told["result"]["challenger"]
    assert name, told
    return name


def versions(http: httpx2.Client, policy: str) -> dict[str, dict[str, Any]]:
    return {each["version"]: each for each in http.get(f"/v1/policies/{policy}/versions").json()["versions"]}


def exported(http: httpx2.Client, policy: str, ids: set[str]) -> list[dict[str, Any]]:
    lines = http.get("/v1/export", params={"policy": policy, "format": "decisions"}).text.splitlines()
    return [row for row in map(json.loads, lines) if row["id"] in ids]


def served(http: httpx2.Client, policy: str, *, seed: int, count: int = 150) -> list[dict[str, Any]]:
    """Fresh decisions as they were answered, each with its journaled row."""
    rng = np.random.default_rng(seed)
    told = {each["id"]: each for each in (rank(http, policy, rng) for _ in range(count))}
    rows = {row["id"]: row for row in exported(http, policy, set(told))}
    for one, row in rows.items():
        for name in ("version", "role", "role_propensity", "log_propensity"):
            assert told[one][name] == row[name]
    return [told[one] | {"row": rows[one]} for one in told]


def below_the_first_two(row: dict[str, Any]) -> list[float]:
    """Plackett-Luce from position 3 on, by the definition."""
    score_K = np.array(row["score"])
    slots = [row["candidates"].index(each["id"]) for each in row["ranking"]]
    weight = [
        np.exp((score_K[slots[n:]] - score_K[slots[n:]].max()) / row["temperature"]) for n in range(2, len(slots))
    ]
    return [float(each[0] / each.sum()) for each in weight]


def test_a_finished_job_leaves_a_challenger_that_goes_on_trial_and_never_serves_alone(http, policy, learned):
    told = http.get(f"/v1/policies/{policy}").json()
    assert (told["challenger"], told["champion"]) == (learned, told["baseline"])
    ends = time.monotonic() + 60
    while (version := versions(http, policy)[learned])["status"] != "trial":
        assert time.monotonic() < ends, version
        time.sleep(0.1)
    assert (version["recipe"], version["parent"], len(version["digest"])) == ("debiased", told["baseline"], 64)
    assert version["journal_range"][0] < version["journal_range"][1]


def test_a_trial_is_served_as_pairs_in_the_order_of_a_fair_coin(http, policy, learned):
    champion = http.get(f"/v1/policies/{policy}").json()["champion"]
    seen = served(http, policy, seed=1)
    assert {each["role"] for each in seen} == {"champion", "trial"}
    pairs = [each for each in seen if each["role"] == "trial"]
    for each in pairs:
        propensity = [one["propensity"] for one in each["ranking"]]
        assert (each["version"], each["row"]["challenger"], each["role_propensity"]) == (champion, learned, 0.5)
        assert propensity[:2] == [0.5, 1.0]
        np.testing.assert_allclose(propensity[2:], below_the_first_two(each["row"]), rtol=1e-9)
        best = each["row"]["candidates"][int(np.argmax(each["row"]["score"]))]
        assert best in [one["id"] for one in each["ranking"][:2]]
    assert {each["role_propensity"] for each in seen if each["role"] == "champion"} <= {0.5, 1.0}
    coins = Counter(each["row"]["coin"] for each in pairs)
    assert len(pairs) > 30
    assert min(coins[1], coins[-1]) > 0.25 * len(pairs)


@pytest.mark.usefixtures("learned")
def test_without_exploring_only_the_champion_answers(http, policy):
    rng = np.random.default_rng(2)
    told = [rank(http, policy, rng, explore=False) for _ in range(20)]
    assert {(each["role"], each["role_propensity"], each["log_propensity"]) for each in told} == {
        ("champion", 1.0, 0.0)
    }


def test_promoting_by_hand_is_recorded_and_leaves_a_holdback(http, policy, learned):
    baseline = http.get(f"/v1/policies/{policy}").json()["baseline"]
    answer = http.post(f"/v1/policies/{policy}/promote", json={"version": learned, "reason": "we looked at it"})
    assert (answer.status_code, answer.json()["champion"]) == (200, learned)
    assert answer.json()["challenger"] is None
    verdict = answer.json()["last_verdict"]
    assert (verdict["kind"], verdict["by"], verdict["reason"]) == ("promote", "hand", "we looked at it")
    assert versions(http, policy)[learned]["status"] == "champion"
    seen = served(http, policy, seed=3)
    roles = Counter(each["role"] for each in seen)
    assert set(roles) == {"champion", "trial", "baseline"}
    chances = {"baseline": {0.2}, "trial": {0.2}, "champion": {0.6, 0.8}}
    for each in seen:
        assert each["version"] == (baseline if each["role"] == "baseline" else learned)
        assert round(each["role_propensity"], 9) in chances[each["role"]]
    better = [each["ranking"][0]["id"] == each["best"] for each in seen if each["role"] == "champion"]
    chance = [each["ranking"][0]["id"] == each["best"] for each in seen if each["role"] == "baseline"]
    assert np.mean(better) > np.mean(chance), "what was learned from honest clicks orders better than noise"


def test_frozen_on_the_baseline_only_the_baseline_answers(http, policy, learned):
    told = http.post(f"/v1/policies/{policy}/freeze", json={"serve": "baseline"}).json()
    assert (told["champion"], told["serves"]) == (learned, "baseline")
    assert {each["version"] for each in served(http, policy, seed=4, count=20)} == {told["baseline"]}
    assert http.post(f"/v1/policies/{policy}/unfreeze", json={}).json()["serves"] == "champion"


def test_rolling_back_returns_the_previous_champion_at_once(http, policy, learned):
    told = http.post(f"/v1/policies/{policy}/rollback", json={}).json()
    assert told["champion"] == told["baseline"]
    assert (told["last_verdict"]["kind"], told["last_verdict"]["by"]) == ("rollback", "hand")
    assert versions(http, policy)[learned]["status"] == "rolled_back"
    assert {each["version"] for each in served(http, policy, seed=5, count=20)} == {told["baseline"]}
    assert http.post(f"/v1/policies/{policy}/rollback", json={"to": learned}).json()["champion"] == learned
    assert http.post(f"/v1/policies/{policy}/rollback", json={}).json()["champion"] == told["baseline"]


def test_who_taught_a_version_is_known_and_erasing_them_ends_it(server, http, policy, learned):
    assert http.get("/v1/users/u3").json()["versions"] == [f"{policy}/{learned}"]
    pointers = Control(server.data).move("default", policy, change={"challenger": learned})
    told = http.delete("/v1/users/u3").json()
    assert pointers.challenger == learned
    assert (told["trials_ended"], told["rebuilding"]) == ([f"{policy}/{learned}"], [])
    assert http.get(f"/v1/policies/{policy}").json()["challenger"] is None
    assert (told["versions_tainted"], told["decisions"], told["outcomes"]) == (
        [f"{policy}/{learned}"],
        ROUNDS // 20,
        ROUNDS // 20,
    )
    assert versions(http, policy)[learned]["status"] == "tainted"
    for verb, body in (("promote", {"version": learned, "reason": "again"}), ("rollback", {"to": learned})):
        assert http.post(f"/v1/policies/{policy}/{verb}", json=body).status_code == 409
