"""Who looks, from what each user clicked, and how much each may weigh."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dayjob.lab.crowds import Crowd, crowd_log
from dayjob.signals.bias import Bias, BiasMethod, estimate_bias
from dayjob.signals.clicklog import ClickLog
from dayjob.signals.informants import InformantConfig, caps, lookers, posterior


def mixed(seed: int, *, users: int = 200, looking: int = 70, each: int = 25) -> ClickLog:
    """Users of whom the first ``looking`` always look and the others never; ``each`` decisions each."""
    rng, count = np.random.default_rng(seed), users * each
    user = np.repeat(np.arange(users), each)
    rng.shuffle(user)
    blind = crowd_log(np.random.default_rng(seed + 100), count, crowd=Crowd(blind=1.0, quality=0.8), features=True)
    honest = crowd_log(np.random.default_rng(seed + 100), count, crowd=Crowd(blind=0.0, quality=0.8), features=True)
    assert (honest.item_BK == blind.item_BK).all()
    click_BK = np.where((user < looking)[:, None], honest.click_BK, blind.click_BK)
    return replace(honest, click_BK=click_BK, user_B=user)


@pytest.fixture(scope="module")
def asked() -> tuple[ClickLog, Bias]:
    log = mixed(0)
    return log, estimate_bias(log)


def test_how_many_look_is_found_and_covered() -> None:
    """Of the people seen, known one by one: the interval is of the population they are drawn from, .35 of 200."""
    inside = []
    for seed in range(5):
        log = mixed(seed)
        found = lookers(log, estimate_bias(log))
        low, middle, high = found.share
        inside.append(low <= 0.35 <= high)
        assert middle == pytest.approx(0.35, abs=0.05)
        assert high - low < 0.25
        assert found.most[0] > 0.85
        assert found.least[0] < 0.15
        assert found.most[1] == found.least[1] == 25
    assert np.mean(inside) >= 0.8


def test_people_who_seldom_look_are_not_counted_as_some_who_always_do() -> None:
    """Everybody looks in .2 of their decisions: the mean is .2, and nobody looks in half."""
    log = crowd_log(np.random.default_rng(3), 6000, crowd=Crowd(blind=0.8, quality=0.8), features=True)
    log = replace(log, user_B=np.arange(6000) % 150)
    assert lookers(log, estimate_bias(log)).share[1] < 0.08


def test_a_heavy_user_is_one_of_many(asked: tuple[ClickLog, Bias]) -> None:
    """One puppet that never looks and makes half of all decisions: of 71 lookers in 201, still about a third look."""
    log, bias = asked
    puppet = np.where(np.arange(len(log)) % 2 == 0, 1_000, log.user_B)
    clicks = np.where((puppet == 1_000)[:, None], np.arange(log.width) == 0, log.click_BK)
    heavy = replace(log, user_B=puppet, click_BK=clicks)
    found = lookers(heavy, replace(bias))
    assert found.capped == 1
    assert found.share[0] <= 0.35 <= found.share[2] + 0.02
    assert found.least[1] == 2_500


def test_what_does_not_tell_is_not_told(asked: tuple[ClickLog, Bias]) -> None:
    log, bias = asked
    nobody = lookers(replace(log, user_B=np.full(len(log), -1)), bias)
    assert (nobody.users, nobody.counted) == (0, 0)
    assert np.isnan(nobody.share).all()
    once = lookers(replace(log, user_B=np.arange(len(log))), bias)
    assert (once.users, once.counted) == (len(log), 0)
    assert "0 people were seen 10 times or more; 20 are needed" in once.reason
    blind = lookers(log, replace(bias, pooled=None, method=BiasMethod.NONE))
    assert np.isnan(blind.share[1])
    assert "see the bias" in blind.reason


@given(st.lists(st.integers(-1, 5), min_size=1, max_size=400))
def test_nobody_weighs_more_than_the_cap(users: list[int]) -> None:
    user = np.array(users)
    weight = caps(user, InformantConfig(cap_decisions=20, cap_share=0.1))
    limit = max(20, 0.1 * len(user))
    for one in np.unique(user[user >= 0]):
        total = weight[user == one].sum()
        assert total <= limit + 1e-9
        assert total == pytest.approx(min(limit, (user == one).sum()))
    assert (weight[user < 0] == 1).all()


def test_posterior_by_hand() -> None:
    like = np.log(np.array([[0.2, 0.8]]))
    assert posterior(like, np.array([0.5, 0.5])) == pytest.approx(np.array([[0.2, 0.8]]))
    assert posterior(like, np.array([0.8, 0.2])) == pytest.approx(np.array([[0.5, 0.5]]))
