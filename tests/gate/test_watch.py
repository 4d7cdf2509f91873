"""Rollback: worked wealth over starting points, unbiased arms, false alarms, late damage."""

import json
import math
from dataclasses import replace

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
    contrasts,
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
        held_N=np.full(n, chance),
        alone_N=np.full(n, 1 - chance),
        user_N=np.full(n, NAMELESS),
    )


def test_arms_see_a_champion_that_lost_a_third() -> None:
    rolled = 0
    for seed in range(10):
        state = observe_arms(WatchState(), arms(2000, champion=0.42, baseline=0.6, chance=0.1, seed=seed))
        rolled += finding(state, alpha=0.05).rollback
        better = observe_arms(WatchState(), arms(2000, champion=0.6, baseline=0.42, chance=0.1, seed=seed))
        assert not finding(better, alpha=0.05).rollback
    assert rolled >= 9


def test_arms_worked_by_hand() -> None:
    # The guess before anything is .5; baseline won: x = .25 * .5 / .25 = .5.
    one = Arms(
        reward_N=np.array([1.0]),
        baseline_N=np.array([True]),
        held_N=np.array([0.25]),
        alone_N=np.array([0.75]),
        user_N=np.array([NAMELESS]),
    )
    state = observe_arms(WatchState(), one)
    expected = 0.5 + 0.5 * float(np.exp(LOG_PRIOR_G) @ (1 + 0.5 * BETS_G))
    assert state.arms.log_e == pytest.approx(math.log(expected))
    assert state.reward_sum == 1.0


def test_pairs_roll_back_and_say_so() -> None:
    rng = np.random.default_rng(3)
    coin = rng.choice([-1, 1], 600)
    old_wins = np.where(rng.random(600) < 0.5, 1, np.where(rng.random(600) < 0.4, -1, 0))
    state = observe_pairs(WatchState(), from_clicks(old_wins, coin, user_N=np.full(600, NAMELESS)))
    alarm = finding(state, alpha=0.05)
    assert alarm.rollback
    assert "600 pairs" in alarm.reason
    assert alarm.e_needed == pytest.approx(60.0)
    flipped = observe_pairs(WatchState(), from_clicks(-old_wins, coin, user_N=np.full(600, NAMELESS)))
    assert not finding(flipped, alpha=0.05).rollback


@pytest.mark.parametrize(
    ("arms_e", "pairs_e", "rolls"), [(4.0, 0.0, False), (4.1, -1.0, True), (2.0, 2.09, False), (2.1, 2.0, True)]
)
def test_the_three_ways_share_alpha(arms_e: float, pairs_e: float, rolls: bool) -> None:
    # log(3 / .05) = 4.094.
    state = WatchState(
        arms=Onset(count=5, log_e=arms_e, peak=max(0.0, arms_e)),
        pairs=Onset(count=5, log_e=pairs_e, peak=max(0.0, pairs_e)),
    )
    alarm = finding(state, alpha=0.05)
    assert alarm.rollback is rolls
    assert alarm.e_both == pytest.approx(math.exp(arms_e + pairs_e))


def test_round_trip() -> None:
    state = WatchState()
    fresh = WatchState.from_dict(json.loads(json.dumps(state.to_dict(), allow_nan=False)))
    assert fresh.arms == Onset()
    state = observe_arms(state, arms(50, champion=0.5, baseline=0.5, chance=0.1, seed=1))
    state = observe_pairs(state, from_clicks([1, -1], [1, 1], user_N=[4, 4]))
    again = WatchState.from_dict(json.loads(json.dumps(state.to_dict(), allow_nan=False)))
    assert again.to_dict() == state.to_dict()
    assert again.trial.user_U == (4,)


def mixed_shares(n: int, *, champion: float, baseline: float, seed: int) -> Arms:
    """The holdback and the champion's own share change all the time, as after a change of settings or in a trial."""
    rng = np.random.default_rng(seed)
    held = rng.choice([0.02, 0.05, 0.2], n)
    alone = np.maximum(held, rng.choice([0.1, 0.5, 0.7], n))
    part = rng.random(n)
    seen = part < held + alone
    is_base = (part < held)[seen]
    reward = (rng.random(seen.sum()) < np.where(is_base, baseline, champion)).astype(np.float64)
    return Arms(
        reward_N=reward, baseline_N=is_base, held_N=held[seen], alone_N=alone[seen],
        user_N=np.full(seen.sum(), NAMELESS),
    )  # fmt: skip


