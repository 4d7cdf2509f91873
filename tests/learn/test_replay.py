"""Replay: slots and positions, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest

from dayjob.learn.replay import concatenate


def test_clicked_slot_and_position_by_hand(world):
    one = world(1).replay
    shown = np.array([[4, 0, 5, -1, -1, -1]], np.int16)
    replay = replace(one, shown_BK=shown, click_B=np.array([2], np.int16)).check()
    assert replay.clicked_slot_B.tolist() == [5]
    assert replay.position_BK.tolist() == [[1, -1, -1, -1, 0, 2]]
    assert replace(replay, click_B=np.array([-1], np.int16)).clicked_slot_B.tolist() == [-1]


def test_rows_and_concatenate_are_inverse(world):
    replay = world(10).replay
    joined = concatenate([replay.rows(slice(0, 4)), replay.rows(np.arange(4, 10))])
    for name in ("context_BD", "candidate_BK", "click_B", "loss_BKK"):
        assert (getattr(joined, name) == getattr(replay, name)).all()
    assert joined.vector_VE is replay.vector_VE


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"click_B": np.full(10, 6, np.int16)}, "click_B"),
        ({"candidate_BK": np.full((10, 6), 400, np.int32)}, "candidate_BK"),
        ({"base_BK": np.full((10, 6), np.nan, np.float32)}, "base_BK"),
        ({"truth_B": np.zeros(9, np.int16)}, "truth_B"),
        ({"shown_BK": np.full((10, 6), -1, np.int16), "click_B": np.zeros(10, np.int16)}, "nothing was shown"),
    ],
)
def test_a_malformed_replay_is_refused_by_name(world, change, named):
    with pytest.raises(ValueError, match=named):
        replace(world(10).replay, **change).check()


def test_replays_of_other_vectors_cannot_be_joined(world):
    with pytest.raises(ValueError, match="share their candidate vectors"):
        concatenate([world(3).replay, world(4).replay])
