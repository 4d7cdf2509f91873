"""Drawing rankings: probabilities worked by hand, every ranking enumerated, samples against them, replay to the bit."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from dayjob.policies.plackett_luce import (
    GREEDY,
    Explore,
    calibrate,
    draw,
    draw_pair,
    order,
    propensities,
    roll,
)  # fmt: skip

SCORES = np.array([1.0, 0.0, -0.5, 0.3])
scores = st.lists(st.floats(-50, 50), min_size=1, max_size=4).map(lambda x: np.array(x, np.float64))
explores = st.builds(Explore, epsilon=st.floats(0, 1), temperature=st.sampled_from([0.0, 0.01, 0.5, 1.0, 30.0]))


def rankings(k: int, shown: int) -> list[tuple[int, ...]]:
    return list(itertools.permutations(range(k), shown))


def chance(score_K: np.ndarray, ranking: tuple[int, ...], explore: Explore) -> float:
    return float(np.prod(propensities(score_K, np.array(ranking), explore=explore)))


def test_probabilities_worked_by_hand() -> None:
    """Scores log 3, log 2, log 1 at temperature 1: weights 3, 2, 1."""
    score_K = np.log([3.0, 2.0, 1.0])
    plain = Explore(temperature=1.0)
    np.testing.assert_allclose(propensities(score_K, np.array([0, 1, 2]), explore=plain), [3 / 6, 2 / 3, 1.0])
    np.testing.assert_allclose(propensities(score_K, np.array([2, 0, 1]), explore=plain), [1 / 6, 3 / 5, 1.0])
    often = Explore(temperature=1.0, epsilon=0.3)
    np.testing.assert_allclose(propensities(score_K, np.array([2, 0, 1]), explore=often), [0.1 + 0.7 / 6, 3 / 5, 1.0])
    cold = Explore(temperature=0.5)
    np.testing.assert_allclose(propensities(score_K, np.array([1, 0]), explore=cold), [4 / 14, 9 / 10])
    never = Explore(epsilon=0.3)
    np.testing.assert_allclose(propensities(score_K, np.array([0, 1, 2]), explore=never), [0.8, 1.0, 1.0])
    np.testing.assert_allclose(propensities(score_K, np.array([1, 0, 2]), explore=never), [0.1, 1.0, 1.0])
    np.testing.assert_allclose(propensities(score_K, np.array([1, 2, 0]), explore=never), [0.1, 0.0, 1.0])


@given(scores, explores, st.data())
def test_propensities_sum_to_one_over_all_rankings(score_K: np.ndarray, explore: Explore, data: st.DataObject) -> None:
    shown = data.draw(st.integers(1, len(score_K)))
    total = sum(chance(score_K, ranking, explore) for ranking in rankings(len(score_K), shown))
    assert math.isclose(total, 1.0, abs_tol=1e-9)


@given(scores, st.integers(0, 2**64 - 1), explores)
def test_what_was_drawn_replays_to_the_bit(score_K: np.ndarray, seed: int, explore: Explore) -> None:
    k = len(score_K)
    first = draw(score_K, dice=roll(seed, k), explore=explore, shown=k)
    again = draw(score_K.copy(), dice=roll(seed, k), explore=explore, shown=k)
    assert first.ranking_R.tobytes() == again.ranking_R.tobytes()
    assert first.propensity_R.tobytes() == again.propensity_R.tobytes()
    assert sorted(first.ranking_R) == list(range(k))
    assert (first.propensity_R > 0).all(), "what was drawn was possible"
    assert (first.propensity_R <= 1 + 1e-12).all()
    fewer = draw(score_K, dice=roll(seed, k), explore=explore, shown=1)
    assert fewer.ranking_R[0] == first.ranking_R[0], "showing fewer draws the same ranking"
    assert fewer.propensity_R[0] == pytest.approx(first.propensity_R[0])


def test_the_dice_of_a_seed_are_the_same_on_every_machine() -> None:
    dice = roll(12345, 3)
    found = [dice.role, dice.intervene, dice.slot, dice.coin, *dice.noise_K]
    np.testing.assert_array_equal(found, GOLDEN_DICE)
    assert roll(12346, 3).role != dice.role


GOLDEN_DICE = [
    0.6463801884227345, 0.7742675977164786, 0.7864362639285933, 0.15959668272284822, 0.1609428202152785,
    0.8183785662239111, 0.917411583305607,
]  # fmt: skip


@pytest.mark.parametrize(
    "explore",
    [Explore(temperature=0.7), Explore(temperature=0.7, epsilon=0.2), Explore(epsilon=0.4)],
    ids=["plackett-luce", "both", "uniform-first"],
)
def test_sampled_rankings_have_the_stated_probabilities(explore: Explore) -> None:
    """Chi-square over all 24 rankings of four; fails one time in 10,000 by chance, and the seeds are fixed."""
    count = 6_000
    found = Counter(
        tuple(draw(SCORES, dice=roll(seed, 4), explore=explore, shown=4).ranking_R) for seed in range(count)
    )
    expected = {ranking: chance(SCORES, ranking, explore) for ranking in rankings(4, 4)}
    possible = [ranking for ranking, p in expected.items() if p > 0]
    assert set(found) <= set(possible)
    statistic, p_value = stats.chisquare(
        [found[ranking] for ranking in possible], [count * expected[ranking] for ranking in possible]
    )
    assert p_value > 1e-4, (statistic, p_value)


def test_shorter_lists_have_the_stated_probabilities() -> None:
    explore, count = Explore(temperature=0.7, epsilon=0.2), 6_000
    found = Counter(
        tuple(draw(SCORES, dice=roll(seed, 4), explore=explore, shown=2).ranking_R) for seed in range(count)
    )
    expected = {ranking: chance(SCORES, ranking, explore) for ranking in rankings(4, 2)}
    p_value = stats.chisquare([found[r] for r in expected], [count * p for p in expected.values()]).pvalue
    assert p_value > 1e-4


def test_pairs_have_the_stated_probabilities_on_both_sides_of_the_coin() -> None:
    explore, count = Explore(temperature=0.7), 6_000
    drawn = [draw_pair(SCORES, rival_first=2, dice=roll(seed, 4), explore=explore, shown=4) for seed in range(count)]
    found = Counter(tuple(one.ranking_R) for one in drawn)
    stated = {tuple(one.ranking_R): math.exp(one.log_propensity) for one in drawn}
    assert set(stated) == {(0, 2, 1, 3), (0, 2, 3, 1), (2, 0, 1, 3), (2, 0, 3, 1)}
    assert math.isclose(sum(stated.values()), 1.0, abs_tol=1e-12)
    p_value = stats.chisquare([found[r] for r in stated], [count * p for p in stated.values()]).pvalue
    assert p_value > 1e-4
    assert all((one.coin == 1) == (one.ranking_R[0] == 2) for one in drawn)
    np.testing.assert_array_equal(drawn[0].propensity_R[:2], [0.5, 1.0])


def test_a_pair_shown_alone_has_half_each() -> None:
    firsts = Counter()
    for seed in range(400):
        one = draw_pair(SCORES, rival_first=2, dice=roll(seed, 4), explore=GREEDY, shown=1)
        assert one.propensity_R.tolist() == [0.5]
        firsts[int(one.ranking_R[0])] += 1
    assert set(firsts) == {0, 2}
    with pytest.raises(AssertionError):
        draw_pair(SCORES, rival_first=0, dice=roll(1, 4), explore=GREEDY, shown=4)


@given(st.lists(st.floats(-5, 5), min_size=4, max_size=4), st.permutations(range(4)))
def test_a_permutation_of_the_candidates_permutes_the_probabilities(numbers: list[float], moved: list[int]) -> None:
    score_K, explore = np.array(numbers), Explore(temperature=0.5, epsilon=0.1)
    ranking = (2, 0, 3)
    turned = tuple(moved.index(slot) for slot in ranking)
    assert math.isclose(
        chance(score_K, ranking, explore), chance(score_K[moved], turned, explore), rel_tol=1e-9, abs_tol=1e-300
    )


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=4), st.floats(-100, 100), st.floats(0.5, 20))
def test_only_differences_in_units_of_the_temperature_count(numbers: list[float], shift: float, scale: float) -> None:
    score_K = np.array(numbers)
    ranking = np.arange(len(numbers))
    base = propensities(score_K, ranking, explore=Explore(temperature=1.0))
    moved = propensities(scale * score_K + shift, ranking, explore=Explore(temperature=scale))
    np.testing.assert_allclose(moved, base, rtol=1e-6)


def test_hopeless_candidates_keep_a_finite_probability() -> None:
    score_K = np.array([0.0, -1e300, 1e300])
    found = propensities(score_K, np.array([1, 0, 2]), explore=Explore(temperature=1.0))
    assert np.isfinite(np.log(found)).all()
    drawn = draw(score_K, dice=roll(1, 3), explore=Explore(temperature=1.0), shown=3)
    assert drawn.ranking_R[0] == 2
    assert np.isfinite(drawn.log_propensity)


def test_ties_go_by_slot() -> None:
    assert order(np.zeros(3)).tolist() == [0, 1, 2]
    assert order(np.array([0.0, 1.0, 1.0])).tolist() == [1, 2, 0]


# ---- calibration -----------------------------------------------------------------------------------------------------


def changed_first(score_NK: list[np.ndarray], explore: Explore) -> float:
    """The chance that the first place is not the best, over these lists."""
    kept = [propensities(s, order(s)[:1], explore=explore)[0] for s in score_NK]
    return 1.0 - float(np.mean(kept))


@given(st.integers(2, 12), st.sampled_from([1e-6, 1.0, 1e5]), st.sampled_from([0.02, 0.05, 0.2, 0.5]))
def test_exploration_changes_the_first_place_as_often_as_wished(k: int, scale: float, wished: float) -> None:
    rng = np.random.default_rng(k)
    lists = [scale * rng.normal(size=k) for _ in range(50)]
    explore = calibrate(lists, changed_first=wished)
    assert explore.epsilon * (1 - 1 / k) == pytest.approx(wished / 2)
    assert changed_first(lists, explore) == pytest.approx(wished, rel=0.02)


def test_nothing_to_explore_is_greedy() -> None:
    assert calibrate([], changed_first=0.05) == GREEDY
    assert calibrate([np.zeros(1)], changed_first=0.05) == GREEDY
    assert calibrate([np.zeros(3)], changed_first=0.0) == GREEDY
    flat = calibrate([np.zeros(4)] * 3, changed_first=0.06)
    assert (flat.temperature, flat.epsilon) == (0.0, pytest.approx(0.03 / 0.75))


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=6), st.floats(0.001, 0.9))
def test_any_scores_give_an_exploration_that_can_be_drawn_from(numbers: list[float], wished: float) -> None:
    score_K = np.array(numbers)
    explore = calibrate([score_K], changed_first=wished)
    assume(explore.temperature > 0)
    drawn = draw(score_K, dice=roll(7, len(numbers)), explore=explore, shown=len(numbers))
    assert np.isfinite(drawn.log_propensity)
    assert 0 <= explore.epsilon <= 1


@given(st.integers(0, 2**64 - 1), st.integers(1, 40))
def test_the_dice_are_those_of_a_generator_made_anew(seed: int, k: int) -> None:
    roll(seed ^ 1, 3)  # what was rolled before leaves no trace
    dice = roll(seed, k)
    fresh = np.random.Generator(np.random.Philox(key=seed)).random(4 + k)
    assert [dice.role, dice.intervene, dice.slot, dice.coin, *dice.noise_K] == fresh.tolist()
