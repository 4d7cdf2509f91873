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
"""

from dataclasses import asdict, dataclass
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

    def __post_init__(self) -> None:
        if not 0.0 < self.alpha < 1.0:
            raise Invalid("alpha must lie strictly between 0 and 1", param="alpha")
        if not 0 <= self.promoted <= self.decided:
            raise Invalid("promotions cannot exceed the trials decided")

    @property
    def level(self) -> float:
        """alpha_i of the trial that is running or comes next."""
        return self.alpha * gamma(self.decided + 1) * (self.promoted + 1)

    def decide(self, *, promoted: bool) -> "Elond":
        """The budget after a trial ended, however it ended (an abandoned trial has used its level too)."""
        return Elond(alpha=self.alpha, decided=self.decided + 1, promoted=self.promoted + int(promoted))

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
