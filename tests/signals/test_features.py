"""Columns known before the click."""

import tracemalloc

import numpy as np
import pytest

from dayjob.lab.crowds import STEEP, Crowd, crowd_log
from dayjob.signals import features
from dayjob.signals.dependence import columns, looker_test
from dayjob.signals.features import crowding, learned_score, looker_choice, standardise


def test_crowding_by_hand() -> None:
    vectors = np.array([[1, 0], [2, 0], [0, 3]], np.float32)  # two along x, one along y
    assert crowding(vectors, np.array([[0, 1, 2], [0, 2, -1], [1, -1, -1]])) == pytest.approx(
        np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    )


def test_crowding_in_parts_equals_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    vectors, rows = rng.normal(size=(50, 8)).astype(np.float32), rng.integers(-1, 50, size=(37, 5))
    whole = crowding(vectors, rows)
    monkeypatch.setattr(features, "ROWS_AT_ONCE", 7)
    assert crowding(vectors, rows) == pytest.approx(whole, abs=1e-6)


def test_standardised_columns_ignore_the_scale_and_the_level_of_a_list() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 6, 2))
    shown = np.ones((40, 6), bool)
    base = standardise(x, shown)
    moved = standardise(7.0 * x + rng.normal(size=(40, 1, 2)), shown)
    assert moved == pytest.approx(base)
    assert np.sqrt((base**2).mean(axis=(0, 1))) == pytest.approx([1.0, 1.0])


def test_unknown_and_absent_are_zero_and_a_constant_says_nothing() -> None:
    x = np.array([[[1.0, 5.0], [3.0, 5.0], [np.nan, 5.0], [9.0, 5.0]]])
    out = standardise(x, np.array([[True, True, True, False]]))
    assert out[0, :, 0] == pytest.approx([-1, 1, 0, 0])
    assert not out[0, :, 1].any()


def test_the_learned_score_uses_the_past_alone_and_finds_what_users_like() -> None:
    log = crowd_log(np.random.default_rng(2), 1500, crowd=Crowd(blind=0.5), features=True)
    score = learned_score(log.feature_BKF, log.click_B, shown_BK=log.shown_BK)
    later = log.click_B.copy()
    later[1000:] = (later[1000:] + 1) % log.width
    assert score[:1000] == pytest.approx(learned_score(log.feature_BKF, later, shown_BK=log.shown_BK)[:1000])
    assert not score[:250].any()  # nothing was known
    utility = log.feature_BKF.sum(axis=2)
    assert np.corrcoef(score[1000:].ravel(), utility[1000:].ravel())[0, 1] > 0.9


def test_a_mixture_foretells_the_choices_of_a_few_who_look_from_the_past_alone() -> None:
    log = crowd_log(np.random.default_rng(0), 3000, crowd=Crowd(blind=0.9, quality=0.0), features=True)
    found = looker_choice(log.feature_BKF, log.click_B, shown_BK=log.shown_BK)
    assert np.allclose(found.sum(axis=1), 1.0)
    assert np.allclose(found[:250], 0.1)
    wanted = log.feature_BKF.sum(axis=2).argmax(axis=1)
    assert (found[1500:].argmax(axis=1) == wanted[1500:]).mean() > 0.7  # a tenth of them would be chance
    other = np.where(np.arange(3000) < 2000, log.click_B, 0)
    changed = looker_choice(log.feature_BKF, other, shown_BK=log.shown_BK)
    assert (changed[:2000] == found[:2000]).all()


def test_the_test_of_lookers_keeps_its_level_where_nobody_looks() -> None:
    """A fit to folds that teach each other would count each coincidence twice: a spread of up to 1.4."""
    rngs = [np.random.default_rng(seed) for seed in range(40)]
    logs = [crowd_log(rng, 1000, crowd=Crowd(blind=1.0, pattern=STEEP), features=True) for rng in rngs]
    z_S = np.array([looker_test(log, columns(log), block=250, floor=0.02) for log in logs])
    assert (z_S > 1.64).sum() <= 6
    assert z_S.std() < 1.2


def test_wide_lists_cost_memory_in_proportion_to_their_width() -> None:
    """Intercepts of 400 positions are no columns of a design of 300 x 400 x 401 numbers, 385 MB."""
    rng = np.random.default_rng(0)
    feature_BKF = rng.normal(size=(300, 400, 1))
    click_B = rng.integers(0, 400, 300)
    tracemalloc.start()
    found_BK = learned_score(feature_BKF, click_B, shown_BK=np.ones((300, 400), bool))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.isfinite(found_BK).all()
    assert peak < 40e6
