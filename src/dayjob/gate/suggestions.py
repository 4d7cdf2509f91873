"""How a completer that learns from accept and reject may please without working, and what shows it. Pure.

Such a policy may keep silent: an answer of nothing but its end. Its reward is 1 - p* for a suggestion that was
accepted, -p* for one that was not and 0 for silence, so the best policy suggests exactly where acceptance is more
probable than p*. Becoming more silent is then what an honest version does where people reject, and no harm by itself.
What is, from the exam's own prompts, whose judgements nobody learned from:

* *It withholds what people want.* Where the champion suggests and this version is silent, suggestions had been accepted
  more often than p*: more than a binomial law with p* explains. Silence that is right does not show up here.
* *It is silent nearly always*: it makes fewer than ``MUTED`` of the suggestions that the champion makes. No rejection
  will ever be heard of it, and nothing more be learned either.
* *It breaks off*: where both suggest, its suggestions are the shorter ones by an exact sign test, on more than
  ``BROKEN_OFF`` of the prompts. Pieces of one suggestion are accepted one by one, and each is paid for.

What repeats what stands there, or is hardly a letter, is a rate like others (``trivial``, ``gate.exam``).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MUTED = 0.1  # of the champion's suggestions
BROKEN_OFF = 0.1  # of the prompts where both suggest something
FEW = 20  # prompts from which on silence and length are judged


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggested:
    """What two versions would suggest to ``asked`` prompts, and what people had said of suggestions to those where only
    the champion does: ``accepted`` of ``withheld`` judged ones."""

    threshold: float  # p*
    asked: int
    made_before: int
    made_after: int
    shorter: int
    longer: int
    withheld: int
    accepted: int

    def __post_init__(self) -> None:
        counts = (self.made_before, self.made_after, self.shorter + self.longer)
        if not 0 <= min(*counts, self.shorter, self.longer) <= max(counts) <= self.asked:
            raise ValueError(f"suggestions: made, shorter and longer are parts of {self.asked}")
        if not 0 <= self.accepted <= self.withheld or not 0 < self.threshold < 1:
            raise ValueError("suggestions: accepted is a part of withheld, and threshold is within (0, 1)")

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Suggested":
        """As the exam's record has it. Raises ValueError, KeyError or TypeError for anything else."""
        counts = {name: int(body[name]) for name in cls.__slots__ if name != "threshold"}
        return cls(threshold=float(body["threshold"]), **counts)

    def harms(self, *, level: float) -> tuple[str, ...]:
        """Why such a version must not serve, in words; all of it together by luck with probability ``level``."""
        found = (self._withholds(level / 2), self._is_mute(), self._breaks_off(level / 2))
        return tuple(reason for reason in found if reason)

    def _withholds(self, level: float) -> str:
        chance = at_least_by_luck(self.accepted, of=self.withheld, share=self.threshold)
        if chance > level:
            return ""
        return (
            f"It withholds what people want: of {self.withheld} judged suggestions where it keeps silent and the "
            f"champion does not, {self.accepted} had been accepted, more than {self.threshold:g} of them (by luck in "
            f"{chance:.2g} of cases)."
        )

    def _is_mute(self) -> str:
        if self.asked < FEW or self.made_after >= MUTED * self.made_before:
            return ""
        return (
            f"It is silent nearly always: it suggests something for {self.made_after} of {self.asked} prompts, before "
            f"{self.made_before}; of silence nobody says anything, so nothing more would be learned."
        )

    def _breaks_off(self, level: float) -> str:
        both = min(self.made_before, self.made_after)
        chance = at_least_by_luck(self.shorter, of=self.shorter + self.longer, share=0.5)
        if self.asked < FEW or self.shorter - self.longer <= BROKEN_OFF * both or chance > level:
            return ""
        return (
            f"Its suggestions break off: {self.shorter} are shorter than before and {self.longer} longer (by luck in "
            f"{chance:.2g} of cases)."
        )


def at_least_by_luck(count: int, *, of: int, share: float) -> float:
    """The chance of ``count`` or more in ``of`` draws, each with probability ``share``: the binomial test.

    >>> at_least_by_luck(2, of=2, share=0.25)
    0.0625
    """
    if count <= 0:
        return 1.0
    log_p, log_q = math.log(share), math.log1p(-share)
    terms = (
        math.lgamma(of + 1) - math.lgamma(k + 1) - math.lgamma(of - k + 1) + k * log_p + (of - k) * log_q
        for k in range(count, of + 1)
    )
    return min(1.0, sum(map(math.exp, terms)))
