"""The audit of a log as a whole."""

from dataclasses import replace
from math import isnan, log, sqrt

import numpy as np
import pytest

from dayjob.endings import FeedbackState
from dayjob.lab.bias import trust_log
from dayjob.lab.crowds import Crowd, crowd_log
from dayjob.signals.auditing import audit_log, needs
from dayjob.signals.bias import BiasMethod
from dayjob.signals.clicklog import ClickLog


def test_an_informative_log_tells_everything() -> None:
    rng = np.random.default_rng(0)
    logged = replace(crowd_log(rng, 4000, crowd=Crowd(quality=0.8)), user_B=rng.integers(50, size=4000))
    found = audit_log(logged, days=2.0)
    assert (found.decisions, found.impressions, found.clicks, found.items) == (4000, 40_000, 4000, 40_000)
    assert (found.users, found.per_day) == (50, 2000)
    assert found.feedback.state is FeedbackState.INFORMATIVE
    assert found.bias.method is BiasMethod.CHOICE
    assert [n.days * 2000 for n in found.needs] == pytest.approx([n.decisions for n in found.needs])


def test_needs_by_hand() -> None:
    logged = crowd_log(np.random.default_rng(1), 4000, crowd=Crowd(quality=0.8))
    found = audit_log(logged, per_day=100.0)
    rate = logged.click_BK.mean(axis=0)
    variance = rate[0] + rate[1] - (found.bias.beta_K[0] - found.bias.beta_K[1]) ** 2
    seen = 0.05 * found.bias.alpha_K[0]
    expected = variance / seen**2 * (sqrt(2 * log(20)) + 0.84) ** 2 / 0.5
    middle = found.needs[1]
    assert (middle.effect, middle.seen) == (0.05, pytest.approx(seen))
    assert middle.decisions == pytest.approx(expected, rel=1e-3)
    assert middle.days == pytest.approx(expected / 100, rel=1e-3)


def test_blind_clicks_need_no_number_that_could_be_had() -> None:
    logged = crowd_log(np.random.default_rng(2), 2000, crowd=Crowd(blind=1.0))
    found = audit_log(logged, days=1.0)
    assert found.feedback.state is FeedbackState.UNINFORMATIVE
    assert all(isnan(n.decisions) for n in found.needs)
    assert all(isnan(n.decisions) for n in needs(logged, found.bias, found=found.feedback, per_day=10.0))


def test_repeating_items_without_scores_are_seen_to_be_informative() -> None:
    found = audit_log(trust_log(np.random.default_rng(3), sessions=6000))
    assert found.feedback.state is FeedbackState.INFORMATIVE
    assert found.bias.method is BiasMethod.ITEMS


def test_an_empty_log_is_refused() -> None:
    with pytest.raises(ValueError, match="no decision"):
        audit_log(ClickLog.of(np.zeros((0, 3), np.int64), click_B=np.zeros(0, np.int64)))
