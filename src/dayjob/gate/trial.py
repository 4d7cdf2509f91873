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
* ``from_losses`` without ``pull_bound_K``: nothing; clicks on a or b, weighed by how far apart a and b are (km).
  A choice that hedges (seldom the closest, never far off) gets no credit from it.
* ``from_losses`` with ``pull_bound_K``: a click on d further down also speaks, by L(a, d) - L(b, d). The coin does not
  protect those: someone who clicks position 5 unseen favours whichever of a and b lies nearer to what stands there.
  The most that a pull of at most pull_bound_k can add is subtracted. Assumed: the pulls are at most these bounds
  (``pull``), and the places below are examined no less than the first two (what is examined less speaks more softly,
  to the disadvantage of the hedger of the two).
* ``from_losses`` with ``rest_pull``: the same where the places below are shuffled uniformly, by a draw of their own.
  Then a blind click below hits each item alike, only the total pull of those places matters, and less is subtracted.

Observations enter in the order of the decisions, each once, when all before it are closed: whether and when an outcome
arrives must not choose what is judged. Decisions where both choose the same first item say nothing and are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from dayjob.endings import Invalid
from dayjob.gate import confidence
from dayjob.gate.confidence import Evidence, Floats
from dayjob.gate.control import ANONYMOUS, Ints, Past, plan, settle
from dayjob.gate.verdict import Grounds

Item = TypeVar("Item")

# |value| <= 1 and |h * stake| <= 1; with a subtracted pull, |value| <= 2.
BOUND = 2.0
BOUND_WITH_PULL = 3.0
USER_SLOTS = 4096


def pair(first_a: Item, first_b: Item, *, coin: int, rest_order: Sequence[Item]) -> list[Item]:
    """The list to show: b first when ``coin`` is +1, a first when it is -1, then ``rest_order`` without the two.

    ``rest_order`` must not depend on the coin. Raises Invalid when the two choices are the same item: nothing to judge.
    """
    if first_a == first_b:
        raise Invalid("champion and challenger choose the same first item: serve it without a pair")
    if coin not in (-1, 1):
        raise Invalid("the coin is +1 (challenger first) or -1 (champion first)")
    head = [first_b, first_a] if coin == 1 else [first_a, first_b]
    return head + [item for item in rest_order if item not in (first_a, first_b)]


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
    return _observations((clicked, clicked), coin_N, stake_N=np.ones_like(clicked), user_N=user_N)


def from_rewards(reward_N: npt.ArrayLike, coin_N: npt.ArrayLike, *, user_N: npt.ArrayLike) -> Observations:
    """``reward_N`` of the whole answer, already scaled to [0, 1] by the policy's reward range."""
    reward = _floats(reward_N)
    if not ((reward >= 0) & (reward <= 1)).all():
        raise Invalid("scale rewards to [0, 1] by the policy's reward_range first")
    value = np.asarray(coin_N, dtype=np.float64) * (2.0 * reward - 1.0)
    return _observations((value, value), coin_N, stake_N=np.ones_like(value), user_N=user_N)


def from_truth(
    relevance_a_N: npt.ArrayLike, relevance_b_N: npt.ArrayLike, *, coin_N: npt.ArrayLike, user_N: npt.ArrayLike
) -> Observations:
    """Relevance in [0, 1] of the champion's and the challenger's first choice, from truth and not from clicks."""
    value = _floats(relevance_b_N) - _floats(relevance_a_N)
    if not (np.abs(value) <= 1).all():
        raise Invalid("relevances must lie in [0, 1]")
    return _observations((value, value), coin_N, stake_N=np.ones_like(value), user_N=user_N)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """N pairs as shown: ``order_NK`` slot at each position (-1 filler), ``clicked_N`` 0-based position or -1.

    ``coin_N`` +1: the item at position 0 is the challenger's, the one at position 1 the champion's; -1: reversed.
    """

    order_NK: Ints
    clicked_N: Ints
    coin_N: Ints
    user_N: Ints


