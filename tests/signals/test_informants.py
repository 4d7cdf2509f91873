"""Who looks, from what each user clicked; caps; the predictable variant."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dayjob.lab.crowds import Crowd, crowd_log
from dayjob.signals.choice import ChoiceModel, fit_choice
from dayjob.signals.clicklog import ClickLog
from dayjob.signals.informants import (
    SHARES,
    InformantConfig,
    caps,
    decision_likelihoods,
    informants,
    past_shares,
    posterior,
)
from dayjob.signals.orders import choice_columns


@pytest.fixture(scope="module")
def mixed() -> tuple[ClickLog, np.ndarray, np.ndarray, ChoiceModel]:
    """200 users, 70 of whom always look and 130 never; 25 decisions each."""
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(200), 25)
    rng.shuffle(user)
    blind = crowd_log(np.random.default_rng(1), 5000, crowd=Crowd(blind=1.0, quality=0.8), features=True)
    honest = crowd_log(np.random.default_rng(1), 5000, crowd=Crowd(blind=0.0, quality=0.8), features=True)
    looks = user < 70
    log = replace(honest, click_BK=np.where(looks[:, None], honest.click_BK, blind.click_BK), user_B=user)
    assert (honest.item_BK == blind.item_BK).all()
    columns = choice_columns(log)
    return log, columns, looks, fit_choice(log, columns)


def test_users_are_told_apart(mixed: tuple[ClickLog, np.ndarray, np.ndarray, ChoiceModel]) -> None:
    log, columns, looks, model = mixed
    found = informants(log, model, columns_BKF=columns)
    assert found.user_U.tolist() == list(range(200))
    assert (found.decisions_U == 25).all()
    assert ((found.share_U > 0.5) == (found.user_U < 70)).all()
    assert found.low_U[:70].min() > 0.5
    assert found.prior_M.sum() == pytest.approx(1.0)
    assert found.prior_M @ SHARES == pytest.approx(0.35, abs=0.08)
    assert found.looked_B[looks].mean() > 0.9
    assert found.looked_B[~looks].mean() < 0.1


def test_the_predictable_share_knows_nothing_of_now(
    mixed: tuple[ClickLog, np.ndarray, np.ndarray, ChoiceModel],
) -> None:
    log, columns, looks, model = mixed
    prior = informants(log, model, columns_BKF=columns).prior_M
    before = past_shares(log, model, columns_BKF=columns, prior_M=prior)
    click = log.click_B.copy()
    click[3000:] = (click[3000:] + 1) % log.width
    changed = ClickLog.of(log.item_BK, click_B=click, user_B=log.user_B)
    after = past_shares(changed, model, columns_BKF=columns, prior_M=prior)
    assert after[:3001] == pytest.approx(before[:3001])
    assert after[3500:] != pytest.approx(before[3500:])
    first = np.unique(log.user_B, return_index=True)[1]
    assert before[first] == pytest.approx(np.full(200, prior @ SHARES))
    assert before[4000:][looks[4000:]].mean() > 0.85
    assert before[4000:][~looks[4000:]].mean() < 0.15


def test_earlier_evidence_counts_as_if_it_stood_in_the_log(
    mixed: tuple[ClickLog, np.ndarray, np.ndarray, ChoiceModel],
) -> None:
    log, columns, _, model = mixed
    prior = np.full(len(SHARES), 1 / len(SHARES))
    whole = past_shares(log, model, columns_BKF=columns, prior_M=prior)
    look, pull = decision_likelihoods(log.rows(slice(0, 2000)), model, columns_BKF=columns[:2000])
    before = np.zeros((200, len(SHARES)))
    np.add.at(before, log.user_B[:2000], np.log(np.maximum(np.outer(look, SHARES) + np.outer(pull, 1 - SHARES), 1e-12)))
    rest = past_shares(log.rows(slice(2000, None)), model, columns_BKF=columns[2000:], prior_M=prior, before_UM=before)
    assert rest == pytest.approx(whole[2000:])


def test_anonymous_decisions_take_the_mean_and_keep_their_weight(
    mixed: tuple[ClickLog, np.ndarray, np.ndarray, ChoiceModel],
) -> None:
    log, columns, _, model = mixed
    nobody = replace(log, user_B=np.full(len(log), -1))
    found = informants(nobody, model, columns_BKF=columns)
    assert len(found.user_U) == 0
    assert found.weight_B == pytest.approx(found.looked_B)
    assert past_shares(nobody, model, columns_BKF=columns, prior_M=found.prior_M) == pytest.approx(
        np.full(len(log), found.prior_M @ SHARES)
    )


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
