"""Imagined users click as the model says they do, on every logged list alike, and only where clicks can be imagined."""

import re

import numpy as np
import pytest

from dayjob.dream.rankers import Users, imagine, refusal
from dayjob.endings import Invalid

MANY = 60_000
LISTS = np.array([[0, 1, 2], [2, 0, -1]], np.int16)


def users(**changed):
    belief_BK = np.array([[0.7, 0.2, 0.1], [0.0, 0.5, 0.5]])
    return Users(**({"pull": 0.5, "pull_at_K": np.log([0.8, 0.1, 0.1]), "examined_K": np.zeros(3),
                     "belief_BK": belief_BK} | changed))  # fmt: skip


def clicked_slot(found):
    return found.shown_NK[np.arange(len(found.click_N)), found.click_N]


def test_choices_follow_the_belief_wherever_a_thing_stands():
    found = imagine(users(pull=0.0), LISTS, count=MANY, seed=1)
    first = clicked_slot(found)[found.source_N == 0]
    assert np.bincount(first, minlength=3) / len(first) == pytest.approx([0.7, 0.2, 0.1], abs=0.01)
    assert set(clicked_slot(found)[found.source_N == 1]) == {2}, "of a belief of 0 nothing is chosen"


def test_pulled_clicks_follow_the_position_and_examination_weighs_choices():
    pulled = imagine(users(pull=1.0), LISTS, count=MANY, seed=2)
    first, second = (pulled.click_N[pulled.source_N == one] for one in (0, 1))
    assert np.bincount(first) / len(first) == pytest.approx([0.8, 0.1, 0.1], abs=0.01)
    assert np.bincount(second) / len(second) == pytest.approx([8 / 9, 1 / 9], abs=0.01)  # two places were shown

    # Nobody chooses below the first place but half as readily: of .7, .2 and .1 in their own places
    # .7 / (.7 + .1 + .05) chooses slot 0.
    looked = imagine(users(pull=0.0, examined_K=np.log([1.0, 0.5, 0.5])), LISTS, count=MANY, seed=3)
    plain = (looked.source_N == 0) & (looked.shown_NK[:, 0] == 0)
    assert (clicked_slot(looked)[plain] == 0).mean() == pytest.approx(0.7 / 0.85, abs=0.01)


def test_half_of_the_pull_and_half_of_the_choice():
    found = imagine(users(), LISTS, count=MANY, seed=4)
    plain = (found.source_N == 0) & (found.shown_NK[:, 0] == 0)
    assert (found.click_N[plain] == 0).mean() == pytest.approx(0.5 * 0.8 + 0.5 * 0.7, abs=0.01)


def test_lists_are_used_alike_and_their_first_places_are_drawn_with_the_said_probability():
    found = imagine(users(), LISTS, count=MANY + 1, seed=5)
    assert sorted(np.bincount(found.source_N)) == [MANY // 2, MANY // 2 + 1]
    whole = found.source_N == 0
    own = found.shown_NK[whole, 0] == 0
    assert own.mean() == pytest.approx(2 / 3, abs=0.01)  # one half, and a third of the other
    assert np.unique(found.propensity_NK[whole, 0][own]) == pytest.approx(2 / 3)
    assert np.unique(found.propensity_NK[whole, 0][~own]) == pytest.approx(1 / 6)
    assert (found.propensity_NK[:, 1:] == 1).all()
    assert (np.sort(found.shown_NK[whole], axis=1) == [0, 1, 2]).all()
    short = found.shown_NK[~whole]
    own = short[:, 0] == 2
    assert np.unique(found.propensity_NK[~whole, 0][own]) == pytest.approx(3 / 4)  # of two, not of three
    assert np.unique(found.propensity_NK[~whole, 0][~own]) == pytest.approx(1 / 4)
    assert (np.sort(short, axis=1) == [-1, 0, 2]).all()
    assert (short[:, 2] == -1).all()
    assert (clicked_slot(found) >= 0).all()


def test_equal_seeds_imagine_equal_users():
    one, same, other = (imagine(users(), LISTS, count=50, seed=seed) for seed in (7, 7, 8))
    assert (one.click_N == same.click_N).all()
    assert (one.shown_NK == same.shown_NK).all()
    assert (one.click_N != other.click_N).any()
    assert len(imagine(users(), LISTS, count=0, seed=7).click_N) == 0


def test_what_it_refuses():
    with pytest.raises(Invalid, match="one item or more"):
        imagine(users(), np.array([[-1, -1, -1]], np.int16), count=1, seed=0)
    with pytest.raises(Invalid, match="a probability"):
        users(pull=1.5)


@pytest.mark.parametrize(
    ("report", "told"),
    [
        ({}, "nobody has looked"),
        ({"feedback": {"state": "uninformative", "reason": "clicks go by position"}}, "are uninformative.*by position"),
        ({"feedback": {"state": "unidentifiable", "reason": "nothing was randomised"}}, "are unidentifiable"),
        (
            {"feedback": {"state": "informative", "reason": "r"}, "bias": {"method": "swap", "reason": "only a bound"}},
            "not identified.*only a bound",
        ),
        ({"feedback": {"state": "informative", "reason": "r"}, "bias": {}}, "not identified.*no estimate"),
    ],
)
def test_users_are_not_invented(report, told):
    assert re.search(told, refusal(report) or "")


def test_identified_clicks_are_something_to_imagine_from():
    for method in ("items", "choice"):
        assert refusal({"feedback": {"state": "informative", "reason": "r"}, "bias": {"method": method}}) is None
