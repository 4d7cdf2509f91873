"""Monitors: worked numbers, what fires and what must not."""

import math

import numpy as np
import pytest

from dayjob.endings import FeedbackState, Invalid
from dayjob.gate.monitors import (
    Change,
    compare,
    exposure,
    not_learning,
    proxy_against_truth,
)


def test_exposure_worked_by_hand() -> None:
    even = exposure([5, 5, 5, 5])
    assert (even.gini, even.top_share) == (pytest.approx(0.0), 0.25)
    assert even.effective_items == pytest.approx(4.0)
    one = exposure([0, 0, 9, 0])
    assert one.gini == pytest.approx(0.75)
    assert (one.top_item, one.top_share, one.effective_items) == (2, 1.0, pytest.approx(1.0))
    assert exposure([1, 3]).gini == pytest.approx(0.25)
    with pytest.raises(Invalid):
        exposure([0, 0])


def test_compare_worked_by_hand() -> None:
    before, after = np.tile([0.0, 1.0], 50), np.tile([1.0, 1.0, 1.0, 0.0], 25)
    found = compare(before, after, alpha=0.05)
    error = math.sqrt(0.25 / 99 + 0.1875 / 99 + 2e-4)
    assert found.change == pytest.approx(0.25)
    assert found.high - found.change == pytest.approx(1.959964 * error, rel=1e-6)
    with pytest.raises(Invalid, match="at least"):
        compare([0.0], after, alpha=0.05)


def test_gaming_fires_and_honest_gain_does_not() -> None:
    rng = np.random.default_rng(0)
    low, high = rng.random(800) < 0.4, rng.random(800) < 0.6
    assert proxy_against_truth((low, high), (high, low), alpha=0.05).fires
    both = proxy_against_truth((low, high), (low, high), alpha=0.05)
    assert not both.fires
    assert "truth" in both.reason


FLAT, UP = Change(change=0.0, low=-0.02, high=0.02), Change(change=0.1, low=0.05, high=0.15)


@pytest.mark.parametrize(
    ("kl", "reward", "gain", "feedback", "fires"),
    [
        (0.004, 0.86, FLAT, None, True),  # the published story
        (0.004, 0.86, FLAT, FeedbackState.UNINFORMATIVE, True),
        (0.004, 0.86, FLAT, FeedbackState.INFORMATIVE, False),  # waiting for a verdict
        (0.004, 0.86, UP, None, False),
        (0.3, 0.86, FLAT, None, False),  # it moved
        (0.004, 0.4, FLAT, None, False),  # nobody takes this for success
    ],
)
def test_high_reward_without_movement_or_gain_is_not_learning(
    kl: float, reward: float, gain: Change, feedback: FeedbackState | None, fires: bool
) -> None:
    found = not_learning(kl=kl, reward=reward, gain=gain, feedback=feedback)
    assert found.fires is fires
    assert ("looks high" in found.reason) is fires


def test_a_divergence_is_a_number() -> None:
    with pytest.raises(Invalid):
        not_learning(kl=math.nan, reward=0.5, gain=FLAT)
