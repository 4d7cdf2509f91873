"""The wire contract, held by a client written from the contract alone: ranking and its probabilities."""

import math
import uuid
from typing import Any

import numpy as np
import pytest

from tests.serve.asking import THREE, A, B, C, catalog, declare, error_of, exported, order, packed, rank

# ---- what comes back ---------------------------------------------------------------------------------------------


def test_the_contracts_own_example(http):
    policy = declare(http, pair_dim=2)
    ask = {
        "policy": policy, "id": str(uuid.uuid4()), "user": "u1", "session": "s1", "k": 10, "explore": True,
        "context": {"features": A},
        "candidates": [{"id": "a", "features": A, "pair": [0.31, 0.12], "score": -2.1}],
    }  # fmt: skip
    answer = http.post("/v1/rank", json=ask)
    assert answer.status_code == 200
    told = answer.json()
    assert set(told) == {
        "id", "policy", "version", "role", "role_propensity", "log_propensity", "token", "ranking",
    }  # fmt: skip
    assert (told["id"], told["policy"], told["role"]) == (ask["id"], policy, "champion")
    assert told["ranking"] == [{"id": "a", "position": 1, "score": -2.1, "propensity": 1.0}]
    assert (told["role_propensity"], told["log_propensity"]) == (1.0, 0.0)


def test_an_id_left_out_is_made_as_a_uuid_of_version_7(http):
    told = [rank(http, declare(http), candidates=THREE)["id"] for _ in range(2)]
    assert [uuid.UUID(one).version for one in told] == [7, 7]
    assert told[0] < told[1]


def test_version_zero_orders_by_the_callers_score_whatever_its_scale(http):
    policy = declare(http, explore={"changed_first": 0.0})
    for scale in (1e-9, 1.0, 1e12):
        scored = [each | {"score": scale * score} for each, score in zip(THREE, (-1.0, 3.0, 2.0), strict=True)]
        told = rank(http, policy, candidates=scored)
        assert order(told) == ["b", "c", "a"]
        assert [each["position"] for each in told["ranking"]] == [1, 2, 3]
        assert [each["score"] for each in told["ranking"]] == [3.0 * scale, 2.0 * scale, -1.0 * scale]
        assert [each["propensity"] for each in told["ranking"]] == [1.0, 1.0, 1.0]


def test_k_shows_the_first_places_only_and_defaults_to_all(http):
    policy = declare(http)
    assert len(rank(http, policy, candidates=THREE)["ranking"]) == 3
    assert len(rank(http, policy, candidates=THREE, k=2)["ranking"]) == 2
    assert len(rank(http, policy, candidates=THREE, k=99)["ranking"]) == 3
    for k in (0, -1, 1.5, "2", True):
        error_of(http.post("/v1/rank", json={"policy": policy, "context": {"features": A}, "k": k}), 422)


@pytest.mark.parametrize(
    "change",
    [
        {"policy": None}, {"context": None}, {"context": {}}, {"context": {"features": A[:2]}},
        {"context": {"features": [*A, 1.0]}}, {"context": {"features": [1, 2, "3"]}},
        {"context": {"features": A, "features_b64": packed(*A)}}, {"context": {"features_b64": "####"}},
        {"context": {"features_b64": packed(1, 2)}}, {"context": {"features_b64": packed(1, 2, math.nan)}},
        {"context": {"features_b64": packed(1, 2, math.inf)}}, {"context": {"features": [1, 2, 1e300]}},
        {"candidates": []}, {"candidates": [{"id": "a"}]}, {"candidates": [{"features": A}]},
        {"candidates": [{"id": "a", "features": A}] * 2}, {"candidates": [{"id": "", "features": A}]},
        {"candidates": [{"id": "a", "features": [1.0]}]}, {"candidates": [{"id": "a", "features": A, "pair": [1]}]},
        {"candidates": [{"id": "a", "features": A, "score": "high"}]}, {"candidates": [{"id": 7, "features": A}]},
        {"id": "no-uuid"}, {"user": ""}, {"session": 5}, {"explore": "yes"}, {"surprise": 1},
        {"candidates": [{"id": str(n), "features": A} for n in range(1001)]},
    ],
)  # fmt: skip
def test_a_question_that_does_not_fit_is_422(http, change):
    policy = declare(http)
    ask = {"policy": policy, "context": {"features": A}, "candidates": THREE} | change
    ask = {name: value for name, value in ask.items() if value is not None}
    error_of(http.post("/v1/rank", json=ask), 422)
    assert http.get(f"/v1/policies/{policy}").json()["counts"]["decisions"] == 0


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize(
    "place",
    [
        '"context": {"features": [1, 2, %s]}, "candidates": [{"id": "a", "features": [1, 2, 3]}]',
        '"context": {"features": [1, 2, 3]}, "candidates": [{"id": "a", "features": [1, 2, 3], "score": %s}]',
        '"context": {"features": [1, 2, 3]}, "candidates": [{"id": "a", "features": [1, %s, 3]}]',
    ],
)
def test_numbers_are_finite(http, place, number):
    body = f'{{"policy": "{declare(http)}", {place % number}}}'
    error_of(http.post("/v1/rank", content=body.encode(), headers={"Content-Type": "application/json"}), 422)


