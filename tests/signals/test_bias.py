"""The bias by the strongest method the log allows."""

from dataclasses import replace

import numpy as np
import pytest

from dayjob.endings import FeedbackState
from dayjob.lab.bias import trust_log
from dayjob.lab.crowds import STEEP, Crowd, crowd_log
from dayjob.signals.bias import BiasMethod, estimate_bias
from dayjob.signals.clicklog import ClickLog
from dayjob.signals.detector import feedback


def test_items_that_repeat_carry_the_estimate() -> None:
    found = estimate_bias(trust_log(np.random.default_rng(0), sessions=8000))
    assert found.method is BiasMethod.ITEMS
    assert found.identifiable
    assert (found.beta_low_K <= found.beta_K + 1e-9).all()
    assert (found.beta_K <= found.beta_high_K + 1e-9).all()
    assert found.beta_K.argmax() == 0


def test_single_clicks_with_scores_are_pull_or_choice() -> None:
    found = estimate_bias(crowd_log(np.random.default_rng(1), 4000, crowd=Crowd(quality=0.8)))
    assert found.method is BiasMethod.CHOICE
    assert found.beta_low_K[0] <= 0.65 <= found.beta_high_K[0]
    assert found.alpha_low_K[0] <= 0.35 <= found.alpha_high_K[0]


def test_useless_scores_leave_the_bound_of_the_uniform_draw() -> None:
    log = crowd_log(np.random.default_rng(2), 2000, crowd=Crowd(quality=0.0))
    found = estimate_bias(log)
    assert found.method is BiasMethod.SWAP
    assert not found.identifiable
    assert found.beta_high_K[0] >= 0.65
    assert np.isnan(found.beta_K).all()


def test_uninformative_clicks_are_all_pull() -> None:
    log = crowd_log(np.random.default_rng(3), 2000, crowd=Crowd(blind=1.0, pattern=STEEP))
    said = feedback(log)
    assert said.state is FeedbackState.UNINFORMATIVE
    found = estimate_bias(log, found=said)
    assert found.method is BiasMethod.POSITION
    assert not found.alpha_K.any()
    assert found.beta_K == pytest.approx(STEEP, abs=0.04)


def test_nothing_to_go_by_is_unidentifiable_with_the_remedy() -> None:
    log = crowd_log(np.random.default_rng(4), 500, crowd=Crowd())
    bare = replace(log, score_BK=np.full(log.score_BK.shape, np.nan), intervened_B=np.zeros(500, bool))
    found = estimate_bias(bare)
    assert found.method is BiasMethod.NONE
    assert "send scores" in found.reason
    still = replace(log, first_B=log.item_BK[:, 0], intervened_B=np.zeros(500, bool))
    told = estimate_bias(still).reason
    assert "changed_first" in told
    assert "send scores" not in told, "they were sent"
    assert "click" in estimate_bias(ClickLog.of([[0, 1]], click_B=[-1])).reason


def test_an_unmoved_log_of_a_good_ranker_is_unidentifiable_and_bounded_by_its_clicks() -> None:
    log = crowd_log(np.random.default_rng(5), 4000, crowd=Crowd(quality=0.95, changed=0.0))
    found = estimate_bias(log)
    assert found.method is BiasMethod.NONE
    rate = log.click_BK[:, 0].mean()
    assert (found.beta_low_K[0], rate < found.beta_high_K[0] < rate + 0.02) == (0.0, True)


def test_first_places_moved_for_reasons_untold_are_refused() -> None:
    log = crowd_log(np.random.default_rng(6), 4000, crowd=Crowd(quality=0.8))
    other = np.where(np.arange(4000) % 4 == 0, log.item_BK[:, 3], log.first_B)
    found = estimate_bias(replace(log, first_B=other, intervened_B=np.zeros(4000, bool)))
    assert found.method is BiasMethod.NONE
    assert "nothing says why" in found.reason