def test_shares_that_change_favour_neither_side() -> None:
    """The mean of what is bet on is 0 for equal arms, and h (held - alone) for others, whatever the shares do."""
    total, expected = [], []
    for seed in range(40):
        batch = mixed_shares(3000, champion=0.5, baseline=0.7, seed=seed)
        equal = mixed_shares(3000, champion=0.5, baseline=0.5, seed=seed + 1000)
        total.append((contrasts(WatchState(), batch).sum(), contrasts(WatchState(), equal).sum()))
        # A decision shows up with chance h + a, and then adds h (.7 - .5) / (h + a) on average.
        expected.append(float((0.2 * batch.held_N / (batch.held_N + batch.alone_N)).sum()))
    sums = np.array(total)
    error = sums.std(axis=0) / math.sqrt(len(sums))
    assert sums[:, 0].mean() == pytest.approx(np.mean(expected), abs=4 * error[0])
    assert sums[:, 1].mean() == pytest.approx(0.0, abs=4 * error[1])


def test_false_alarms_stay_within_alpha_while_the_share_follows_the_evidence() -> None:
    """Equal arms, and a holdback that grows with the evidence against the champion and shrinks without."""
    alarms = 0
    for seed in range(150):
        rng, state = np.random.default_rng(seed), WatchState()
        for _ in range(8):
            chance = 0.3 if state.arms.rise > 0.5 else 0.05
            is_base = rng.random(100) < chance
            batch = Arms(
                reward_N=(rng.random(100) < 0.5).astype(np.float64), baseline_N=is_base, held_N=np.full(100, chance),
                alone_N=np.full(100, 1 - chance), user_N=np.full(100, NAMELESS),
            )  # fmt: skip
            state = observe_arms(state, batch)
        alarms += state.arms.peak >= math.log(20)
    assert alarms <= 0.05 * 150 + 3 * math.sqrt(150 * 0.05 * 0.95)


def test_one_person_cannot_roll_a_champion_back_by_the_holdback() -> None:
    """A tenth of the traffic is one account that likes whatever the baseline shows and nothing else; others see none
    of it. The account weighs no more than in a trial."""
    rng = np.random.default_rng(0)
    size = 6000
    is_base = rng.random(size) < 0.3
    heavy = rng.random(size) < 0.1
    reward = np.where(heavy, is_base, rng.random(size) < 0.5).astype(np.float64)
    batch = Arms(
        reward_N=reward, baseline_N=is_base, held_N=np.full(size, 0.3), alone_N=np.full(size, 0.7),
        user_N=np.where(heavy, 0, rng.integers(1, 1000, size)),
    )  # fmt: skip
    capped = observe_arms(WatchState(), batch)
    assert not finding(capped, alpha=0.05).rollback
    assert capped.voices.spent_U[capped.voices.user_U.index(0)] <= 0.01 * size + 5
    nameless = observe_arms(WatchState(), replace(batch, user_N=np.full(size, NAMELESS)))
    assert finding(nameless, alpha=0.05).rollback, "without names nothing caps anybody"


def test_evidence_of_harm_rises_and_falls_again() -> None:
    """max(0, S + log(1 + .3 x)) by hand: harm of .5 twice, then good times."""
    state = advance(Onset(), np.array([-1.0, 0.5, 0.5]))
    assert state.rise == pytest.approx(2 * math.log(1.15))
    assert advance(state, np.array([-1.0, -1.0])).rise == 0.0
    assert advance(Onset(), np.array([0.5])).rise == pytest.approx(math.log(1.15))


def test_refusals() -> None:
    with pytest.raises(Invalid, match="at least as likely"):
        observe_arms(
            WatchState(), replace(arms(20, champion=0.5, baseline=0.5, chance=0.1, seed=0), alone_N=np.full(20, 0.05))
        )
    with pytest.raises(Invalid, match="at least as likely"):
        observe_arms(
            WatchState(), replace(arms(20, champion=0.5, baseline=0.5, chance=0.1, seed=0), held_N=np.zeros(20))
        )
    with pytest.raises(Invalid, match="divide"):
        advance(Onset(), np.array([1.2]))
    assert advance(Onset(), np.array([])) == Onset()
