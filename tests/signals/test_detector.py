"""The states: what is said of position-only users, honest ones, and a few who look; over many seeds."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from dayjob.endings import FeedbackState
from dayjob.lab.bias import FIRST, GENTLE, SLIPPING, STEEP, Crowd, crowd_log, detector_study
from dayjob.signals.clicklog import ClickLog
from dayjob.signals.detector import feedback

SEEDS = range(30)


def states(crowd: Crowd, decisions: int = 2000) -> Counter[FeedbackState]:
    return Counter(feedback(crowd_log(np.random.default_rng(s), decisions, crowd=crowd)).state for s in SEEDS)


@pytest.mark.parametrize(("pattern", "least"), [(FIRST, 30), (STEEP, 25), (GENTLE, 25), (SLIPPING, 18)])
def test_any_position_pattern_is_uninformative_within_two_thousand(pattern: tuple[float, ...], least: int) -> None:
    found = states(Crowd(blind=1.0, pattern=pattern))
    assert found[FeedbackState.UNINFORMATIVE] >= least
    assert found[FeedbackState.INFORMATIVE] <= 2


def test_it_stays_silent_where_a_good_ranker_earns_its_clicks() -> None:
    crowd = Crowd(blind=0.0, quality=0.995, noise=0.02)
    log = crowd_log(np.random.default_rng(0), 2000, crowd=crowd)
    assert feedback(log).share_at[0] > 0.85
    assert states(crowd) == {FeedbackState.INFORMATIVE: len(SEEDS)}


@pytest.mark.parametrize("quality", [0.0, 0.5, 0.95])
def test_it_does_not_fire_while_five_per_cent_look(quality: float) -> None:
    found = states(Crowd(blind=0.95, quality=quality))
    assert found[FeedbackState.UNINFORMATIVE] <= 2
    if quality == 0.95:
        assert found[FeedbackState.INFORMATIVE] >= 20


def test_a_learned_score_finds_the_five_per_cent_whatever_the_ranker() -> None:
    study = detector_study(range(15), decisions=2000, crowd=Crowd(blind=0.95, quality=0.0), features=True)
    assert study["informative"] == 1.0


def test_two_thirds_at_position_one_are_informative_early() -> None:
    assert states(Crowd(), decisions=1000)[FeedbackState.INFORMATIVE] >= 28


def test_even_clicks_that_follow_nothing_are_not_called_position_only() -> None:
    found = states(Crowd(blind=0.0, quality=0.0))
    assert found[FeedbackState.UNINFORMATIVE] == 0


def test_without_randomisation_a_good_order_and_blind_users_look_alike() -> None:
    log = crowd_log(np.random.default_rng(1), 2000, crowd=Crowd(blind=1.0))
    found = feedback(replace(log, first_B=np.full(len(log), -1)))
    assert found.state is FeedbackState.UNIDENTIFIABLE
    assert "exploration" in found.reason


def test_too_few_says_how_many() -> None:
    log = crowd_log(np.random.default_rng(2), 100, crowd=Crowd())
    found = feedback(log)
    assert (found.state, found.needed, found.clicks) == (FeedbackState.TOO_FEW, 200, 100)
    assert sum(found.share_at) == pytest.approx(1.0)


def test_an_empty_log_and_one_without_clicks_are_too_few() -> None:
    empty = ClickLog.of(np.zeros((0, 3), np.int64), click_B=np.zeros(0, np.int64))
    assert feedback(empty).state is FeedbackState.TOO_FEW
    silent = ClickLog.of(np.arange(900).reshape(300, 3), click_B=np.full(300, -1))
    assert feedback(silent).state is FeedbackState.TOO_FEW
    assert feedback(silent).share_at == (0.0, 0.0, 0.0)


def test_five_per_cent_below_a_steep_pattern_come_out_with_time() -> None:
    """Not to be told at 2,000 decisions; by 20,000 a learned score tells."""
    crowd = Crowd(blind=0.95, pattern=STEEP)
    late = detector_study(range(2), decisions=20_000, crowd=crowd, features=True)
    assert late["informative"] == 1.0
