"""The trial: champion against challenger by fair-coin pairs, with no model of how people click.

Where champion and challenger differ in their first choice (a the champion's, b the challenger's), a fair coin puts one
at position 1 and the other at position 2; the rest follows in an order that does not depend on the coin. An outcome
becomes a ``value`` in [-stake, stake], positive in b's favour, and x = (value - h * stake * coin) / bound with h fixed
beforehand (``control``). H0: E[value | past] <= 0 at every judged decision, mean over the coin included.

What is assumed, by source of evidence
* ``from_clicks``: nothing but the fairness of the coin. Whatever positions do (pull, trust, attention, drifting as they
  like), they do it to a and to b alike: for P(click d at k) = alpha_k g_d + beta_k the mean of c_b - c_a is
  (alpha_1 + alpha_2)/2 * (g_b - g_a). Clicks further down count 0.
* ``from_rewards``: nothing. The mean of coin * (2 r - 1) is E[r | b first] - E[r | a first], r scaled to [0, 1].
* ``from_truth``: that the truth reported is true.

Observations enter in the order of the decisions, each once, when all before it are closed: whether and when an outcome
arrives must not choose what is judged. Decisions where both choose the same first item say nothing and are left out.
"""

from collections.abc import Set
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dayjob.endings import Invalid
from dayjob.gate import confidence
from dayjob.gate.confidence import Evidence, Floats
from dayjob.gate.control import ANONYMOUS, RETURNED, Ints, Past, plan, settle
from dayjob.gate.verdict import Grounds

BOUND = 2.0  # |value| <= 1 and |h * stake| <= 1
USER_SLOTS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """N judged decisions in order. ``low_N <= value <= high_N``; ``user_N`` -1 is anonymous; coin +1: b stood first."""

    low_N: Floats
    high_N: Floats
    coin_N: Ints
    stake_N: Floats
    user_N: Ints

    def __post_init__(self) -> None:
        sizes = {len(column) for column in (self.low_N, self.high_N, self.coin_N, self.stake_N, self.user_N)}
        if len(sizes) != 1:
            raise Invalid("the columns of a batch of observations must be of one length")
        if not np.isin(self.coin_N, (-1, 1)).all():
            raise Invalid("coins are +1 or -1")
        if not ((self.stake_N >= 0) & (self.stake_N <= 1)).all():
            raise Invalid("stakes must lie in [0, 1]")


def from_clicks(clicked_N: npt.ArrayLike, coin_N: npt.ArrayLike, *, user_N: npt.ArrayLike) -> Observations:
    """``clicked_N``: +1 the challenger's item, -1 the champion's, 0 another or none."""
    clicked = _floats(clicked_N)
    if not np.isin(clicked, (-1.0, 0.0, 1.0)).all():
        raise Invalid("clicked must be +1 (challenger's item), -1 (champion's) or 0")
    return _observations(clicked, coin_N, stake_N=np.ones_like(clicked), user_N=user_N)


def from_rewards(reward_N: npt.ArrayLike, coin_N: npt.ArrayLike, *, user_N: npt.ArrayLike) -> Observations:
    """``reward_N`` of the whole answer, already scaled to [0, 1] by the policy's reward range."""
    reward = _floats(reward_N)
    if not ((reward >= 0) & (reward <= 1)).all():
        raise Invalid("scale rewards to [0, 1] by the policy's reward_range first")
    value = np.asarray(coin_N, dtype=np.float64) * (2.0 * reward - 1.0)
    return _observations(value, coin_N, stake_N=np.ones_like(value), user_N=user_N)


