"""Rewards and thumbs: what they teach without any click, what they must not, and truths beside clicks."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dayjob.learn.belief import dispersion, fit_belief, log_likelihoods, make_events, start
from dayjob.learn.choose import HeldOut, reward_gain
from dayjob.learn.design import make_design
from dayjob.learn.fit import fit
from dayjob.learn.recipes import Debiased
from dayjob.policies.protocol import Lists
from dayjob.policies.ranker import NumpyRanker
from tests.learn.test_fit import UNGUARDED

QUICK = Debiased(rank=8, ridges=(300.0,), folds=2)


def paid(drawn, *, right, wrong, seed=0, noise=0.0):
    """The same lists without clicks; thumbs for the first place with these chances of an up, or graded rewards."""
    rng = np.random.default_rng(seed)
    first_B = drawn.replay.shown_BK[:, 0]
    mean_B = np.where(first_B == drawn.right_B, right, wrong)
    reward_B = np.clip(mean_B + noise * rng.standard_normal(len(mean_B)), 0, 1) if noise else rng.random(
        len(mean_B)) < mean_B  # fmt: skip
    return replace(
        drawn.replay,
        click_B=np.full(len(drawn.replay), -1, np.int16),
        propensity_BK=propensities(drawn.replay),
        reward_B=reward_B.astype(np.float32),
        rewarded_B=first_B,
    ).check()


def propensities(replay):
    """Of a tenth of first places drawn evenly among six."""
    own = replay.shown_BK[:, 0] == replay.base_BK.argmax(axis=1)
    first_B = np.where(own, 0.9 + 0.1 / 6, 0.1 / 6)
    return np.where(np.arange(6) == 0, first_B[:, None], 1.0).astype(np.float32)


def better_by(fitted, drawn):
    """(share of lists whose right slot is put first, less that of the caller's order; its standard error)."""
    replay = drawn.replay
    lists = Lists(
        context_BD=replay.context_BD, candidate_BKE=replay.vector_VE[replay.candidate_BK], pair_BKP=replay.pair_BKP,
        base_BK=replay.base_BK.astype(np.float64),
    )  # fmt: skip
    own = NumpyRanker(fitted.weights, fitted.network).score(lists).argmax(axis=1) == drawn.right_B
    gain_B = own * 1.0 - (replay.base_BK.argmax(axis=1) == drawn.right_B)
    return gain_B.mean(), gain_B.std() / np.sqrt(len(gain_B))


@pytest.mark.parametrize(("right", "wrong", "noise", "seed"), [(0.8, 0.2, 0.0, 0), (0.7, 0.5, 0.15, 1)])
def test_rewards_alone_teach_a_better_order(world, right, wrong, noise, seed):
    replay = paid(world(3000, seed=seed), right=right, wrong=wrong, noise=noise, seed=seed)
    fitted = fit(replay, shape=(), recipe=QUICK, seed=0)
    assert fitted.stats["kept_baseline"] == 0.0
    assert fitted.stats["rewarded"] == 3000
    mean, error = better_by(fitted, world(1500, seed=5))
    assert mean - 1.96 * error > 0.05
    assert fitted.stats["reward_low"] < wrong + 0.1
    assert fitted.stats["reward_high"] > fitted.stats["reward_low"] + 0.1


def test_thumbs_at_random_teach_nothing(world):
    """Chance alone looks better on held-out thumbs here: only the proof that is asked for stands before it."""
    replay, test = paid(world(400, seed=2), right=0.5, wrong=0.5, seed=2), world(200, seed=5)
    fooled = fit(replay, shape=(), recipe=UNGUARDED, seed=0)
    assert fooled.stats["kept_baseline"] == 0.0
    assert better_by(fooled, test)[0] < -0.1
    assert fit(replay, shape=(), recipe=QUICK, seed=0).stats["kept_baseline"] == 1.0


@pytest.mark.parametrize(("rate", "seed"), [(1.0, 1), (0.95, 2), (0.0, 2)])
def test_praise_for_everything_and_for_nothing_teach_nothing(world, rate, seed):
    replay = paid(world(1500, seed=seed), right=rate, wrong=rate, seed=seed)
    fitted = fit(replay, shape=(), recipe=QUICK, seed=0)
    assert (fitted.stats["kept_baseline"], fitted.stats["level"]) == (1.0, 0.0), "nothing looks better"


def test_the_mean_rewards_of_right_and_wrong_are_recovered(world):
    replay = paid(world(6000), right=0.8, wrong=0.25)
    design, events = make_design(replay, QUICK), make_events(replay, QUICK)
    belief = start(design, events)
    for shared in (False, True):
        belief = fit_belief(design, events, first=belief, ridge=None, shared=shared, recipe=QUICK)
    low, high = belief.rewards.tolist()
    assert low == pytest.approx(0.25, abs=0.08)
    assert high == pytest.approx(0.8, abs=0.12)


def test_the_likelihood_of_a_reward_by_hand(world):
    replay = replace(
        world(20).replay, click_B=np.full(20, 2, np.int16), reward_B=np.full(20, 0.4, np.float32),
        rewarded_B=np.full(20, 3, np.int16),
    )  # fmt: skip
    design, events = make_design(replay, QUICK), make_events(replay, QUICK)
    assert events.click_B[0] == -1  # the reward is looked at, the click is not
    belief = replace(start(design, events), reward_2=torch.logit(torch.tensor([0.2, 0.5], dtype=torch.float64)))
    assert belief.rewards.tolist() == pytest.approx([0.2, 0.6])
    likelihood, choice, _ = log_likelihoods(design, events, belief=belief)
    mean = 0.2 + 0.4 / 6  # six candidates, all alike
    assert likelihood[0].item() == pytest.approx(0.4 * np.log(mean) + 0.6 * np.log(1 - mean), rel=1e-5)
    assert choice[0].item() == 1.0


def test_a_truth_beats_a_reward(world):
    replay = replace(
        world(2).replay, reward_B=np.array([1, np.nan], np.float32), rewarded_B=np.array([3, -1], np.int16),
        truth_B=np.array([1, -1], np.int16),
    )  # fmt: skip
    events = make_events(replay.check(), QUICK)
    assert events.rewarded_B.tolist() == [-1, -1]
    assert events.click_B.tolist() == [-1, replay.click_B[1]]


def test_dispersion_by_hand():
    assert dispersion(np.array([0, 1, 1, 0], np.float32)) == pytest.approx(1.0)
    assert dispersion(np.array([0.4, 0.6], np.float32)) == pytest.approx(0.04)
    assert dispersion(np.ones(5, np.float32)) == 0.01


def test_reward_gain_by_hand(world):
    replay = replace(
        world(2).replay,
        base_BK=np.array([[2, 1, 0, 0, 0, 0]] * 2, np.float32),
        shown_BK=np.array([[0, 1, 2, 3, 4, 5], [1, 0, 2, 3, 4, 5]], np.int16),
        propensity_BK=np.full((2, 6), 0.5, np.float32),
        reward_B=np.array([0.2, 0.9], np.float32),
        rewarded_B=np.array([0, 1], np.int16),
    )
    held = HeldOut(log_likelihood_B=np.zeros(2), choice_B=np.ones(2), weight_B=np.ones(2), utility_BK=np.zeros((2, 6)))
    found = reward_gain(replay, held, new_first_B=np.array([1, 1]), low=0.0, high=1.0)
    q = 1 / 6  # of every candidate
    assert found.mean == pytest.approx((-2 * (0.2 - q) + 2 * (0.9 - q)) / 2)


def test_rewards_out_of_range_and_half_given_are_refused(world):
    replay = world(2).replay
    with pytest.raises(ValueError, match="belong together"):
        replace(replay, reward_B=np.zeros(2, np.float32)).check()
    with pytest.raises(ValueError, match="reward_range"):
        replace(replay, reward_B=np.full(2, 3, np.float32), rewarded_B=np.zeros(2, np.int16)).check()
    with pytest.raises(ValueError, match="holds no candidate"):
        replace(replay, reward_B=np.ones(2, np.float32), rewarded_B=np.full(2, -1, np.int16)).check()


def test_a_few_truths_beside_the_clicks_beat_the_clicks_alone(world):
    """Nine in ten click the first place unseen and some anywhere; 5 % of the decisions come with a truth."""
    drawn, test = world(4000, pull=0.9, noise=0.08), world(1500, seed=5)
    told = np.random.default_rng(0).random(4000) < 0.05
    truth_B = np.where(told, drawn.right_B, -1).astype(np.int16)
    clicks = fit(drawn.replay, shape=(), recipe=QUICK, seed=0)
    both = fit(replace(drawn.replay, truth_B=truth_B), shape=(), recipe=QUICK, seed=0)
    assert both.stats["kept_baseline"] == 0.0
    assert better_by(both, test)[0] > better_by(clicks, test)[0] + 0.05
