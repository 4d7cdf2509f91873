"""Tails and intervals against scipy and tables."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dayjob.signals.intervals import chi_square_tail, spread, wilson


@given(st.floats(1e-6, 400.0), st.integers(1, 40))
def test_chi_square_tail_is_scipys(value: float, degrees: int) -> None:
    assert chi_square_tail(value, degrees) == pytest.approx(stats.chi2.sf(value, degrees), rel=1e-8, abs=1e-14)


def test_wilson_of_three_in_ten() -> None:
    # z = 1.96: centre (.3 + .19207) / 1.38415 = .3555, half 1.96 sqrt(.021 + .0096036) / 1.38415 = .2477
    assert wilson(3, 10) == pytest.approx((0.1078, 0.6032), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share(counts: tuple[int, int]) -> None:
    hits, trials = counts
    low, high = wilson(hits, trials)
    assert 0 <= low <= hits / trials + 1e-12
    assert hits / trials - 1e-12 <= high <= 1


def test_bootstrap_draws_whole_users_and_knows_their_number() -> None:
    """Ten users of 40 equal decisions each: the interval of the mean is as wide as ten numbers make it, not 400."""
    rng = np.random.default_rng(0)
    level = rng.normal(size=10)
    user_B = np.repeat(np.arange(10), 40)
    value_B = level[user_B]

    def mean(weight_B: np.ndarray) -> np.ndarray:
        return np.array([weight_B @ value_B / weight_B.sum()])

    theory = level.std() / np.sqrt(10)
    assert spread(mean, user_B, seed=1, draws=400)[0] == pytest.approx(theory, rel=0.15)
    assert spread(mean, np.full(400, -1), seed=1, draws=400)[0] == pytest.approx(theory / np.sqrt(40), rel=0.15)
