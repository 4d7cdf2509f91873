"""Rollback: worked wealth over starting points, unbiased arms, false alarms, late damage."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dayjob.endings import Invalid
from dayjob.gate.confidence import BETS_G, LOG_PRIOR_G
from dayjob.gate.trial import from_clicks
from dayjob.gate.watch import (
    Arms,
    Onset,
    WatchState,
    advance,
    finding,
    not_started,
    observe_arms,
    observe_pairs,
)

NAMELESS = -1


def test_wealth_over_starting_points_worked_by_hand() -> None:
    x = np.array([0.5, -0.2, 1.0])
    share = [float(not_started(t)) for t in range(4)]
    assert share[0] == 1.0
    assert share[1] == pytest.approx(0.5)
    expected = share[3]
    for start in range(3):
        wealth = np.prod([1 + BETS_G * value for value in x[start:]], axis=0)
        expected += (share[start] - share[start + 1]) * float(np.exp(LOG_PRIOR_G) @ wealth)
    assert advance(Onset(), x).log_e == pytest.approx(math.log(expected), abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=40), st.data())
def test_batches_do_not_matter(values: list[float], data: st.DataObject) -> None:
    x = np.array(values)
    cut = data.draw(st.integers(0, len(values)))
    whole, parts = advance(Onset(), x), advance(advance(Onset(), x[:cut]), x[cut:])
    np.testing.assert_allclose(parts.log_wealth_G, whole.log_wealth_G, rtol=1e-9, atol=1e-9)
    assert parts.peak == pytest.approx(whole.peak, abs=1e-9)
    assert parts.count == whole.count


def test_good_times_need_not_be_paid_back() -> None:
    rng = np.random.default_rng(0)
    good = np.where(rng.random(5000) < 0.35, 0.5, -0.5)
    bad = np.where(rng.random(5000) < 0.65, 0.5, -0.5)
    at_once = advance(Onset(), bad[:400])
    later = advance(advance(Onset(), good), bad[:400])
    assert at_once.peak > math.log(40)
    assert later.peak > math.log(40)


def test_false_alarms_stay_within_alpha() -> None:
    # The worst honest case: no difference at all, looked at after every observation.
    alarms = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        x = np.where(rng.random(1500) < 0.2, 0.8, -0.2)
        alarms += advance(Onset(), x).peak >= math.log(20)
    assert alarms <= 0.05 * 400 + 3 * math.sqrt(400 * 0.05 * 0.95)


def arms(n: int, *, champion: float, baseline: float, chance: float, seed: int) -> Arms:
    rng = np.random.default_rng(seed)
    is_base = rng.random(n) < chance
    reward = (rng.random(n) < np.where(is_base, baseline, champion)).astype(np.float64)
    return Arms(
        reward_N=reward,
        baseline_N=is_base,
        chance_champion_N=np.full(n, 1 - chance),
        chance_baseline_N=np.full(n, chance),
    )


def test_arms_see_a_champion_that_lost_a_third() -> None:
    rolled = 0
    for seed in range(10):
        state = observe_arms(
            WatchState(least_chance=0.1), arms(2000, champion=0.42, baseline=0.6, chance=0.1, seed=seed)
        )
        rolled += finding(state, alpha=0.05).rollback
        better = observe_arms(
            WatchState(least_chance=0.1), arms(2000, champion=0.6, baseline=0.42, chance=0.1, seed=seed)
        )
        assert not finding(better, alpha=0.05).rollback
    assert rolled >= 9


def test_arms_worked_by_hand() -> None:
    # The guess before anything is .5; baseline won: x = .25 * .5 / .25 = .5.
    one = Arms(
        reward_N=np.array([1.0]),
        baseline_N=np.array([True]),
        chance_champion_N=np.array([0.75]),
        chance_baseline_N=np.array([0.25]),
    )
    state = observe_arms(WatchState(least_chance=0.25), one)
    expected = 0.5 + 0.5 * float(np.exp(LOG_PRIOR_G) @ (1 + 0.5 * BETS_G))
    assert state.arms.log_e == pytest.approx(math.log(expected))
    assert state.reward_sum == 1.0


def test_pairs_roll_back_and_say_so() -> None:
    rng = np.random.default_rng(3)
    coin = rng.choice([-1, 1], 600)
    old_wins = np.where(rng.random(600) < 0.5, 1, np.where(rng.random(600) < 0.4, -1, 0))
    state = observe_pairs(WatchState(least_chance=0.03), from_clicks(old_wins, coin, user_N=np.full(600, NAMELESS)))
    alarm = finding(state, alpha=0.05)
    assert alarm.rollback
    assert "600 pairs" in alarm.reason
    assert alarm.e_needed == pytest.approx(60.0)
    flipped = observe_pairs(WatchState(least_chance=0.03), from_clicks(-old_wins, coin, user_N=np.full(600, NAMELESS)))
    assert not finding(flipped, alpha=0.05).rollback


@pytest.mark.parametrize(
    ("arms_e", "pairs_e", "rolls"), [(4.0, 0.0, False), (4.1, -1.0, True), (2.0, 2.09, False), (2.1, 2.0, True)]
)
def test_the_three_ways_share_alpha(arms_e: float, pairs_e: float, rolls: bool) -> None:
    # log(3 / .05) = 4.094.
    state = WatchState(
        least_chance=0.1,
        arms=Onset(count=5, log_e=arms_e, peak=max(0.0, arms_e)),
        pairs=Onset(count=5, log_e=pairs_e, peak=max(0.0, pairs_e)),
    )
    alarm = finding(state, alpha=0.05)
    assert alarm.rollback is rolls
    assert alarm.e_both == pytest.approx(math.exp(arms_e + pairs_e))


def test_round_trip() -> None:
    state = WatchState(least_chance=0.1)
    fresh = WatchState.from_dict(json.loads(json.dumps(state.to_dict(), allow_nan=False)))
    assert fresh.arms == Onset()
    state = observe_arms(state, arms(50, champion=0.5, baseline=0.5, chance=0.1, seed=1))
    state = observe_pairs(state, from_clicks([1, -1], [1, 1], user_N=[4, 4]))
    again = WatchState.from_dict(json.loads(json.dumps(state.to_dict(), allow_nan=False)))
    assert again.to_dict() == state.to_dict()
    assert again.trial.user_U == (4,)


def test_refusals() -> None:
    with pytest.raises(Invalid, match="least chance"):
        WatchState(least_chance=0.0)
    with pytest.raises(Invalid, match="least chance"):
        observe_arms(WatchState(least_chance=0.2), arms(200, champion=0.5, baseline=0.5, chance=0.1, seed=0))
    with pytest.raises(Invalid, match="divide"):
        advance(Onset(), np.array([1.2]))
    assert advance(Onset(), np.array([])) == Onset()
