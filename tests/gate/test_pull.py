"""Upper bounds on the pull of positions: worked limits, validity, and what shuffling buys."""

import math

import numpy as np
import pytest

from dayjob.endings import Invalid
from dayjob.gate.pull import least_plausible, pull_bound, rest_bound, upper_rate


def test_upper_rate_worked_by_hand() -> None:
    # No hits: n * -log(1 - q) = log(1 / level).
    none = upper_rate(np.array([0]), np.array([100]), level=0.05)[0]
    assert none == pytest.approx(1 - 0.05 ** (1 / 100))
    some = upper_rate(np.array([30]), np.array([100]), level=0.05)[0]
    assert 100 * (0.3 * math.log(0.3 / some) + 0.7 * math.log(0.7 / (1 - some))) == pytest.approx(
        math.log(20), rel=1e-6
    )
    assert upper_rate(np.array([5]), np.array([5]), level=0.05)[0] == 1.0
    assert upper_rate(np.array([0]), np.array([0]), level=0.05)[0] == 1.0


def test_the_least_plausible_items_of_each_position() -> None:
    score = np.array([[0.9, 0.1], [0.5, 0.2], [0.7, np.nan], [0.6, 0.05]])
    chosen = least_plausible(score, share=0.25)
    np.testing.assert_array_equal(chosen[:, 0], [False, True, False, False])
    np.testing.assert_array_equal(chosen[:, 1], [False, False, False, True])


def simulate(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """40 % click by position (.7, .2, .1), the rest what they want; beliefs are exact. (clicked, belief, pull)."""
    rng = np.random.default_rng(seed)
    belief = rng.dirichlet(np.full(3, 0.3), n)
    wanted = (rng.random((n, 1)) > np.cumsum(belief, axis=1)).sum(axis=1).clip(max=2)
    blind = rng.choice(3, n, p=[0.7, 0.2, 0.1])
    return np.where(rng.random(n) < 0.4, blind, wanted), belief, 0.4 * np.array([0.7, 0.2, 0.1])


def test_bounds_hold_and_are_sharp() -> None:
    misses = 0
    for seed in range(40):
        clicked, belief, pull = simulate(4000, seed)
        bound = pull_bound(clicked, least_plausible(belief), level=0.1)
        misses += bool((bound < pull).any())
        assert (bound < pull + 0.09).all()
    assert misses <= 8


def test_the_rest_in_total() -> None:
    assert rest_bound(0, 1000, rest=8, level=0.05) == pytest.approx(8 * (1 - 0.05 ** (1 / 1000)))
    assert rest_bound(500, 1000, rest=8, level=0.05) == 1.0


def test_refusals() -> None:
    with pytest.raises(Invalid, match="level"):
        pull_bound(np.array([0]), np.array([[True]]), level=0.0)
    with pytest.raises(Invalid, match="match"):
        pull_bound(np.array([0, 1]), np.array([[True]]), level=0.1)
    with pytest.raises(Invalid, match="share"):
        least_plausible(np.ones((2, 2)), share=0.0)
    with pytest.raises(Invalid, match="hits"):
        rest_bound(5, 3, rest=2, level=0.1)
