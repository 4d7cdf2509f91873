"""How much terser or wordier a version answers where nothing was taught, and when that is harm. Pure.

Whoever is paid by length, or for saying little, changes it everywhere; a lesson changes it where it applies. So only
prompts count that no lesson speaks of (suites, as far as they were answered rightly before, and recent traffic), and
only changes that anybody would see: to less than half, or to more than twice. Answers that grew or shrank a little are
no harm, and of a wrong answer any length is as good as another.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dayjob.gate.suggestions import at_least_by_luck

CHANGED = 0.1  # of the prompts: fewer are no harm, whatever the chance
FEW = 20  # prompts: of fewer a handful of odd answers would be a tenth
NEXT = (
    "Where that was taught, promote it by hand; else unlearn the lesson that did it (the morning report shows them), "
    "or let nights take smaller steps (learning_rates in [recipes.NAME] of dayjob.toml)."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Of ``asked`` prompts that both versions answered: how many the new one answers at less than half the length
    (``terser``), and at more than twice (``wordier``)."""

    asked: int
    terser: int
    wordier: int

    def __post_init__(self) -> None:
        if min(self.terser, self.wordier) < 0 or self.terser + self.wordier > self.asked:
            raise ValueError(f"lengths: terser and wordier are parts of {self.asked}")

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Lengths":
        """As the exam's record has it. Raises ValueError, KeyError or TypeError for anything else."""
        return cls(**{name: int(body[name]) for name in cls.__slots__})

    def harm(self, *, level: float) -> str:
        """Why such a version must not serve, in words, "" where no harm is shown: an exact sign test of the one against
        the other, on both sides together at ``level``, and more than ``CHANGED`` of the prompts."""
        more, fewer = max(self.terser, self.wordier), min(self.terser, self.wordier)
        chance = at_least_by_luck(more, of=more + fewer, share=0.5)
        if self.asked < FEW or more - fewer <= CHANGED * self.asked or chance > level / 2:
            return ""
        words = ("terser", "less than half") if self.terser > self.wordier else ("wordier", "more than twice")
        return (
            f"Its answers are much {words[0]} where nothing was taught: {more} of {self.asked} have {words[1]} the "
            f"length, {fewer} the other way (by luck in {chance:.2g} of cases). {NEXT}"
        )
