"""Advantages by hand and by their laws."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dayjob.learn.credit import accept_reject, batch_normalised, dr_grpo, grpo, maxrl, rae, rloo

# Two groups of rows that interleave: rewards 1, 0, 0, 1 of prompt 5, and .5, .5 of prompt 2; prompt 9 has one.
REWARD, GROUP = np.array([1, 0.5, 0, 0, 0.5, 1, 7.0]), np.array([5, 2, 5, 5, 2, 5, 9])


def test_by_hand():
    deviation = math.sqrt(4 * 0.25 / 3)
    assert dr_grpo(REWARD, GROUP).advantage_B.tolist() == [0.5, 0, -0.5, -0.5, 0, 0.5, 0]
    assert grpo(REWARD, GROUP, eps=0.0).advantage_B[[0, 2]] == pytest.approx([0.5 / deviation, -0.5 / deviation])
    assert grpo(REWARD, GROUP).advantage_B[0] == pytest.approx(0.5 / (deviation + 1e-4))
    assert rloo(REWARD, GROUP).advantage_B[[0, 2]] == pytest.approx([1 - 1 / 3, 0 - 2 / 3])
    assert maxrl(REWARD, GROUP).advantage_B[[0, 2]] == pytest.approx([1.0, -1.0])


@pytest.mark.parametrize("method", [grpo, dr_grpo, rloo, maxrl])
def test_groups_that_teach_nothing_are_counted_and_dropped_or_kept(method):
    credit = method(REWARD, GROUP)
    assert credit.keep_B.tolist() == [True, False, True, True, False, True, False]
    assert credit.stats == {
        "rows": 7, "dropped": 3, "groups": 3, "groups_of_one": 1, "groups_without_variance": 1,
    }  # fmt: skip
    kept = method(REWARD, GROUP, zero_variance="keep")
    assert kept.keep_B.all()
    assert kept.stats["dropped"] == 0
    assert kept.advantage_B.tolist() == credit.advantage_B.tolist()
    assert kept.advantage_B[6] == 0  # a group of one


def test_equal_rewards_have_no_variance_though_their_mean_rounds():
    credit = grpo(np.full(3, 0.1), np.zeros(3, int), eps=0.0)
    assert credit.advantage_B.tolist() == [0, 0, 0]
    assert credit.stats["groups_without_variance"] == 1


def test_nothing_at_all():
    credit = dr_grpo(np.zeros(0), np.zeros(0, int))
    assert credit.advantage_B.shape == (0,)
    assert credit.stats["groups"] == 0


groups = st.lists(st.tuples(st.integers(0, 3), st.floats(0, 10).map(lambda x: round(x, 3))), min_size=1, max_size=14)


@given(groups, st.floats(-5, 5), st.randoms())
def test_laws(drawn, shift, random):
    group, reward = (np.array(column) for column in zip(*drawn, strict=True))
    for method in (grpo, dr_grpo, rloo):
        credit = method(reward, group)
        # A constant added to every reward of a prompt changes nothing; advantages of a prompt sum to 0.
        moved = method(reward + shift * (group == group[0]), group)
        assume((moved.keep_B == credit.keep_B).all())  # else the shift has rounded a difference away
        assert moved.advantage_B == pytest.approx(credit.advantage_B, abs=1e-6)
        for one in set(group.tolist()):
            assert credit.advantage_B[group == one].sum() == pytest.approx(0, abs=1e-9)
        # Rows may come in any order, groups under any name.
        order = np.array(random.sample(range(len(group)), len(group)))
        assert method(reward[order], 7 - group[order]).advantage_B == pytest.approx(credit.advantage_B[order])
    assert grpo(reward * 3, group, eps=0.0).advantage_B == pytest.approx(grpo(reward, group, eps=0.0).advantage_B)
    assert maxrl(reward * 3, group).advantage_B == pytest.approx(maxrl(reward, group).advantage_B)
    size = np.array([(group == one).sum() for one in group])
    assert rloo(reward, group).advantage_B == pytest.approx(
        dr_grpo(reward, group).advantage_B * size / np.maximum(size - 1, 1)
    )


def test_rloo_is_unbiased_and_the_plain_mean_is_short_by_one_in_g():
    """Exact expectation over all draws of three attempts from a Bernoulli policy, parameter the logit: the gradient of
    the expected reward p is p (1 - p)."""
    p, size = 0.3, 3
    expected = {"rloo": 0.0, "dr_grpo": 0.0}
    for draw in range(2**size):
        reward = np.array([draw >> i & 1 for i in range(size)], float)
        chance = np.prod(np.where(reward, p, 1 - p))
        score = np.where(reward, 1 - p, -p)  # d log pi / d logit
        for method in (rloo, dr_grpo):
            expected[method.__name__] += chance * (method(reward, np.zeros(size, int)).advantage_B * score).mean()
    assert expected["rloo"] == pytest.approx(p * (1 - p))
    assert expected["dr_grpo"] == pytest.approx(p * (1 - p) * (size - 1) / size)


def test_maxrl_climbs_the_log_of_the_pass_rate():
    """Its estimator is the mean score of the successes less that of all: 1/K sum over successes (binary rewards)."""
    reward, score = np.array([1, 0, 0, 1, 0]), np.array([0.3, -2.0, 0.7, 0.1, -0.4])
    advantage = maxrl(reward, np.zeros(5, int)).advantage_B
    assert (advantage * score).mean() == pytest.approx(score[reward == 1].mean() - score.mean())


def test_maxrl_without_success_is_silent_and_refuses_negative_rewards():
    assert maxrl(np.zeros(3), np.zeros(3, int)).advantage_B.tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="shift them, or take dr_grpo"):
        maxrl(np.array([-1.0, 1.0]), np.zeros(2, int))


def test_rae_by_hand():
    credit, state = rae(np.array([1.0, 1.0, 0.0]), ["a", "b", "a"], baselines={"b": 0.5})
    assert credit.advantage_B == pytest.approx([1.0, 0.5, -0.05])
    assert state == pytest.approx({"a": 0.95 * 0.05, "b": 0.95 * 0.5 + 0.05})
    assert credit.keep_B.all()


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(-1, 1)), max_size=10), st.integers(0, 10))
def test_rae_in_two_calls_is_rae_in_one_and_does_not_touch_the_state_it_was_given(drawn, cut):
    keys, rewards = [key for key, _ in drawn], np.array([value for _, value in drawn])
    given_state = {"a": 0.3}
    whole, end = rae(rewards, keys, baselines=given_state)
    first, middle = rae(rewards[:cut], keys[:cut], baselines=given_state)
    second, last = rae(rewards[cut:], keys[cut:], baselines=middle)
    assert given_state == {"a": 0.3}
    assert last == end
    assert np.concatenate([first.advantage_B, second.advantage_B]).tolist() == whole.advantage_B.tolist()


def test_rae_converges_to_the_mean_reward():
    _, state = rae(np.tile([0.0, 1.0], 200), ["k"] * 400, baselines={})
    assert state["k"] == pytest.approx(0.5, abs=0.02)


def test_batch_normalised_leaves_out_what_is_dropped():
    credit = batch_normalised(dr_grpo(REWARD, GROUP), eps=0.0)
    assert credit.advantage_B[credit.keep_B].std(ddof=1) == pytest.approx(1.0)
    assert credit.stats["advantage_std"] == pytest.approx(math.sqrt(4 * 0.25 / 3))
    assert np.isfinite(batch_normalised(dr_grpo(np.ones(2), np.zeros(2, int))).advantage_B).all()


@given(st.floats(0.01, 0.99), st.floats(0, 1))
def test_acting_pays_exactly_above_the_threshold(threshold, chance):
    accepted, refused, silent = accept_reject(
        np.array([True, True, False]), np.array([True, False, True]), threshold=threshold
    )
    assert silent == 0
    assert chance * accepted + (1 - chance) * refused == pytest.approx(chance - threshold)


def test_accept_reject_by_hand():
    assert accept_reject(np.array([True, True, False]), np.array([True, False, False])).tolist() == [0.75, -0.25, 0.0]
    with pytest.raises(ValueError, match="within"):
        accept_reject(np.array([True]), np.array([True]), threshold=1.0)


def test_what_could_not_be_scored_is_refused_by_row():
    with pytest.raises(ValueError, match="row 1 is nan: leave out"):
        dr_grpo(np.array([0.0, np.nan]), np.zeros(2, int))
