"""The fair-coin pair: what cancels, what counts, who may weigh how much."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dayjob.endings import Invalid
from dayjob.gate import control
from dayjob.gate.confidence import Evidence
from dayjob.gate.trial import (
    BOUND_WITH_PULL,
    Observations,
    Shown,
    TrialState,
    effect,
    from_clicks,
    from_losses,
    from_rewards,
    from_truth,
    grounds,
    observe,
    pair,
    renew,
)

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


def test_pair_orders() -> None:
    rest = ["d", "a", "c", "b", "e"]
    assert pair("a", "b", coin=1, rest_order=rest) == ["b", "a", "d", "c", "e"]
    assert pair("a", "b", coin=-1, rest_order=rest) == ["a", "b", "d", "c", "e"]
    with pytest.raises(Invalid, match="without a pair"):
        pair("a", "a", coin=1, rest_order=rest)
    with pytest.raises(Invalid, match="coin"):
        pair("a", "b", coin=0, rest_order=rest)


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
    fresh = renew(before, bound=BOUND_WITH_PULL)
    assert fresh.evidence == Evidence()
    assert (fresh.bound, fresh.user_U, fresh.user_pull_U) == (BOUND_WITH_PULL, before.user_U, before.user_pull_U)
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


def line_shown(clicked: int, coin: int) -> tuple[Shown, np.ndarray]:
    """Places on a line at 0, 3, 4, 10 km. The champion chooses slot 0 (0 km), the challenger slot 1 (3 km)."""
    at = np.array([0.0, 3.0, 4.0, 10.0])
    loss = np.abs(at[:, None] - at[None, :])[None]
    head = [1, 0] if coin == 1 else [0, 1]
    shown = Shown(
        order_NK=np.array([[*head, 2, 3]]),
        clicked_N=np.array([clicked]),
        coin_N=np.array([coin]),
        user_N=np.array([ALONE]),
    )
    return shown, loss


def test_losses_worked_by_hand() -> None:
    # Protected: +-3 km of 6 for the two, nothing for the places below, which the coin does not protect.
    for coin in (1, -1):
        for clicked, expected in ((0, coin * 0.5), (1, -coin * 0.5), (2, 0.0), (3, 0.0), (-1, 0.0)):
            batch = from_losses(*line_shown(clicked, coin), scale=6.0)
            assert batch.low_N[0] == batch.high_N[0] == pytest.approx(expected)
            assert batch.stake_N[0] == pytest.approx(0.5)
    # With pull bounds a click at 4 km is 3 km nearer to the challenger; the pull of both places below is subtracted.
    batch = from_losses(*line_shown(2, 1), scale=6.0, pull_bound_K=[0.6, 0.2, 0.1, 0.05])
    assert batch.low_N[0] == pytest.approx(0.5 - 0.15 * 0.5)
    assert batch.high_N[0] == pytest.approx(0.5)
    # A pair further apart than the scale counts as the scale.
    assert from_losses(*line_shown(0, 1), scale=1.5).low_N[0] == pytest.approx(1.0)


def test_a_blind_click_below_never_helps_when_its_pull_is_bounded() -> None:
    pull = np.array([0.6, 0.2, 0.15, 0.05])
    mean = 0.0
    for coin in (1, -1):
        for clicked, chance in enumerate(pull):
            batch = from_losses(*line_shown(clicked, coin), scale=6.0, pull_bound_K=pull)
            mean += 0.5 * chance * batch.low_N[0]
    assert mean == pytest.approx(0.0, abs=1e-12)
    # The same people with no subtraction would have promoted the challenger: it stands nearer to what is below.
    batch = from_losses(*line_shown(2, 1), scale=6.0, pull_bound_K=np.zeros(4))
    assert batch.low_N[0] > 0


def test_a_blind_click_below_never_helps_where_the_places_are_shuffled() -> None:
    # Both sides of the coin and both orders of the two places below: a total pull of .2, spread .15 and .05.
    mean = 0.0
    for coin in (1, -1):
        for swapped in (False, True):
            for clicked, chance in ((0, 0.6), (1, 0.2), (2, 0.15), (3, 0.05)):
                shown, loss = line_shown(clicked, coin)
                order = shown.order_NK[:, [0, 1, 3, 2]] if swapped else shown.order_NK
                batch = from_losses(replace(shown, order_NK=order), loss, scale=6.0, rest_pull=0.2)
                mean += 0.25 * chance * batch.low_N[0]
    assert mean == pytest.approx(0.0, abs=1e-12)
    # Both places below are 3 km nearer to b: every decision pays .2 * .5.
    batch = from_losses(*line_shown(-1, 1), scale=6.0, rest_pull=0.2)
    assert (batch.low_N[0], batch.high_N[0]) == (pytest.approx(-0.1), 0.0)


def test_losses_stay_within_their_bound() -> None:
    rng = np.random.default_rng(5)
    at = rng.normal(size=(200, 6, 2))
    loss = np.linalg.norm(at[:, :, None] - at[:, None, :], axis=-1)
    shown = Shown(
        order_NK=np.argsort(rng.random((200, 6)), axis=1),
        clicked_N=rng.integers(-1, 6, 200),
        coin_N=rng.choice([-1, 1], 200),
        user_N=rng.integers(0, 9, 200),
    )
    batch = from_losses(shown, loss, scale=0.5, pull_bound_K=[0, 0, 0.4, 0.3, 0.2, 0.1])
    state = observe(TrialState(bound=BOUND_WITH_PULL), batch)
    assert state.evidence.count == 200
    assert state.evidence.sum_low < state.evidence.sum_high
    # Scales that do not divide evenly must not push a stake above 1.
    for scale in (0.1, 1 / 3, 0.7, 1.1):
        assert from_losses(shown, loss, scale=scale).stake_N.max() <= 1.0


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
    shown, loss = line_shown(2, 1)
    with pytest.raises(Invalid, match="metric"):
        from_losses(shown, loss**2, scale=100.0)
    with pytest.raises(Invalid, match="not both"):
        from_losses(shown, loss, scale=6.0, pull_bound_K=[0, 0, 0.1, 0.1], rest_pull=0.1)
    with pytest.raises(Invalid, match="pull bounds"):
        from_losses(shown, loss, scale=6.0, pull_bound_K=[0, 0, 0.9, 0.9])
