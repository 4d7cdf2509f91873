"""The permutation test: its moments against permutations, its size, and what it cannot be fooled by."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from dayjob.lab.crowds import STEEP, Crowd, crowd_log
from dayjob.signals.clicklog import ClickLog
from dayjob.signals.dependence import columns, dependence, directions, first_place_contrast
from dayjob.signals.features import standardise


def test_moments_are_those_of_all_permutations() -> None:
    """Five lists, one block: mean 0 and covariance over all 120 ways to exchange clicks between lists."""
    rng = np.random.default_rng(0)
    x = standardise(rng.normal(size=(5, 3, 2)), np.ones((5, 3), bool))
    clicks = np.array([0, 1, 0, 2, 1])

    def test(order: tuple[int, ...]) -> np.ndarray:
        log = ClickLog.of(np.arange(15).reshape(5, 3), click_B=clicks[list(order)])
        return dependence(log, x, block=5, floor=0.02).statistic_F

    values = np.stack([test(order) for order in itertools.permutations(range(5))])
    said = dependence(ClickLog.of(np.arange(15).reshape(5, 3), click_B=clicks), x, block=5, floor=0.02)
    assert values.mean(axis=0) == pytest.approx([0, 0], abs=1e-12)
    assert np.cov(values.T, bias=True) == pytest.approx(said.covariance_FF)


@pytest.mark.parametrize(("pattern", "drift"), [(STEEP, 0.0), (STEEP, 1.0), ((0.1,) * 10, 0.0)])
def test_position_alone_rejects_as_often_as_it_says(pattern: tuple[float, ...], drift: float) -> None:
    crowd = Crowd(blind=1.0, pattern=pattern, drift=drift)
    p_values = []
    for seed in range(150):
        log = crowd_log(np.random.default_rng(seed), 600, crowd=crowd)
        p_values.append(dependence(log, columns(log), block=200, floor=0.02).p_value)
    assert np.mean(np.array(p_values) < 0.05) < 0.11  # .05 and three standard errors


def test_everything_shifts_nothing_changes() -> None:
    """A monotone law of the test: the scale of scores and the names of items do not matter."""
    log = crowd_log(np.random.default_rng(3), 500, crowd=Crowd())
    x = columns(log)
    renamed = ClickLog.of(log.item_BK + 10_000, click_B=log.click_B, score_BK=100 * log.score_BK - 5)
    p = dependence(log, x[..., :1], block=100, floor=None).p_value
    assert dependence(renamed, columns(renamed)[..., :1], block=100, floor=None).p_value == pytest.approx(p)


def test_two_equal_columns_count_once() -> None:
    log = crowd_log(np.random.default_rng(4), 500, crowd=Crowd())
    x = columns(log)[..., :1]
    once = dependence(log, x, block=100, floor=0.02).p_value
    twice = dependence(log, np.concatenate([x, x], axis=2), block=100, floor=0.02).p_value
    assert twice == pytest.approx(once)


def test_weights_find_the_few_who_look_where_their_clicks_are_spread() -> None:
    """Five per cent look under 60/20/10 …, on lists in no order: deep positions are where their clicks stand out."""
    crowd = Crowd(blind=0.95, pattern=STEEP, quality=0.0, noise=1.0)
    weighted, plain = [], []
    for seed in range(20):
        log = crowd_log(np.random.default_rng(seed), 1000, crowd=crowd, features=True)
        x = standardise(log.feature_BKF.sum(axis=2, keepdims=True), log.shown_BK)
        weighted.append(dependence(log, x, block=250, floor=0.02).p_value < 0.01)
        plain.append(dependence(log, x, block=250, floor=None).p_value < 0.01)
    assert np.mean(weighted) >= 0.5
    assert np.mean(plain) <= np.mean(weighted) - 0.2


def test_contrast_by_hand() -> None:
    """3 of 4 clicks at 1 with the choice there, 1 of 2 with another: pooled 4/6, z = .25 / sqrt(2/9 * 3/4) = .612."""
    log = ClickLog.of([[0, 1]] * 4 + [[1, 0]] * 2, click_B=[0, 0, 0, 1, 0, 1])
    found = first_place_contrast(replace(log, first_B=np.zeros(6, np.int64)))
    assert found.difference == pytest.approx(0.25)
    assert found.p_value == pytest.approx(0.5403, abs=1e-4)
    assert first_place_contrast(log).p_value == 1.0  # first choices unknown


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_directions_are_unit_and_balanced(count: int) -> None:
    d = directions(count)
    assert np.linalg.norm(d, axis=1) == pytest.approx(np.ones(len(d)))
    assert d.mean(axis=0) == pytest.approx(np.zeros(count), abs=1e-12)
