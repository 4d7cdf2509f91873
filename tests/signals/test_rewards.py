"""Targets: the affine correction is unbiased, truth beats clicks, rewards are scaled and checked."""

from dataclasses import replace

import numpy as np
import pytest

from dayjob.lab.bias import ALPHA, BETA, relevance, trust_log
from dayjob.signals.bias import Bias, BiasMethod
from dayjob.signals.clicklog import ClickLog
from dayjob.signals.rewards import RewardConfig, Source, targets


def known_bias(alpha: np.ndarray, beta: np.ndarray, method: BiasMethod = BiasMethod.ITEMS) -> Bias:
    return Bias(
        method=method,
        reason="given",
        alpha_K=alpha,
        alpha_low_K=alpha,
        alpha_high_K=alpha,
        beta_K=beta,
        beta_low_K=beta,
        beta_high_K=beta,
    )


def test_the_correction_by_hand() -> None:
    log = ClickLog.of([[0, 1]], click_BK=[[1, 0]])
    found = targets(log, known_bias(np.array([0.5, 0.02]), np.array([0.3, 0.1])))
    assert found.value_BK[0] == pytest.approx([(1 - 0.3) / 0.5, (0 - 0.1) / 0.05])  # alpha .02 is held at the floor
    assert found.count(Source.CLICK) == 1


def test_corrected_clicks_average_to_the_relevance() -> None:
    log = trust_log(np.random.default_rng(0), sessions=60_000, queries=10)
    value = targets(log, known_bias(ALPHA, BETA)).value_BK
    mean = np.bincount(log.item_BK.ravel(), weights=value.ravel()) / np.bincount(log.item_BK.ravel())
    assert mean == pytest.approx(relevance(10), abs=0.1)
    assert np.abs(mean - relevance(10)).mean() < 0.025


def test_truth_beats_reward_beats_click() -> None:
    log = ClickLog.of([[0, 1], [0, 1], [0, 1], [0, -1]], click_B=[0, 1, 0, -1])
    log = replace(log, truth_B=np.array([1, -1, -1, -1]), reward_B=np.array([5.0, 3.0, np.nan, np.nan]))
    bias = known_bias(np.array([0.5, 0.5]), np.array([0.5, 0.0]))
    found = targets(log, bias, config=RewardConfig(low=1.0, high=5.0), weight_B=np.full(4, 0.25))
    assert [list(Source)[i] for i in found.source_B] == [Source.TRUTH, Source.REWARD, Source.CLICK, Source.CLICK]
    assert found.value_BK.tolist() == [[0, 1], [0, 0.5], [1, 0], [-1, 0]]
    assert found.weight_BK.tolist() == [[1, 1], [0, 1], [0.25, 0.25], [0.25, 0]]


def test_an_unidentifiable_bias_teaches_nothing_but_truth_still_does() -> None:
    log = replace(ClickLog.of([[0, 1], [0, 1]], click_B=[0, 0]), truth_B=np.array([-1, 0]))
    unknown = np.full(2, np.nan)
    found = targets(log, known_bias(unknown, unknown, BiasMethod.NONE))
    assert found.weight_BK.tolist() == [[0, 0], [1, 1]]
    assert (found.count(Source.NONE), found.count(Source.TRUTH)) == (1, 1)
    blind = targets(log, known_bias(np.zeros(2), np.array([1.0, 0.0]), BiasMethod.POSITION))
    assert blind.count(Source.NONE) == 1


def test_rewards_outside_the_range_are_refused() -> None:
    log = replace(ClickLog.of([[0, 1]], click_B=[0]), reward_B=np.array([1.5]))
    bias = known_bias(np.ones(2), np.zeros(2))
    with pytest.raises(ValueError, match="set reward_range"):
        targets(log, bias)
    with pytest.raises(ValueError, match="is empty"):
        targets(log, bias, config=RewardConfig(low=1.0, high=1.0))