def from_losses(
    shown: Shown,
    loss_NKK: Floats,
    *,
    scale: float,
    pull_bound_K: npt.ArrayLike | None = None,
    rest_pull: float | None = None,
) -> Observations:
    """How much nearer the challenger's first choice is to what was clicked: (L(a, c) - L(b, c)) / scale.

    ``loss_NKK`` by slot: symmetric, zero on the diagonal, a metric (|L(a,c) - L(b,c)| <= L(a,b)). A pair further apart
    than ``scale`` counts as ``scale``, direction kept. Clicks below the pair count only with one of: ``pull_bound_K``,
    upper bounds of the chance that position k is clicked whatever stands there (entries 0 and 1 are not read), or
    ``rest_pull``, an upper bound of their sum where those places were shuffled. See the head of this file; with either,
    the state's bound must be ``BOUND_WITH_PULL``.
    """
    if pull_bound_K is not None and rest_pull is not None:
        raise Invalid("give pull_bound_K, or rest_pull where the places below were shuffled, not both")
    order = shown.order_NK
    row = np.arange(order.shape[0])
    b_first = shown.coin_N == 1
    slot_b = np.where(b_first, order[:, 0], order[:, 1])
    slot_a = np.where(b_first, order[:, 1], order[:, 0])
    if not np.isfinite(loss_NKK).all() or loss_NKK.min(initial=0.0) < 0 or scale <= 0:
        raise Invalid("losses must be finite and not negative, and scale positive")
    apart = loss_NKK[row, slot_a, slot_b]
    shrink = np.minimum(1.0, scale / np.maximum(apart, np.finfo(np.float64).tiny)) / scale
    stake = np.minimum(1.0, apart * shrink)
    favour_NK = (loss_NKK[row[:, None], slot_a[:, None], order] - loss_NKK[row[:, None], slot_b[:, None], order]) * (
        shrink[:, None] * (order >= 0)
    )
    if (np.abs(favour_NK) > stake[:, None] * (1 + 1e-6) + 1e-9).any():
        raise Invalid("the loss is not a metric: |L(a,c) - L(b,c)| must not exceed L(a,b)")
    favour_NK = np.clip(favour_NK, -stake[:, None], stake[:, None])
    clicked = shown.clicked_N
    below = pull_bound_K is not None or rest_pull is not None
    spoke = (clicked >= 0) & (below | (clicked < 2))
    value = np.where(spoke, favour_NK[row, np.maximum(clicked, 0)], 0.0)
    low = high = value
    if pull_bound_K is not None:
        pull_K = _pulls(pull_bound_K)
        low, high = value - np.maximum(favour_NK, 0.0) @ pull_K, value + np.maximum(-favour_NK, 0.0) @ pull_K
    if rest_pull is not None:
        total = float(_pulls([0.0, 0.0, rest_pull])[2])
        mean_N = favour_NK[:, 2:].sum(axis=1) / np.maximum(1, (order[:, 2:] >= 0).sum(axis=1))
        low, high = value - total * np.maximum(mean_N, 0.0), value + total * np.maximum(-mean_N, 0.0)
    return _observations((low, high), shown.coin_N, stake_N=stake, user_N=shown.user_N)


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


def renew(state: TrialState, *, bound: float | None = None) -> TrialState:
    """No evidence, but all that the past says of positions and people: where the next trial or a watch may begin.

    Predictable, so it costs nothing in validity: the pull of position 1 does not depend on who is on trial.
    """
    kept = state.bound if bound is None else bound
    fresh = (0.0,) * len(state.user_U)
    return replace(state, bound=kept, evidence=Evidence(), people=0.0, user_spent_U=fresh)


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


def _pulls(pull_bound_K: npt.ArrayLike) -> Floats:
    """The bounds of the places below the pair; the coin takes care of the first two."""
    pull_K = np.array(pull_bound_K, dtype=np.float64)
    pull_K[:2] = 0.0
    if not ((pull_K >= 0).all() and pull_K.sum() <= 1 + 1e-9):
        raise Invalid("pull bounds are chances: not negative, summing to at most 1")
    return pull_K


def _observations(
    value: tuple[Floats, Floats], coin_N: npt.ArrayLike, *, stake_N: Floats, user_N: npt.ArrayLike
) -> Observations:
    return Observations(
        low_N=value[0],
        high_N=value[1],
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
