"""The fair-coin pair: what cancels, what counts, who may weigh how much."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dayjob.endings import Invalid
from dayjob.gate import control
from dayjob.gate.confidence import Evidence
from dayjob.gate.control import RETURNED
from dayjob.gate.trial import (
    Observations,
    TrialState,
    effect,
    forget,
    from_clicks,
    from_rewards,
    from_truth,
    grounds,
    observe,
    renew,
)
from dayjob.gate.voices import Voices, weigh

ALONE = -1


def click_batch(n: int, *, gap: float, blind: float, people: int, seed: int) -> Observations:
    """Persistent people, a share of whom click position 1 unseen."""
    rng = np.random.default_rng(seed)
    user = rng.integers(0, people, n)
    is_blind = (rng.random(people) < blind)[user]
    coin = rng.choice([-1, 1], n)
    u = rng.random(n)
    wish = np.where(u < 0.3 + gap / 2, 1, np.where(u < 0.6, -1, 0))
    return from_clicks(np.where(is_blind, coin, wish), coin, user_N=user)


def test_two_observations_worked_by_hand() -> None:
    # First: nothing known, so h = 0 and x = 1/2 (b clicked, b first). Then the mean pull is KEEP * 1 / (KEEP * 1 + 1)?
    # No: sums start after the first observation, pull = mass = 1, so the common pull is 1 / (1 + 1) = 1/2, and an
    # expert who trusts the person's own history fully says (1 + 1/2) / (1 + 1) = 3/4. All experts erred alike on the
    # first (by 1), the first of them is taken: x = (-1 - 0.75 * -1) / 2 = -1/8 for "a clicked, a first".
    state = observe(TrialState(), from_clicks([1, -1], [1, -1], user_N=[5, 5]))
    assert state.evidence.sum_low == pytest.approx(0.5 - 0.125)
    assert state.user_U == (5,)
    assert state.user_pull_U == (2.0,)
    assert state.user_spent_U == (2.0,)
    assert effect(state, alpha=0.05)[0] == pytest.approx(0.375)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 60))
def test_batches_do_not_matter(seed: int, cut: int) -> None:
    rng = np.random.default_rng(seed)
    click, coin = rng.integers(-1, 2, 60), rng.choice([-1, 1], 60)
    user = rng.integers(-1, 8, 60)
    whole = observe(TrialState(slots=4), from_clicks(click, coin, user_N=user))
    state = observe(TrialState(slots=4), from_clicks(click[:cut], coin[:cut], user_N=user[:cut]))
    state = TrialState.from_dict(json.loads(json.dumps(state.to_dict())))
    state = observe(state, from_clicks(click[cut:], coin[cut:], user_N=user[cut:]))
    a, b = whole.to_dict(), state.to_dict()
    np.testing.assert_allclose(a.pop("evidence")["log_up_G"], b.pop("evidence")["log_up_G"], rtol=1e-9, atol=1e-12)
    assert a["user_U"] == b["user_U"]
    for name in ("pull", "mass", "loss_E", "user_pull_U", "user_mass_U", "user_spent_U"):
        assert a[name] == pytest.approx(b[name], rel=1e-9, abs=1e-12)


def test_the_coin_cancels_every_position_pattern() -> None:
    # The mean over the two sides of the coin is exactly zero for anyone who clicks by position alone.
    for place in (0, 1, 2):
        value = [from_clicks([{0: c, 1: -c, 2: 0}[place]], [c], user_N=[ALONE]).low_N[0] for c in (1, -1)]
        assert sum(value) == 0.0


def test_a_blind_person_soon_adds_no_noise_and_sees_no_bias() -> None:
    coin = np.random.default_rng(0).choice([-1, 1], 1200)
    state = observe(TrialState(), from_clicks(coin, coin, user_N=np.arange(1200) % 30))
    assert state.evidence.variance * 4 < 0.02
    assert state.evidence.peak_up < 3.0
    assert abs(effect(state, alpha=0.05)[0]) < 0.02


def test_knowing_people_saves_decisions() -> None:
    gained = []
    for seed in range(4):
        known = click_batch(2000, gap=0.2, blind=0.65, people=100, seed=seed)
        nameless = from_clicks(known.low_N, known.coin_N, user_N=np.full(2000, ALONE))
        with_names, without = observe(TrialState(), known), observe(TrialState(), nameless)
        assert with_names.evidence.variance < 0.75 * without.evidence.variance
        gained.append(with_names.evidence.log_e_up - without.evidence.log_e_up)
        low, high = effect(with_names, alpha=0.01)[1:]
        assert low < 0.35 * 0.2 < high
    assert np.mean(gained) > 1.0


def test_one_person_cannot_carry_a_trial() -> None:
    coin = np.random.default_rng(1).choice([-1, 1], 3000)
    heavy = observe(TrialState(), from_clicks(np.ones(3000), coin, user_N=np.full(3000, 9)))
    assert heavy.evidence.weight == pytest.approx(control.USER_FLOOR)
    # Not enough for any level that e-LOND gives.
    assert heavy.evidence.peak_up < math.log(1 / 0.0219)


def test_caps_worked_by_hand() -> None:
    # 40 people of ten decisions each: 400 in all, and a fair part twice over is 2 / 40.
    user = np.repeat(np.arange(40), 10)
    state = TrialState()
    for turn in range(10):
        zero = np.zeros(40)
        state = observe(state, from_clicks(zero, np.ones(40, dtype=np.int64), user_N=user[turn::10]))
    assert (state.people, state.evidence.weight) == (40.0, 400.0)
    state = observe(state, from_clicks(np.ones(100), np.ones(100, dtype=np.int64), user_N=np.zeros(100)))
    # The limit grows with the total: spent = (400 + spent - 10) / 20 at the end.
    assert max(state.user_spent_U) == pytest.approx(390 / 19, abs=0.06)


def test_the_cap_counts_earlier_batches() -> None:
    # 3,000 others first: then one person may weigh 1 % of all, more than the floor.
    state = observe(TrialState(), click_batch(3000, gap=0.0, blind=0.0, people=2000, seed=4))
    coin = np.ones(200, dtype=np.int64)
    state = observe(state, from_clicks(coin, coin, user_N=np.full(200, 99_999)))
    assert max(state.user_spent_U) == pytest.approx(0.01 * state.evidence.weight, rel=0.02)


def test_a_renewed_trial_knows_people_and_no_evidence() -> None:
    batch = click_batch(2300, gap=0.3, blind=0.65, people=100, seed=5)
    first, rest = (
        from_clicks(batch.low_N[part], batch.coin_N[part], user_N=batch.user_N[part])
        for part in (slice(0, 2000), slice(2000, 2300))
    )
    before = observe(TrialState(), first)
    fresh = renew(before)
    assert fresh.evidence == Evidence()
    assert (fresh.user_U, fresh.user_pull_U) == (before.user_U, before.user_pull_U)
    assert set(fresh.user_spent_U) == {0.0}
    # The same people again: known from the start, they add less noise than as strangers.
    known, strangers = observe(renew(before), rest), observe(TrialState(), rest)
    assert known.evidence.variance < 0.75 * strangers.evidence.variance


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 10**6))
def test_the_cap_holds_in_a_full_table(seed: int) -> None:
    # 3 places for 12 people, one of them heavy: true weights are kept beside the table's own account.
    rng = np.random.default_rng(seed)
    user = np.where(rng.random(600) < 0.5, 0, rng.integers(1, 12, 600))
    state, spent = TrialState(slots=3), dict.fromkeys(range(12), 0.0)
    for n in range(600):
        before = state
        state = observe(state, from_clicks([1], [1], user_N=user[n : n + 1]))
        given_weight = state.evidence.weight - before.evidence.weight
        spent[int(user[n])] += given_weight
        share = max(0.01, 2.0 / max(before.people, 20.0))
        assert given_weight == 0.0 or spent[int(user[n])] <= max(5.0, share * before.evidence.weight) + 1e-9
    assert len(state.user_U) == 3


def test_rewards_and_truth() -> None:
    batch = from_rewards([1.0, 0.25], [1, -1], user_N=[ALONE, ALONE])
    np.testing.assert_allclose(batch.low_N, [1.0, 0.5])
    batch = from_truth([0.0, 1.0], [1.0, 0.5], coin_N=[1, 1], user_N=[ALONE, ALONE])
    np.testing.assert_allclose(batch.low_N, [1.0, -0.5])
    # b first earns .7, a first .5: the mean value is their difference whatever the common level.
    rng = np.random.default_rng(4)
    coin = rng.choice([-1, 1], 4000)
    reward = np.clip(np.where(coin == 1, 0.7, 0.5) + rng.normal(0, 0.1, 4000), 0, 1)
    state = observe(TrialState(), from_rewards(reward, coin, user_N=np.full(4000, ALONE)))
    low, high = effect(state, alpha=0.05)[1:]
    assert low < 0.2 < high
    assert state.evidence.log_e_up > 20


def test_whoever_was_erased_leaves_no_entry() -> None:
    state = observe(TrialState(), from_clicks([1, -1, 1], [1, -1, 1], user_N=[5, 6, 5]))
    after = forget(state, {5, 99})
    assert (after.user_U, after.user_spent_U) == ((6, RETURNED), (1.0, 2.0)), "their weight stays, without a name"
    assert after.user_pull_U == (state.user_pull_U[1], 0.0)
    assert after.evidence == state.evidence
    assert forget(state, {99}) is state
    again = forget(after, {6})
    assert (again.user_U, again.user_spent_U) == ((RETURNED,), (3.0,))


def test_nobody_gets_a_new_voice_by_being_erased() -> None:
    """One account, erased as soon as the cap of five pairs holds it, comes back ten times: it weighs five in all."""
    state, voices = TrialState(), Voices()
    for turn in range(10):
        user = 5 if turn == 0 else RETURNED
        state = observe(state, from_clicks([1] * 6, [1, -1] * 3, user_N=[user] * 6))
        voices, _ = weigh(voices, np.full(6, user))
        state, voices = forget(state, {5}), voices.without({5})
    assert state.evidence.weight == 5.0
    assert (state.user_U, state.user_spent_U) == ((RETURNED,), (5.0,))
    assert (voices.total, voices.user_U, voices.spent_U) == (5.0, (RETURNED,), (5.0,))


def test_grounds_and_empty_batches() -> None:
    state = observe(TrialState(), from_clicks([], [], user_N=[]))
    assert state.evidence == Evidence()
    assert effect(state, alpha=0.05) == (0.0, -1.0, 1.0)
    state = observe(state, click_batch(500, gap=0.2, blind=0.0, people=50, seed=3))
    found = grounds(state, closed=900, alpha=0.05)
    assert (found.judged, found.closed, found.bound) == (500, 900, 2.0)
    assert found.low < found.effect < found.high
    assert 0.2 < found.variance < 1.0
    assert found.log_e_better >= found.log_e_now


def test_refusals() -> None:
    with pytest.raises(Invalid, match="clicked"):
        from_clicks([2], [1], user_N=[0])
    with pytest.raises(Invalid, match="coins"):
        from_clicks([1], [0], user_N=[0])
    with pytest.raises(Invalid, match="one length"):
        from_clicks([1, 0], [1], user_N=[0])
    with pytest.raises(Invalid, match="reward_range"):
        from_rewards([1.5], [1], user_N=[0])
    with pytest.raises(Invalid, match="finite"):
        from_rewards([float("nan")], [1], user_N=[0])
    with pytest.raises(Invalid, match="relevances"):
        from_truth([0.0], [3.0], coin_N=[1], user_N=[0])
