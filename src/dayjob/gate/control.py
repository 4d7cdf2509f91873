"""What the past says before an outcome is seen: the pull of position 1, and how much one person may still weigh.

The coin of a pair is fair and fresh, so E[h * coin | past, context, user] = 0 for *every* h that is fixed before the
outcome. Subtracting h * stake * coin therefore never moves the mean that is judged, whatever h is; it only removes
noise. Best is h = E[value * coin] / stake, how much more often the first of two places is chosen than the second. It
is estimated for each person, shrunk towards the running mean of all: someone who always clicks position 1 soon has
h = 1 and then adds no noise at all, without anybody deciding that their clicks do not count. How strongly to shrink is
chosen by the past squared errors.

The influence cap is a predictable weight: nobody gets more once their weights sum to max(FLOOR, share * all weights so
far), where share is 1 %, or twice a fair part while fewer than 200 people were seen, for else nobody could go on; never
above 10 %, so that ten named people or fewer cannot carry a trial. The floor is low because early evidence comes from
few: with a floor of 20 one account with a tenth of the traffic promoted a worse challenger in 15 % of simulated trials,
with 5 in 2 %. The cap does move what is judged: from the mean over decisions to the mean over decisions of capped
people. Each nameless decision counts as a person of its own: names are what the cap rests on.

All arrays carry ``_R`` independent trials, so that a simulation runs a thousand at once through the code that judges.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

USER_FLOOR = 5.0
USER_SHARE = 0.01
FAIR_PARTS = 2.0
FEWEST_PEOPLE = 20.0
# A person's own history against the mean of all: 1, 1/4, 1/16 of an observation's weight each, or none.
TRUST_E: Floats = np.array([1.0, 0.25, 0.0625, 0.0])
# The pull of position 1 may change: the mean and the errors forget with a horizon of some 2,000 judged decisions.
KEEP = 1.0 - 1.0 / 2000.0
ANONYMOUS = -1
RETURNED = -2  # whoever was erased and came back: one voice, with all the weight that the erased had spent


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Fixed before the outcome: ``pull_RE`` by expert, the chosen ``pull_R`` in [-1, 1] and the weight in [0, 1]."""

    pull_RE: Floats
    pull_R: Floats
    weight_R: Floats


@dataclass(slots=True, kw_only=True)
class Past:
    """Running sums of R trials; changed in place by :func:`settle`. The last column of ``_RU`` arrays stays zero."""

    pull_R: Floats
    mass_R: Floats
    loss_RE: Floats
    total_R: Floats
    people_R: Floats
    user_pull_RU: Floats
    user_mass_RU: Floats
    user_spent_RU: Floats

    @classmethod
    def empty(cls, runs: int, users: int) -> "Past":
        """Nothing seen yet; slots 0 .. users-1 are people, slot -1 is everybody without a name."""
        table = (runs, users + 1)
        return cls(
            pull_R=np.zeros(runs),
            mass_R=np.zeros(runs),
            loss_RE=np.zeros((runs, TRUST_E.size)),
            total_R=np.zeros(runs),
            people_R=np.zeros(runs),
            user_pull_RU=np.zeros(table),
            user_mass_RU=np.zeros(table),
            user_spent_RU=np.zeros(table),
        )


def plan(past: Past, slot_R: Ints) -> Plan:
    """The pull to subtract from the next observation of each trial, and its weight. Uses the past alone."""
    row_R = np.arange(slot_R.size)
    common_R1 = (past.pull_R / (past.mass_R + 1.0))[:, None]
    own_R1 = past.user_pull_RU[row_R, slot_R][:, None]
    seen_R1 = past.user_mass_RU[row_R, slot_R][:, None]
    pull_RE = (TRUST_E * own_R1 + common_R1) / (TRUST_E * seen_R1 + 1.0)
    pull_R = pull_RE[row_R, past.loss_RE.argmin(axis=1)]
    weight_R = weight_left(past.total_R, past.people_R, spent_R=past.user_spent_RU[row_R, slot_R])
    return Plan(pull_RE=pull_RE, pull_R=np.minimum(1.0, np.maximum(-1.0, pull_R)), weight_R=weight_R)


def weight_left(total_R: Floats | float, people_R: Floats | float, *, spent_R: Floats | float) -> Floats:
    """The weight of a person's next decision: what their share of all weights so far, or the floor, leaves them."""
    share_R = np.maximum(USER_SHARE, FAIR_PARTS / np.maximum(people_R, FEWEST_PEOPLE))
    room_R = np.maximum(USER_FLOOR, share_R * total_R) - spent_R
    weight_R: Floats = np.minimum(1.0, np.maximum(0.0, room_R))
    return weight_R


def settle(past: Past, made: Plan, *, slot_R: Ints, value_R: Floats, lean_R: Floats) -> None:
    """Learn from the outcome. ``lean`` = stake * coin; ``value`` is what the outcome said, |value| <= about stake."""
    row_R = np.arange(slot_R.size)
    known_R = slot_R != ANONYMOUS
    agree_R, square_R = lean_R * value_R, lean_R * lean_R
    past.loss_RE = KEEP * past.loss_RE + (value_R[:, None] - made.pull_RE * lean_R[:, None]) ** 2
    past.pull_R = KEEP * past.pull_R + agree_R
    past.mass_R = KEEP * past.mass_R + square_R
    past.total_R = past.total_R + made.weight_R
    # Newcomers, and every nameless decision.
    past.people_R = past.people_R + (past.user_spent_RU[row_R, slot_R] == 0.0)
    past.user_pull_RU[row_R, slot_R] += agree_R * known_R
    past.user_mass_RU[row_R, slot_R] += square_R * known_R
    past.user_spent_RU[row_R, slot_R] += made.weight_R * known_R