def from_truth(
    relevance_a_N: npt.ArrayLike, relevance_b_N: npt.ArrayLike, *, coin_N: npt.ArrayLike, user_N: npt.ArrayLike
) -> Observations:
    """Relevance in [0, 1] of the champion's and the challenger's first choice, from truth and not from clicks."""
    value = _floats(relevance_b_N) - _floats(relevance_a_N)
    if not (np.abs(value) <= 1).all():
        raise Invalid("relevances must lie in [0, 1]")
    return _observations(value, coin_N, stake_N=np.ones_like(value), user_N=user_N)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrialState:
    """Everything one trial remembers: constant evidence, and at most ``slots`` people.

    People live in a space-saving table (Metwally, Agrawal, El Abbadi 2005): when it is full, the one with the least
    weight makes room and the newcomer inherits that weight, so nobody ever exceeds the cap by being forgotten.
    """

    bound: float = BOUND
    slots: int = USER_SLOTS
    evidence: Evidence = field(default_factory=Evidence)
    pull: float = 0.0
    mass: float = 0.0
    people: float = 0.0
    loss_E: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    user_U: tuple[int, ...] = ()
    user_pull_U: tuple[float, ...] = ()
    user_mass_U: tuple[float, ...] = ()
    user_spent_U: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Numbers and lists of numbers only."""
        columns = ("loss_E", "user_U", "user_pull_U", "user_mass_U", "user_spent_U")
        plain: dict[str, Any] = {name: list(getattr(self, name)) for name in columns}
        plain |= {name: getattr(self, name) for name in ("bound", "slots", "pull", "mass", "people")}
        return plain | {"evidence": self.evidence.to_dict()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "TrialState":
        """The inverse of :meth:`to_dict`."""
        plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
        return cls(**plain | {"evidence": Evidence.from_dict(fields["evidence"])})


def forget(state: TrialState, gone: Set[int]) -> TrialState:
    """Without the entries of people who were erased; what their decisions said of everybody's mean stays.

    The weight that they had spent stays too, without a name: it is that of whoever comes back, all together, so that
    nobody gets a new voice by being erased.
    """
    rows = list(zip(state.user_U, state.user_pull_U, state.user_mass_U, state.user_spent_U, strict=True))
    spent = sum(row[3] for row in rows if row[0] in gone)
    if not any(row[0] in gone for row in rows):
        return state
    back = next((row for row in rows if row[0] == RETURNED), (RETURNED, 0.0, 0.0, 0.0))
    kept = [row for row in rows if row[0] not in gone and row[0] != RETURNED]
    kept.append((*back[:3], back[3] + spent))
    user_U, pull_U, mass_U, spent_U = zip(*kept, strict=True)
    return replace(state, user_U=user_U, user_pull_U=pull_U, user_mass_U=mass_U, user_spent_U=spent_U)


def renew(state: TrialState) -> TrialState:
    """No evidence, but all that the past says of positions and people: where the next trial or a watch may begin.

    Predictable, so it costs nothing in validity: the pull of position 1 does not depend on who is on trial.
    """
    fresh = (0.0,) * len(state.user_U)
    return replace(state, evidence=Evidence(), people=0.0, user_spent_U=fresh)


@dataclass(frozen=True, slots=True, kw_only=True)
class Residuals:
    """What is bet on: values less the pull, divided by the bound, in [-1, 1]; and the weight of each."""

    low_N: Floats
    high_N: Floats
    weight_N: Floats


def observe(state: TrialState, batch: Observations) -> TrialState:
    """The state after one more batch of judged decisions, in decision order; any split into batches is the same."""
    return residuals(state, batch)[0]


def residuals(state: TrialState, batch: Observations) -> tuple[TrialState, Residuals]:
    """:func:`observe`, and the residuals themselves for another test on the same stream (``watch``)."""
    low, high, weight = (np.empty(batch.coin_N.size) for _ in range(3))
    if batch.coin_N.size == 0:
        return state, Residuals(low_N=low, high_N=high, weight_N=weight)
    past, slot_of = _unpack(state)
    lean_N = batch.stake_N * batch.coin_N
    middle_N = (batch.low_N + batch.high_N) / 2
    for n, user in enumerate(batch.user_N.tolist()):
        slot = np.array([_slot(past, slot_of, user, state.slots)])
        made = plan(past, slot)
        offset = made.pull_R[0] * lean_N[n]
        low[n], high[n] = (batch.low_N[n] - offset) / state.bound, (batch.high_N[n] - offset) / state.bound
        weight[n] = made.weight_R[0]
        settle(past, made, slot_R=slot, value_R=middle_N[n : n + 1], lean_R=lean_N[n : n + 1])
    evidence = confidence.update(state.evidence, low, high_N=high, weight_N=weight)
    after = _pack(replace(state, evidence=evidence), past, slot_of)
    return after, Residuals(low_N=low, high_N=high, weight_N=weight)


def effect(state: TrialState, *, alpha: float) -> tuple[float, float, float]:
    """(mean, low, high) of the value per judged decision, valid at all times at level alpha; [-1, 1] when empty."""
    evidence = state.evidence
    low, high = confidence.interval(evidence, alpha=alpha)
    mean = (evidence.sum_low + evidence.sum_high) / 2 / evidence.weight if evidence.weight else 0.0
    return mean * state.bound, max(-1.0, low * state.bound), min(1.0, high * state.bound)


def _unpack(state: TrialState) -> tuple[Past, dict[int, int]]:
    past = Past.empty(1, state.slots)
    known = len(state.user_U)
    past.pull_R[0], past.mass_R[0], past.loss_RE[0] = state.pull, state.mass, state.loss_E
    past.total_R[0], past.people_R[0] = state.evidence.weight, state.people
    past.user_pull_RU[0, :known] = state.user_pull_U
    past.user_mass_RU[0, :known] = state.user_mass_U
    past.user_spent_RU[0, :known] = state.user_spent_U
    return past, {user: slot for slot, user in enumerate(state.user_U)}


def _pack(state: TrialState, past: Past, slot_of: dict[int, int]) -> TrialState:
    known = len(slot_of)
    return replace(
        state,
        pull=float(past.pull_R[0]),
        mass=float(past.mass_R[0]),
        people=float(past.people_R[0]),
        loss_E=tuple(past.loss_RE[0].tolist()),
        user_U=tuple(sorted(slot_of, key=slot_of.__getitem__)),
        user_pull_U=tuple(past.user_pull_RU[0, :known].tolist()),
        user_mass_U=tuple(past.user_mass_RU[0, :known].tolist()),
        user_spent_U=tuple(past.user_spent_RU[0, :known].tolist()),
    )


def _slot(past: Past, slot_of: dict[int, int], user: int, slots: int) -> int:
    """The person's row; a newcomer gets a free one, or that of whoever weighs least."""
    if user == ANONYMOUS:
        return ANONYMOUS
    if user in slot_of:
        return slot_of[user]
    if len(slot_of) < slots:
        slot = len(slot_of)
    else:
        slot = int(past.user_spent_RU[0, :slots].argmin())
        del slot_of[next(known for known, held in slot_of.items() if held == slot)]
        past.user_pull_RU[0, slot] = past.user_mass_RU[0, slot] = 0.0
    slot_of[user] = slot
    return slot


def _floats(values: npt.ArrayLike) -> Floats:
    array = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if not np.isfinite(array).all():
        raise Invalid("outcomes must be finite numbers")
    return array


def _observations(value_N: Floats, coin_N: npt.ArrayLike, *, stake_N: Floats, user_N: npt.ArrayLike) -> Observations:
    return Observations(
        low_N=value_N,
        high_N=value_N,
        coin_N=np.atleast_1d(np.asarray(coin_N, dtype=np.int64)),
        stake_N=stake_N,
        user_N=np.atleast_1d(np.asarray(user_N, dtype=np.int64)),
    )


def grounds(state: TrialState, *, closed: int, alpha: float) -> Grounds:
    """The trial in the verdict's words; ``closed`` counts all closed decisions since it began, judged or not."""
    mean, low, high = effect(state, alpha=alpha)
    evidence = state.evidence
    return Grounds(
        judged=evidence.count,
        closed=closed,
        effect=mean,
        low=low,
        high=high,
        variance=evidence.variance * state.bound**2,
        bound=state.bound,
        log_e_better=evidence.peak_up,
        log_e_now=evidence.log_e_up,
        log_e_worse=evidence.peak_down,
    )
