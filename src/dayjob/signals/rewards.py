"""Rewards and thumbs as numbers in [0, 1]: one rule for whoever learns from them and whoever reports on them."""

from dataclasses import dataclass

from dayjob.endings import OutcomeKind
from dayjob.records import Json, Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardRange:
    """The policy's ``reward_range``. Raises ValueError when it is empty.

    >>> RewardRange(low=-1, high=3).scale(1)
    0.5
    """

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.high > self.low:
            raise ValueError(f"reward_range [{self.low}, {self.high}] is empty; its second number must be the larger.")

    @staticmethod
    def of(spec: Json) -> "RewardRange":
        """That of a policy as declared."""
        low, high = spec.get("reward_range", (0.0, 1.0))
        return RewardRange(low=float(low), high=float(high))

    def scale(self, value: float) -> float:
        """``value`` in [0, 1]; what a later, narrower range left outside counts as its end."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


def scaled(outcome: Outcome, reward_range: RewardRange) -> float | None:
    """A reward by its range, a thumb as 1 (up) or 0 (down); None for every other kind."""
    if outcome.kind is OutcomeKind.REWARD:
        return reward_range.scale(float(outcome.value))
    if outcome.kind is OutcomeKind.THUMB:
        return 1.0 if outcome.value > 0 else 0.0
    return None