def test_an_unknown_policy_is_404(http):
    error_of(http.post("/v1/rank", json={"policy": "none-such", "context": {"features": A}}), 404)


# ---- one id, one effect ------------------------------------------------------------------------------------------


def test_the_same_id_and_body_get_the_first_answer_again_however_they_were_written(http):
    policy, one = declare(http), str(uuid.uuid4())
    ask = {
        "policy": policy, "id": one, "context": {"features": [0.1, 0.2, 0.3]}, "user": "u",
        "candidates": [{"id": "a", "features": [1, 0, 0.7]}, {"id": "b", "features": B, "score": 1}],
    }  # fmt: skip
    first = http.post("/v1/rank", json=ask).json()
    other = {
        "user": "u", "explore": True, "context": {"features_b64": packed(0.1, 0.2, 0.3)}, "id": one.upper(),
        "candidates": [
            {"score": 0.0, "features_b64": packed(1, 0, 0.7), "id": "a"},
            {"id": "b", "features": B, "score": 1.0},
        ], "policy": policy, "k": None,
    }  # fmt: skip
    for body in (ask, other, ask):
        again = http.post("/v1/rank", json=body)
        assert (again.status_code, again.json()) == (200, first)
    assert http.get(f"/v1/policies/{policy}").json()["counts"]["decisions"] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"user": "v"}, {"session": "s"}, {"k": 1}, {"explore": False}, {"context": {"features": B}},
        {"candidates": THREE[:2]}, {"candidates": THREE[::-1]}, {"candidates": [THREE[0] | {"score": 1}, *THREE[1:]]},
        {"candidates": [THREE[0] | {"meta": {"x": 1}}, *THREE[1:]]},
    ],
)  # fmt: skip
def test_the_same_id_with_another_body_is_409(http, change):
    policy, one = declare(http), str(uuid.uuid4())
    first = rank(http, policy, id=one, candidates=THREE, user="u")
    ask = {"policy": policy, "id": one, "context": {"features": A}, "candidates": THREE, "user": "u"}
    error_of(http.post("/v1/rank", json=ask | change), 409)
    assert http.post("/v1/rank", json=ask).json() == first


def test_a_retry_gets_the_first_answer_although_the_world_has_moved_on(http):
    policy, one = declare(http), str(uuid.uuid4())
    catalog(http, policy, *THREE)
    ask = {"id": one, "candidates": [{"id": "a"}, {"id": "b"}]}
    first = rank(http, policy, **ask)
    absent = rank(http, policy, id=(two := str(uuid.uuid4())), k=2)
    catalog(http, policy, {"id": "z", "features": C})
    assert rank(http, policy, **ask) == first
    assert rank(http, policy, id=two, k=2) == absent
    error_of(http.post("/v1/rank", json={"policy": policy, "context": {"features": B}} | ask), 409)
    error_of(
        http.post("/v1/rank", json={"policy": policy, "context": {"features": A}} | ask | {"id": str(uuid.uuid4())}),
        422,
    )


# ---- candidates --------------------------------------------------------------------------------------------------


def test_candidates_are_inline_from_the_catalog_mixed_or_absent(http):
    policy = declare(http, explore={"changed_first": 0.0})
    assert catalog(http, policy, *THREE).json() == {"items": 3}
    assert sorted(order(rank(http, policy, candidates=[{"id": "a"}, {"id": "c"}]))) == ["a", "c"]
    mixed = [{"id": "c", "score": 2}, {"id": "new", "features": B, "score": 3}]
    assert order(rank(http, policy, candidates=mixed)) == ["new", "c"]
    assert order(rank(http, policy)) == ["a", "b", "c"]
    assert order(rank(http, policy, context={"features": C}, k=1)) == ["c"]
    unknown = {"policy": policy, "context": {"features": A}, "candidates": [{"id": "nobody"}]}
    assert "nobody" in error_of(http.post("/v1/rank", json=unknown), 422)["message"]


