"""The states: what is said of position-only users, honest ones, and a few who look; over many seeds."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from dayjob.endings import FeedbackState
from dayjob.lab.bias_detector import detector_study
from dayjob.lab.crowds import CASCADE, EVEN_REST, FIRST, GENTLE, SLIPPING, STEEP, Crowd, crowd_log
from dayjob.signals.clicklog import ClickLog
from dayjob.signals.detector import feedback

SEEDS, MANY = range(10), range(30)


def states(crowd: Crowd, decisions: int = 2000, seeds: range = SEEDS) -> Counter[FeedbackState]:
    """Where the score is all that is known."""
    return Counter(feedback(crowd_log(np.random.default_rng(s), decisions, crowd=crowd)).state for s in seeds)


def test_everybody_clicking_the_first_place_is_uninformative_within_a_thousand_decisions() -> None:
    assert states(Crowd(blind=1.0), decisions=1000) == {FeedbackState.UNINFORMATIVE: len(SEEDS)}


@pytest.mark.parametrize("pattern", [FIRST, EVEN_REST, STEEP, GENTLE, CASCADE])
def test_any_position_pattern_is_uninformative_within_two_thousand_where_features_are_known(
    pattern: tuple[float, ...],
) -> None:
    """Most are; a tenth to a third wait for more decisions, since 5 % of lookers must not be missed either."""
    found = detector_study(range(4), crowd=Crowd(blind=1.0, pattern=pattern), features=True)
    assert found["within"] >= (1.0 if pattern == FIRST else 0.5)
    assert found["informative"] == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("pattern", [STEEP, GENTLE, SLIPPING])
def test_a_score_alone_seldom_tells_a_position_pattern_from_a_few_who_look(pattern: tuple[float, ...]) -> None:
    blind, looked = (states(Crowd(blind=share, pattern=pattern), seeds=MANY) for share in (1.0, 0.95))
    assert blind[FeedbackState.UNINFORMATIVE] >= 10
    assert blind[FeedbackState.INFORMATIVE] <= 2
    assert looked[FeedbackState.UNINFORMATIVE] <= 8


@pytest.mark.parametrize(
    ("pattern", "sure"), [(FIRST, 1.0), (EVEN_REST, 0.75), (STEEP, 0.75), (SLIPPING, 1.0), (CASCADE, 0.75)]
)
def test_five_per_cent_who_look_are_found_below_a_pattern_where_features_are_known(
    pattern: tuple[float, ...], sure: float
) -> None:
    found = detector_study(range(4), crowd=Crowd(blind=0.95, pattern=pattern), features=True, every=2000)
    assert found["uninformative"] == 0.0
    assert found["informative"] >= sure


@pytest.mark.slow
def test_over_many_seeds_it_seldom_errs() -> None:
    """The rates behind the few seeds of the tests around this one."""
    for quality in (0.0, 0.5, 0.95):
        assert states(Crowd(blind=0.95, quality=quality), seeds=MANY)[FeedbackState.UNINFORMATIVE] <= 2
    # Clicks that are spread evenly below the first hide a few who look best: `lab bias` has it in 9 of 100 runs.
    for pattern, sure, wrong in (
        (FIRST, 0.95, 0.0), (EVEN_REST, 0.5, 0.17), (STEEP, 0.75, 0.07), (SLIPPING, 0.95, 0.07), (CASCADE, 0.85, 0.07),
    ):  # fmt: skip
        blind = detector_study(MANY, crowd=Crowd(blind=1.0, pattern=pattern), features=True)
        assert (blind["within"] >= 0.7, blind["informative"] <= 0.1) == (True, True), blind
        found = detector_study(MANY, crowd=Crowd(blind=0.95, pattern=pattern), features=True, every=2000)
        assert (found["uninformative"] <= wrong, found["informative"] >= sure) == (True, True), found


def test_it_stays_silent_where_a_good_ranker_earns_its_clicks() -> None:
    crowd = Crowd(blind=0.0, quality=0.995, noise=0.02)
    log = crowd_log(np.random.default_rng(0), 2000, crowd=crowd)
    assert feedback(log).share_at[0] > 0.85
    assert states(crowd) == {FeedbackState.INFORMATIVE: len(SEEDS)}


@pytest.mark.parametrize("quality", [0.0, 0.5, 0.95])
def test_it_does_not_fire_while_five_per_cent_look(quality: float) -> None:
    found = states(Crowd(blind=0.95, quality=quality))
    assert found[FeedbackState.UNINFORMATIVE] <= 1
    if quality == 0.95:
        assert found[FeedbackState.INFORMATIVE] >= 6


def test_a_learned_score_finds_the_five_per_cent_whatever_the_ranker() -> None:
    study = detector_study(range(5), crowd=Crowd(blind=0.95, quality=0.0), features=True, every=2000)
    assert study["informative"] == 1.0


def test_two_thirds_at_position_one_are_informative_early() -> None:
    assert states(Crowd(), decisions=1000)[FeedbackState.INFORMATIVE] >= 9


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


def thumbs(rng: np.random.Generator, decisions: int, *, up: float, honest: float) -> ClickLog:
    """Nobody clicks; everybody gives a thumb for the first place: ``honest`` of them for what is best, others as they
    come."""
    log = crowd_log(rng, decisions, crowd=Crowd(blind=0.0, quality=0.5), features=True)
    best = log.feature_BKF.sum(axis=2).argmax(axis=1) == 0
    told = np.where(rng.random(decisions) < honest, best, rng.random(decisions) < up)
    return replace(log, click_BK=np.zeros_like(log.click_BK), reward_B=told.astype(np.float64))


def test_thumbs_up_for_everything_are_uninformative_within_two_thousand() -> None:
    for seed in range(5):
        found = feedback(thumbs(np.random.default_rng(seed), 2000, up=1.0, honest=0.0))
        assert found.state is FeedbackState.UNINFORMATIVE
        assert found.informative_share < 0.05
        assert "whatever stood first" in found.reason


@pytest.mark.parametrize(("up", "honest"), [(1.0, 0.1), (0.5, 1.0), (0.5, 0.5)])
def test_thumbs_that_follow_the_items_are_informative(up: float, honest: float) -> None:
    logs = [thumbs(np.random.default_rng(seed), 2000, up=up, honest=honest) for seed in range(5)]
    found = Counter(feedback(log).state for log in logs)
    assert found[FeedbackState.UNINFORMATIVE] == 0
    assert found[FeedbackState.INFORMATIVE] >= 4


def test_thumbs_at_random_are_never_called_informative_and_take_long() -> None:
    found = [feedback(thumbs(np.random.default_rng(seed), 2000, up=0.5, honest=0.0)) for seed in range(8)]
    assert sum(f.state is FeedbackState.INFORMATIVE for f in found) <= 1
    assert all(f.needed is None or f.needed > 2000 for f in found if f.state is FeedbackState.TOO_FEW)


def test_few_thumbs_and_thumbs_without_exploration_say_so() -> None:
    log = thumbs(np.random.default_rng(0), 2000, up=1.0, honest=0.0)
    assert feedback(log.rows(slice(0, 100))).state is FeedbackState.TOO_FEW
    assert feedback(replace(log, first_B=np.full(2000, -1))).state is FeedbackState.UNIDENTIFIABLE
