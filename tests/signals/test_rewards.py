"""Rewards and thumbs as numbers in [0, 1]."""

import pytest

from dayjob.endings import OutcomeKind
from dayjob.records import Outcome
from dayjob.signals.rewards import RewardRange, scaled


def outcome(kind: OutcomeKind, value: object) -> Outcome:
    return Outcome(
        tenant="default", id="o", body_digest=b"", policy="p", decision="d", session=None, kind=kind, item=None,
        position=None, value=value, text=None, source="human", user=None, at_ms=0, received_ms=0, key_id="",
    )  # fmt: skip


def test_rewards_are_scaled_by_the_range_and_thumbs_are_one_or_nothing() -> None:
    wide = RewardRange.of({"reward_range": [-1, 3]})
    assert scaled(outcome(OutcomeKind.REWARD, 1), wide) == 0.5
    assert scaled(outcome(OutcomeKind.REWARD, 9), wide) == 1.0  # the range was narrowed after it was given
    assert [scaled(outcome(OutcomeKind.THUMB, value), wide) for value in (1, -1)] == [1.0, 0.0]
    assert scaled(outcome(OutcomeKind.CLICK, None), wide) is None
    assert RewardRange.of({}) == RewardRange(low=0.0, high=1.0)


def test_an_empty_range_is_refused() -> None:
    with pytest.raises(ValueError, match="must be the larger"):
        RewardRange(low=1.0, high=1.0)
