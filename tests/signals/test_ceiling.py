"""What best-of-k would give, the lever that is short, and the alarm "not learning"."""

from dataclasses import replace

import numpy as np
import pytest

from dayjob.lab.bias import trust_log
from dayjob.lab.crowds import Crowd, crowd_log
from dayjob.signals.bias import Bias, estimate_bias
from dayjob.signals.ceiling import Ceiling, Lever, ceiling, learning
from dayjob.signals.clicklog import ClickLog
from dayjob.signals.detector import Feedback, feedback


def both(log: ClickLog) -> tuple[Bias, Feedback]:
    found = feedback(log)
    return estimate_bias(log, found=found), found


def ceiling_of(log: ClickLog) -> Ceiling:
    bias, found = both(log)
    return ceiling(log, bias, found=found)


def test_debiased_clicks_tell_how_often_the_first_is_right() -> None:
    crowd = Crowd(quality=0.8)
    log = crowd_log(np.random.default_rng(0), 8000, crowd=crowd)
    honest = crowd_log(np.random.default_rng(0), 8000, crowd=replace(crowd, blind=0.0))
    truth = (honest.click_B == 0).mean()
    bias, found = both(log)
    said = ceiling(log, bias, found=found)
    assert said.source == "clicks"
    assert said.first == pytest.approx(truth, abs=0.06)
    assert said.first_interval[0] <= truth <= said.first_interval[1]
    assert said.best == pytest.approx(1.0, abs=0.05)
    assert said.lever is Lever.MODEL
    assert (log.click_B == 0).mean() > 0.75  # what clicks say undebiased


def test_truth_is_believed_over_clicks() -> None:
    log = crowd_log(np.random.default_rng(1), 1000, crowd=Crowd(blind=1.0))
    log = replace(log, truth_B=np.arange(1000) % 4)
    bias, found = both(log)
    said = ceiling(log, bias, found=found)
    assert (said.source, said.first, said.best) == ("truth", 0.25, 1.0)
    assert said.lever is Lever.FEEDBACK


def test_blind_users_are_short_of_feedback_and_unrandomised_logs_of_exploration() -> None:
    log = crowd_log(np.random.default_rng(2), 2000, crowd=Crowd(blind=1.0))
    assert ceiling_of(log).lever is Lever.FEEDBACK
    still = replace(log, first_B=np.full(2000, -1), intervened_B=np.zeros(2000, bool))
    assert ceiling_of(still).lever is Lever.EXPLORATION


def test_lists_that_mostly_get_no_click_are_short_of_candidates() -> None:
    log = crowd_log(np.random.default_rng(3), 4000, crowd=Crowd(blind=0.0, quality=0.8, silent=0.7))
    said = ceiling_of(log)
    assert said.silent == pytest.approx(0.7, abs=0.03)
    assert said.lever is Lever.CANDIDATES


def test_repeating_items_give_the_best_of_the_shown() -> None:
    log = trust_log(np.random.default_rng(4), sessions=20_000)
    said = ceiling_of(log)
    assert said.source == "clicks"
    assert 0.1 < said.first < 0.4  # mean relevance is .25
    assert said.best > said.first + 0.2


def test_high_reward_and_a_policy_that_stands_still_is_not_learning() -> None:
    rng = np.random.default_rng(5)
    flat = 0.9 + 0.05 * rng.normal(size=400)
    said = learning(np.array([0.002, 0.006]), flat)
    assert not said.learning
    assert "reward is high" in said.reason
    grown = np.linspace(0.2, 0.6, 400) + 0.1 * rng.normal(size=400)
    assert learning(np.array([0.3]), grown).learning
    assert "world changed" in learning(np.array([0.001]), grown).reason
    assert not learning(np.array([0.5]), 0.4 + 0.05 * rng.normal(size=400)).learning
    with pytest.raises(ValueError, match="eight rewards"):
        learning(np.array([0.1]), np.ones(3))


def test_gain_by_hand() -> None:
    said = learning(np.array([0.2]), np.array([0.0, 0.2, 9, 9, 9, 9, 0.6, 0.8]))
    assert (said.gained, said.reward, said.moved) == pytest.approx((0.6, 0.7, 0.2))
    half = 1.96 * np.sqrt(0.02 / 2 + 0.02 / 2)
    assert said.gained_interval == pytest.approx((0.6 - half, 0.6 + half), abs=1e-4)


def test_rewards_count_for_as_many_decisions_as_they_stand_for() -> None:
    said = learning(
        np.array([0.2]), np.array([0, 1, 9, 9, 9, 9, 0, 1.0]), weight_T=np.array([1, 1, 1, 1, 1, 1, 3, 1.0])
    )
    assert said.gained == pytest.approx(0.25 - 0.5)
    late = (0.75**2 * 0.25**2 + 0.25**2 * 0.75**2) * 2
    assert said.gained_interval[1] - said.gained == pytest.approx(1.96 * np.sqrt(0.25 + late), abs=1e-3)
