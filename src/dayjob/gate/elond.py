"""Many challengers in a row: e-LOND (Xu & Ramdas, AISTATS 2024).

Trial i is judged at level alpha_i = alpha * gamma_i * (promotions so far + 1), fixed when the trial begins, with
gamma_1 + gamma_2 + ... <= 1; it is promoted when its e-value reaches 1 / alpha_i. Then of all promotions ever, the
expected share that are not improvements is at most alpha, under any dependence between the trials: the e-values only
need expectation <= 1 for a challenger that is not better. A trial watched continuously uses (1/alpha_i) 1[peak >=
1/alpha_i], which is such an e-value by Ville's inequality.

alpha itself may change between trials. With a_i in the place of alpha, known when trial i begins: a false promotion i
adds at most 1 / (promotions so far + 1) <= a_i gamma_i E_i to the false share of promotions, whose expectation is
therefore at most a_1 gamma_1 + a_2 gamma_2 + ... <= the largest a_i. So a lower alpha binds what comes after it, and
promotions made before were made at theirs. Only a trial in progress must not be given another level: it ends.

A trial that is abandoned (its challenger learned from somebody since erased, the champion was rolled back, ...) has not
used up its level: it hands the level on with the wealth that is left, at most all of it. Trial i is then a row of
challengers one after the other. Wealth min(e, 1) at the change, multiplied by the next one's e-process, is a
supermartingale for as long as the one on trial is not better, whatever the reason for the change and whatever was seen
before; so the row promotes one that is not better with probability at most alpha_i, which is what was used above. One
whose evidence had reached its mark, and was not promoted for another reason, has used its level.
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from dayjob.endings import Invalid

# gamma_i = i^-EXPONENT / zeta(EXPONENT): 44 % of the budget on the first trial, and the tenth still gets 1.1 %.
EXPONENT = 1.6
_ZETA = 2.285765679


@dataclass(frozen=True, slots=True, kw_only=True)
class Elond:
    """Budget of a policy: trials decided and promotions among them.

    Example: ``Elond(alpha=0.05).level`` is the level of the first trial, 0.0219; after ten trials with three
    promotions the eleventh has 0.0019.
    """

    alpha: float
    decided: int = 0
    promoted: int = 0
    left: float = 1.0  # of the running trial's level, after challengers that were abandoned

    def __post_init__(self) -> None:
        if not 0.0 < self.alpha < 1.0:
            raise Invalid("alpha must lie strictly between 0 and 1", param="alpha")
        if not 0 <= self.promoted <= self.decided:
            raise Invalid("promotions cannot exceed the trials decided")
        if not 0.0 <= self.left <= 1.0:
            raise Invalid("what is left of a level lies between 0 and 1")

    @property
    def level(self) -> float:
        """alpha_i of the trial that is running or comes next."""
        return self.alpha * gamma(self.decided + 1) * (self.promoted + 1) * self.left

    def decide(self, *, promoted: bool) -> "Elond":
        """The budget after a trial was decided."""
        return Elond(alpha=self.alpha, decided=self.decided + 1, promoted=self.promoted + int(promoted))

    def abandon(self, *, log_e: float, peak: float) -> "Elond":
        """The budget after a trial without a decision, whose log e-process is at ``log_e`` and has been at ``peak``.

        The level goes on with what is left of it, or is given up where the next one is larger.
        """
        spent = self.decide(promoted=False)
        if peak >= -math.log(self.level):
            return spent
        kept = replace(self, left=self.left * math.exp(min(log_e, 0.0)))
        return kept if kept.level >= spent.level else spent

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Elond":
        """The inverse of :meth:`to_dict`."""
        return cls(**fields)


def gamma(trial: int) -> float:
    """The share of the budget of the trial-th challenger, counted from 1. Sums to at most 1 over all trials."""
    if trial < 1:
        raise Invalid("trials are counted from 1")
    return float(trial**-EXPONENT) / _ZETA
