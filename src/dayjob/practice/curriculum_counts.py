"""What is known of a task from the rewards of attempts at it: fading counts, and the information in an attempt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import log2
from statistics import pvariance

from dayjob.signals.intervals import wilson

PASSED = 1 - 1e-9
MOST_OUTCOMES = 64  # different ones that are told apart; the rarest gives way


@dataclass(slots=True, kw_only=True)
class Counts:
    """Passes and failures at a task. Everything but ``attempts`` and ``in_vain`` fades."""

    good: float = 0.0
    bad: float = 0.0
    spread: float = 0.0  # the variance of rewards within a group of attempts, averaged
    attempts: int = 0  # all that ever were
    in_vain: int = 0  # attempts since one passed
    outcomes: dict[str, float] = field(default_factory=dict)  # rewards and parts to a tenth -> how often

    @property
    def total(self) -> float:
        return self.good + self.bad

    @property
    def rate(self) -> float:
        """The share that passed; 0 where nothing was tried."""
        return self.good / self.total if self.total else 0.0

    @property
    def entropy(self) -> float:
        """Of rewards and parts, in bits an attempt, from the counts as they are: too small while they are few."""
        total = sum(self.outcomes.values())
        return -sum(one / total * log2(one / total) for one in self.outcomes.values() if one > 0) if total else 0.0

    def faded(self, half_lives: float) -> Counts:
        """A copy in which everything counts less."""
        keep = 0.5**half_lives
        return Counts(
            good=self.good * keep, bad=self.bad * keep, spread=self.spread * keep,
            attempts=self.attempts, in_vain=self.in_vain,
            outcomes={name: one * keep for name, one in self.outcomes.items()},
        )  # fmt: skip

    def fade(self, half_lives: float) -> None:
        """Let everything count less."""
        other = self.faded(half_lives)
        self.good, self.bad, self.spread, self.outcomes = other.good, other.bad, other.spread, other.outcomes

    def add(self, rewards: Sequence[float], parts: Sequence[Mapping[str, float]], *, window: int) -> None:
        """A group of attempts; what was before counts less where more than ``window`` attempts would count in all."""
        count = len(rewards)
        keep = min(1.0, max(0.0, (window - count) / self.total)) if self.total else 1.0
        passed = sum(one >= PASSED for one in rewards)
        self.good, self.bad = self.good * keep + passed, self.bad * keep + count - passed
        weight = count / self.total
        self.spread += weight * (pvariance(rewards) - self.spread)
        self.attempts += count
        self.in_vain = 0 if passed else self.in_vain + count
        self.outcomes = {name: one * keep for name, one in self.outcomes.items()}
        for place, reward in enumerate(rewards):
            name = outcome_name(reward, parts[place] if parts else {})
            self.outcomes[name] = self.outcomes.get(name, 0.0) + 1
        kept = sorted(self.outcomes.items(), key=lambda one: (-one[1], one[0]))[:MOST_OUTCOMES]
        self.outcomes = dict(kept)

    def doubt(self) -> None:
        """Failures count a quarter, and the vain attempts are forgotten: something has changed since."""
        self.bad /= 4
        self.in_vain = 0

    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the pass rate, from the counts as they stand (JASA 22:209, 1927)."""
        return wilson(self.good, self.total)


def binary_entropy(rate: float) -> float:
    """Bits that one attempt tells when it passes with probability ``rate``.

    >>> binary_entropy(0.5), binary_entropy(0.0)
    (1.0, 0.0)
    """
    return -sum(p * log2(p) for p in (rate, 1 - rate) if p > 0)


def outcome_name(reward: float, parts: Mapping[str, float]) -> str:
    """Rewards and parts to a tenth, downwards, so that only what passed is 10.

    >>> outcome_name(0.56, {"form": 1.0})
    '5 form=10'
    """
    tenths = {name: int(value * 10 + 1e-9) for name, value in sorted(parts.items())}
    return " ".join([str(int(reward * 10 + 1e-9)), *(f"{name}={value}" for name, value in tenths.items())])
