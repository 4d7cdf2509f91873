"""The one input: shapes are checked, rows are taken whole, and what exploration changed is known."""

from dataclasses import replace

import numpy as np
import pytest

from dayjob.signals.clicklog import ClickLog, one_hot


def test_positions_and_marks_say_the_same() -> None:
    items = [[5, 6, 7], [6, 5, -1]]
    by_position = ClickLog.of(items, click_B=[2, -1])
    by_mark = ClickLog.of(items, click_BK=[[0, 0, 1], [0, 0, 0]])
    assert by_position.click_BK.tolist() == by_mark.click_BK.tolist()
    assert by_mark.click_B.tolist() == [2, -1]
    assert by_mark.shown_BK.tolist() == [[True, True, True], [True, True, False]]


def test_the_topmost_click_is_the_click_of_a_list_with_several() -> None:
    log = ClickLog.of([[1, 2, 3]], click_BK=[[0, 1, 1]])
    assert log.click_B.tolist() == [1]
    assert not log.single


def test_changed_needs_a_known_first_choice() -> None:
    log = replace(ClickLog.of([[1, 2], [2, 1], [2, 1]], click_B=[0, 0, 0]), first_B=np.array([1, 1, -1]))
    assert log.changed_B.tolist() == [False, True, False]


def test_rows_take_every_field() -> None:
    log = replace(ClickLog.of([[1, 2], [3, 4]], click_B=[0, 1], user_B=[8, 9]), truth_B=np.array([1, 0]))
    second = log.rows(np.array([1]))
    assert (second.item_BK.tolist(), second.user_B.tolist(), second.truth_B.tolist()) == ([[3, 4]], [9], [0])
    assert second.click_B.tolist() == [1]


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"click_B": [0]}, "click_B has shape"),
        ({"click_B": [2, 0]}, "positions are 0 to 1"),
        ({"click_B": [-2, 0]}, "-1 for no click"),
        ({}, "exactly one of"),
        ({"click_BK": [[0, 0], [0, 1]]}, "nothing was shown"),
        ({"click_B": [0, 0], "score_BK": [[1.0], [2.0]]}, "score_BK has shape"),
        ({"click_B": [0, 0], "user_B": [1]}, "user_B has shape"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_remedy(fields: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        ClickLog.of([[1, 2], [3, -1]], **fields)  # type: ignore[arg-type]


def test_one_hot_of_nothing_is_empty() -> None:
    assert one_hot([-1, -1], (2, 3)).sum() == 0
