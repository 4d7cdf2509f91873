"""What randomised positions prove."""

from dataclasses import replace

import numpy as np
import pytest

from dayjob.lab.bias import ALPHA, BETA, trust_log
from dayjob.lab.crowds import Crowd, crowd_log
from dayjob.signals.clicklog import ClickLog
from dayjob.signals.clickmodels import cells, fit_position, fit_trust
from dayjob.signals.intervene import all_pairs, by_rank, swap_at_one, trust_interval


def test_all_pairs_by_hand() -> None:
    """Item 0 is clicked 4 of 8 times at position 1 and 1 of 4 at position 2: theta_2 = (1/4) / (1/2), whatever item 1
    does.
    """
    lists = [[0, 7 + i] for i in range(8)] + [[20 + i, 0] for i in range(4)]
    clicks = [[1, 0]] * 4 + [[0, 1]] * 4 + [[0, 1]] + [[1, 0]] * 3
    assert all_pairs(cells(ClickLog.of(lists, click_BK=clicks))) == pytest.approx([1.0, 0.5], abs=1e-3)


def test_all_pairs_recovers_examination_where_em_of_rare_items_does_not() -> None:
    data = cells(trust_log(np.random.default_rng(0), queries=2000, trust=False))
    truth = 1 / (1 + np.arange(5))
    assert all_pairs(data) == pytest.approx(truth, abs=0.02)
    assert np.abs(fit_position(data).theta_K - truth).max() > 0.08


def test_trust_interval_covers_what_clicks_identify() -> None:
    slope = ALPHA / ALPHA[0]
    truth = np.stack([slope, BETA - slope * BETA[0]])[:, 1:]
    inside = []
    for seed in range(4):
        low, high = trust_interval(trust_log(np.random.default_rng(seed), sessions=10_000), seed=seed, draws=15)
        inside.append((low[2:, 1:] <= truth) & (truth <= high[2:, 1:]))
        assert (high[2:, 1:] - low[2:, 1:]).max() < 0.6
    assert np.mean(inside) >= 0.75


def test_swap_at_one_by_hand() -> None:
    """8 of 10 clicks with the choice at 1, 3 of 5 with a uniform draw; the list whose place temperature changed is
    left out.
    """
    items = np.tile([0, 1], (16, 1))
    items[15] = [1, 0]
    log = ClickLog.of(items, click_B=[0] * 8 + [1] * 2 + [0] * 3 + [1] * 2 + [0])
    log = replace(log, first_B=np.zeros(16, np.int64), intervened_B=np.arange(16) // 5 == 2)
    log = replace(log, intervened_B=(np.arange(16) >= 10) & (np.arange(16) < 15))
    found = swap_at_one(log)
    assert (found.choice_shown, found.uniform_shown) == (10, 5)
    assert (found.choice_rate[1], found.uniform_rate[1], found.effect[1]) == pytest.approx((0.8, 0.6, 0.2))
    # Newcombe, from Wilson (.4902, .9433) and (.2307, .8824): .2 - sqrt(.3098² + .2824²), .2 + sqrt(.1433² + .3693²)
    assert found.effect[::2] == pytest.approx((-0.2192, 0.5961), abs=1e-3)
    assert found.look_least == 0.0


def test_swap_at_one_bounds_pull_and_looks() -> None:
    log = crowd_log(np.random.default_rng(2), 20_000, crowd=Crowd(quality=0.9))
    found = swap_at_one(log)
    assert found.pull_most >= 0.65
    assert 0.05 < found.look_least <= 0.35
    with pytest.raises(ValueError, match=r"changed_first"):
        swap_at_one(replace(log, intervened_B=np.zeros(len(log), bool)))


def test_ranks_stand_in_for_items() -> None:
    log = ClickLog.of([[5, 6, 7], [8, 9, -1]], click_B=[0, 1], score_BK=[[0.1, 0.9, 0.5], [2.0, 3.0, np.nan]])
    assert by_rank(log).item_BK.tolist() == [[2, 0, 1], [1, 0, -1]]
    with pytest.raises(ValueError, match="score of every item"):
        by_rank(ClickLog.of([[5, 6]], click_B=[0]))


def test_explored_ranks_identify_what_items_seen_once_do_not() -> None:
    log = crowd_log(np.random.default_rng(3), 3000, crowd=Crowd())
    assert not cells(log).connected
    assert cells(by_rank(log)).connected
    assert fit_trust(cells(by_rank(log))).alpha_K[0] > 0
