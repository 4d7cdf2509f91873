"""The simulated users click as they are said to."""

import numpy as np
import pytest
from geospot.users import POPULATIONS, Population, UserConfig, Users, trust_bias

COUNT = 20_000


def far_and_near(near_at: int) -> np.ndarray:
    distance = np.full((COUNT, 5), 5000.0)
    distance[:, near_at] = 20.0
    return distance


def clicks(config: UserConfig, distance: np.ndarray, seed: int = 0) -> np.ndarray:
    users, rng = Users(config), np.random.default_rng(seed)
    return users.click(distance, users.draw(len(distance), rng), rng=rng)


def share(clicked: np.ndarray, position: int) -> float:
    return float((clicked == position).mean())


def test_trust_bias_is_the_literatures():
    alpha, beta = trust_bias(5)
    assert alpha == pytest.approx([0.35, 0.53, 0.55, 0.54, 0.52], abs=0.006)
    assert beta == pytest.approx([0.65, 0.26, 0.15, 0.11, 0.08], abs=0.006)


def test_geospot_users_click_the_top_unseen_or_the_closest():
    clicked = clicks(POPULATIONS[Population.GEOSPOT], far_and_near(3))
    assert share(clicked, 0) == pytest.approx(0.65, abs=0.01)
    assert share(clicked, 3) == pytest.approx(0.35, abs=0.01)


def test_position_only_users_never_look():
    assert set(clicks(POPULATIONS[Population.POSITION_ONLY], far_and_near(3))) == {0}
    config = UserConfig(pull=1.0, pull_at=(0.6, 0.3, 0.1))
    assert [share(clicks(config, far_and_near(4)), k) for k in range(5)] == pytest.approx(
        [0.6, 0.3, 0.1, 0, 0], abs=0.02
    )


def test_errors_are_graded():
    distance = np.tile([100.0, 120.0, 3000.0, 3000.0, 3000.0], (COUNT, 1))
    clicked = clicks(POPULATIONS[Population.HONEST], distance)
    first, second = share(clicked, 0), share(clicked, 1)
    # Gumbel noise of scale .3 on log(km + 10): a logistic choice with odds (130 / 110) to the 1 / .3
    assert first / second == pytest.approx((130 / 110) ** (1 / 0.3), rel=0.05)
    assert share(clicked, 2) < 0.01


def test_some_leave_when_everything_is_far():
    honest = POPULATIONS[Population.HONEST]
    near, far = clicks(honest, far_and_near(0)), clicks(honest, np.full((COUNT, 5), 9000.0))
    assert share(near, -1) < 0.01
    assert share(far, -1) == pytest.approx(0.2 * 0.9, abs=0.02)


def test_random_clicks_fall_everywhere():
    clicked = clicks(UserConfig(pull=0.0, random=0.5), far_and_near(0))
    assert [share(clicked, k) for k in range(1, 5)] == pytest.approx([0.1] * 4, abs=0.01)


def test_mixed_users_persist_and_differ():
    users, rng = Users(POPULATIONS[Population.MIXED]), np.random.default_rng(0)
    distance = far_and_near(3)
    who = users.draw(COUNT, rng)
    pulled = users.click(distance, who, rng=rng) == 0
    assert pulled.mean() == pytest.approx(0.65, abs=0.06)
    again = users.click(distance, who, rng=rng) == 0
    heavy = [u for u in np.unique(who) if (who == u).sum() > 100]
    rates = np.array([[pulled[who == u].mean(), again[who == u].mean()] for u in heavy])
    assert len(heavy) > 20
    assert rates[:, 0].std() > 0.2
    assert np.corrcoef(rates.T)[0, 1] > 0.95


def test_trusting_users_click_by_position_and_relevance():
    far = clicks(POPULATIONS[Population.TRUST], np.full((COUNT, 5), 1e6))
    near = clicks(POPULATIONS[Population.TRUST], far_and_near(3))
    assert share(far, 0) > share(far, 1) > share(far, 4)
    assert share(near, 3) > 2 * share(far, 3)


@pytest.mark.parametrize("bad", [{"pull_at": (0.5, 0.2)}, {"pull": 1.2}, {"pull": 0.8, "random": 0.3}])
def test_impossible_shares_are_refused(bad):
    with pytest.raises(ValueError, match="share"):
        Users(UserConfig(**bad))


def test_pins_are_a_share_and_nobodys_by_default():
    assert all(config.pin == 0.0 for config in POPULATIONS.values())
    with pytest.raises(ValueError, match="share of rounds"):
        Users(UserConfig(pin=1.5))
