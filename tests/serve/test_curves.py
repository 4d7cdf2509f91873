"""What the dashboard draws: thinned, but true to every decision behind it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dayjob.serve import curves


def test_rewards_are_merged_by_their_counts():
    points = [
        {"seq": 1, "versions": {"a": {"n": 10, "reward": 0.2}}},
        {"seq": 5, "versions": {"a": {"n": 30, "reward": 0.6}}},
    ]
    assert curves.thin(points, name="versions") == [
        {"seq": 5, "versions": {"a": {"n": 40, "reward": pytest.approx(0.5)}}}
    ]


def test_an_error_is_kept_only_where_both_know_it():
    points = [
        {
            "seq": 1,
            "versions": {"a": {"n": 1, "reward": 0.0, "error": 100.0}, "b": {"n": 1, "reward": 0.0, "error": 5.0}},
        },
        {"seq": 2, "versions": {"a": {"n": 3, "reward": 0.0, "error": 200.0}, "b": {"n": 1, "reward": 0.0}}},
    ]
    [point] = curves.thin(points, name="versions")
    assert point["versions"]["a"]["error"] == 175.0
    assert "error" not in point["versions"]["b"]


counted = st.tuples(st.integers(1, 60), st.integers(0, 4))


@given(st.lists(st.dictionaries(st.sampled_from(["v0", "v1", "v2"]), counted, min_size=1), max_size=80))
def test_merging_loses_no_decision_and_no_reward(drawn):
    points = [
        {"seq": at, "versions": {name: {"n": n, "reward": r / 4} for name, (n, r) in one.items()}}
        for at, one in enumerate(drawn)
    ]
    merged = curves.thin(points, name="versions")
    for version in ("v0", "v1", "v2"):
        for weight in (lambda one: one["n"], lambda one: one["n"] * one["reward"]):
            before, after = (
                sum(weight(point["versions"][version]) for point in each if version in point["versions"])
                for each in (points, merged)
            )
            assert after == pytest.approx(before)
    assert [point["seq"] for point in merged] == sorted(point["seq"] for point in merged)
    for version in ("v0", "v1", "v2"):
        behind = [point["versions"][version]["n"] for point in merged if version in point["versions"]]
        assert len(behind) <= 1 or min(behind) >= curves.LEAST_DECISIONS


def test_a_long_trial_keeps_its_last_point_and_every_verdict():
    points = [{"seq": at, "challenger": "v1" if at < 700 else "v2"} for at in range(1, 1001)]
    thinned = curves.thin(points, name="trial")
    assert len(thinned) <= curves.POINTS + 2
    assert [one["seq"] for one in thinned if one["challenger"] == "v1"][-1] == 699
    assert thinned[-1] == points[-1]


def test_a_verdict_belongs_to_the_trial_that_it_ended():
    points = [
        {"seq": 1, "challenger": None, "champion": "v0"},
        {"seq": 2, "challenger": "v1", "champion": "v0"},
        {"seq": 3, "challenger": None, "champion": "v1", "verdict": "promote"},
    ]
    thinned = curves.thin(points, name="trial")
    assert [(one["seq"], one["challenger"], one["champion"]) for one in thinned][-1] == (3, "v1", "v0")
    assert all(one["challenger"] == "v1" for one in thinned)


def test_what_each_version_earned_lately():
    points = [{"seq": at, "versions": {"a": {"n": 100, "reward": 0.2 if at < 5 else 0.8}}} for at in range(10)]
    [one] = curves.earned(points)
    assert (one["version"], one["all"]["n"], one["lately"]["n"]) == ("a", 1000, 500)
    assert one["all"]["reward"] == pytest.approx(0.5)
    assert one["lately"]["reward"] == pytest.approx(0.8)


def test_positions_say_none_where_nothing_is_known():
    report = {"feedback": {"share_at": [0.7, 0.3]}, "bias": {"beta": [0.6]}}
    first, second = curves.positions(report)
    assert (first["share"], first["beta"], first["alpha"]) == (0.7, 0.6, None)
    assert (second["position"], second["share"], second["beta"]) == (2, 0.3, None)


def test_changes_of_state():
    points = [
        {"seq": n, "state": state} for n, state in enumerate(["too_few", "too_few", "informative", "informative"])
    ]
    assert [one["seq"] for one in curves.changes(points, name="state")] == [0, 2]