def test_the_catalog_is_searched_by_cosine_and_says_its_share(http):
    scale = 7.0
    policy = declare(http, similarity_scale=scale, pair_dim=2, explore={"changed_first": 0.0})
    rng = np.random.default_rng(3)
    item_NE = rng.normal(size=(40, 3)).astype(np.float16).astype(np.float64) * rng.uniform(0.1, 9, size=(40, 1))
    item_NE = item_NE.astype(np.float16).astype(np.float64)
    catalog(http, policy, *({"id": f"i{n}", "features": row.tolist()} for n, row in enumerate(item_NE)))
    similarity_N = item_NE[:, 0] / np.linalg.norm(item_NE, axis=1)
    nearest = np.argsort(-similarity_N)
    told = rank(http, policy, context={"features": [2.0, 0.0, 0.0]}, k=5)
    assert order(told) == [f"i{n}" for n in nearest[:5]]
    share_5 = np.exp(scale * similarity_N[nearest[:5]])
    share_5 /= share_5.sum()
    np.testing.assert_allclose([each["score"] for each in told["ranking"]], np.log(share_5), rtol=1e-5)
    assert len(rank(http, policy)["ranking"]) == 40
    error_of(http.post("/v1/rank", json={"policy": policy, "context": {"features": A}, "k": 1001}), 422)


def test_without_a_catalog_candidates_are_needed(http):
    error_of(http.post("/v1/rank", json={"policy": declare(http), "context": {"features": A}}), 422)


# ---- probabilities -----------------------------------------------------------------------------------------------


def published_propensity(row: dict[str, Any]) -> list[float]:
    """By the definition: position 1 uniform with probability e, else by the policy; then Plackett-Luce."""
    score_K, temperature, epsilon = np.array(row["score"]), row["temperature"], row["epsilon"]
    left = list(range(len(score_K)))
    slot_of = {item: slot for slot, item in enumerate(row["candidates"])}
    out = []
    for place, item in enumerate(each["id"] for each in row["ranking"]):
        slot = slot_of[item]
        if temperature > 0:
            weight = np.exp((score_K[left] - score_K[left].max()) / temperature)
            chance = float(weight[left.index(slot)] / weight.sum())
        else:
            chance = float(slot == max(left, key=lambda one: (score_K[one], -one)))
        out.append(epsilon / len(score_K) + (1 - epsilon) * chance if place == 0 else chance)
        left.remove(slot)
    return out


def test_propensities_are_those_of_the_published_definition(http):
    policy = declare(http, explore={"changed_first": 0.5})
    rng = np.random.default_rng(7)
    for n in range(120):
        score_5 = rng.normal(size=5)
        scored = [{"id": f"c{slot}", "features": A, "score": float(s)} for slot, s in enumerate(score_5)]
        rank(http, policy, candidates=scored, k=5 if n % 2 else 3)
    rows = list(exported(http, policy).values())
    warm = [row for row in rows if row["temperature"] > 0]
    assert len(rows) == 120
    assert len(warm) > 60
    for row in rows:
        assert (row["role"], row["role_propensity"]) == ("champion", 1.0)
        expected = published_propensity(row)
        np.testing.assert_allclose([each["propensity"] for each in row["ranking"]], expected, rtol=1e-9)
        assert math.isclose(row["log_propensity"], math.log(math.prod(expected)), rel_tol=1e-9)
    best_first = [row["ranking"][0]["id"] == row["candidates"][int(np.argmax(row["score"]))] for row in warm]
    assert 0.25 < 1 - np.mean(best_first) < 0.75, "half of the first places were to change"


def test_what_was_journaled_is_what_was_answered(http):
    policy = declare(http)
    told = rank(http, policy, candidates=THREE, user="u", session="s")
    row = exported(http, policy)[told["id"]]
    for name in ("id", "policy", "version", "role", "role_propensity", "log_propensity"):
        assert row[name] == told[name]
    assert (row["user"], row["session"], row["explore"]) == ("u", "s", True)
    assert [each["propensity"] for each in row["ranking"]] == [each["propensity"] for each in told["ranking"]]


def test_explore_false_gives_the_best_order_with_certainty(http):
    policy = declare(http, explore={"changed_first": 1.0})
    scored = [each | {"score": score} for each, score in zip(THREE, (1.0, 3.0, 2.0), strict=True)]
    for _ in range(25):
        rank(http, policy, candidates=scored)
    for _ in range(10):
        told = rank(http, policy, candidates=scored, explore=False)
        assert order(told) == ["b", "c", "a"]
        assert [each["propensity"] for each in told["ranking"]] == [1.0, 1.0, 1.0]
        assert (told["role"], told["role_propensity"], told["log_propensity"]) == ("champion", 1.0, 0.0)
        assert exported(http, policy)[told["id"]]["explore"] is False
