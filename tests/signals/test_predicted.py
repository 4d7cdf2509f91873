"""Clicks by position, foretold for lists that the model has not seen."""

from dataclasses import replace

import numpy as np
import pytest

from dayjob.lab.bias import trust_log
from dayjob.lab.crowds import Crowd, crowd_log
from dayjob.signals.bias import BiasMethod, estimate_bias
from dayjob.signals.clicklog import one_hot
from dayjob.signals.predicted import predicted


def test_a_model_foretells_new_lists_better_than_position_alone() -> None:
    log = crowd_log(np.random.default_rng(0), 4000, crowd=Crowd(blind=0.3, quality=0.6), features=True)
    bias = estimate_bias(log)
    assert bias.method is BiasMethod.CHOICE
    found = predicted(log, bias)
    assert found is not None
    assert found.lists == 1000
    assert found.observed_K == pytest.approx(log.click_BK[3000:].mean(axis=0))
    assert found.predicted_K == pytest.approx(found.observed_K, abs=0.03)
    assert found.perplexity < found.perplexity_by_position - 0.05


def test_what_changed_since_is_seen() -> None:
    """From list 3,000 on everybody clicks position 2: the model of the older lists did not foretell it."""
    log = crowd_log(np.random.default_rng(1), 4000, crowd=Crowd(blind=0.3, quality=0.6), features=True)
    click_B = np.where(np.arange(4000) >= 3000, 1, log.click_B)
    found = predicted(replace(log, click_BK=one_hot(click_B, log.item_BK.shape)), estimate_bias(log))
    assert found is not None
    assert found.observed_K[1] == 1.0
    assert found.predicted_K[1] < 0.3
    assert found.perplexity > 2.0


def test_by_items_too_and_not_without_a_model() -> None:
    log = trust_log(np.random.default_rng(2), sessions=4000, queries=50)
    bias = estimate_bias(log)
    assert bias.method is BiasMethod.ITEMS
    found = predicted(log, bias)
    assert found is not None
    assert found.predicted_K == pytest.approx(found.observed_K, abs=0.03)
    assert found.perplexity < found.perplexity_by_position
    assert predicted(log, replace(bias, method=BiasMethod.SWAP)) is None
