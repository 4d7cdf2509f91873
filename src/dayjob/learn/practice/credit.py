"""Credit for turns: how much of what an episode earned does each of its turns deserve?

Numbers in, numbers out; a group is the attempts at one task. An episode has T turns and one reward at its end. Five
ways, the recipe's ``credit``:

- ``outcome``: the episode's advantage on every turn, by the group rule of :mod:`dayjob.learn.credit` (Dr. GRPO's by
  default). Unbiased, and noisier the longer the episode: a good turn of a lost episode is blamed.
- ``turns``: what is still to come from a turn on, less the mean of that over the group's attempts that *got as far*.
  Attempts that ended earlier are no standard for late turns.
- ``process``: the same where the environment says what a turn alone earned (`Turn.reward`), weighed against the
  episode's reward. What was earned before a turn does not count for it.
- ``value``: a baseline learned from turns (:mod:`dayjob.learn.practice.value`), credit by its differences: generalised
  advantage estimation (Schulman et al., ICLR 2016) with a turn as the step and no discount. A turn that makes success
  likelier is praised even if the episode is lost.
- ``hindsight``: the outcome's credit, spread over *tokens* by what the outcome says of them
  (:mod:`dayjob.learn.practice.hindsight`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from dayjob.learn.credit import F64, Credit, Integers, dr_grpo, grpo, maxrl, rloo
from dayjob.learn.practice.buffer import Group
from dayjob.learn.practice.recipe import PracticeRecipe
from dayjob.records import Trajectory

_RULES: Mapping[str, Callable[[F64, Integers], Credit]] = {
    "dr_grpo": dr_grpo, "grpo": grpo, "rloo": rloo, "maxrl": maxrl,
}  # fmt: skip
FULL = 1.0 - 1e-9  # a reward that leaves nothing to be won
_NOTHING = 1e-9  # the mean of equal numbers may differ from them by rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class Credited:
    """``advantage``: one list an episode, one number a turn; ``keep``: the episodes that count. ``stats`` to report:
    ``reward`` and ``pass`` (means), ``turns`` (an episode), ``groups``, ``groups_kept``, ``groups_solved``,
    ``groups_failed``, ``bits`` (what an episode's outcome says at most: the entropy of its group's pass rate)."""

    advantage: tuple[tuple[float, ...], ...]
    keep: tuple[bool, ...]
    stats: dict[str, float]


def credit_turns(
    groups: Sequence[Group], recipe: PracticeRecipe, *, values: Sequence[Sequence[float]] | None = None
) -> Credited:
    """Of every turn of every attempt, attempts in the order of their groups.

    ``values``: for credit ``value``, the baseline at each turn, as ``advantage``; None while none was learned yet, and
    then it is as with ``turns``.
    """
    episodes = [one for group in groups for one in group.attempts]
    place = np.repeat(np.arange(len(groups)), [len(group.attempts) for group in groups])
    reward_E = np.array([one.reward for one in episodes], np.float64)
    outcome = _RULES[recipe.baseline](reward_E, place)
    match recipe.credit:
        case "outcome" | "hindsight":
            found = [(one,) * len(e.turns) for one, e in zip(outcome.advantage_B.tolist(), episodes, strict=True)]
        case "value" if values is not None:
            found = [gae(one.reward, value, decay=recipe.gae) for one, value in zip(episodes, values, strict=True)]
        case "process":
            found = against_siblings([to_come(one, weight=recipe.process) for one in episodes], place)
        case _:
            found = against_siblings([to_come(one, weight=0.0) for one in episodes], place)
    if recipe.solved:
        solved = {number for number, group in enumerate(groups) if all(one.reward >= FULL for one in group.attempts)}
        found = [
            (recipe.solved,) * len(one) if group in solved else one
            for one, group in zip(found, place.tolist(), strict=True)
        ]
    # A group that nothing sets apart counts in no denominator either (learn.credit).
    telling = {group for one, group in zip(found, place.tolist(), strict=True) if any(abs(a) > _NOTHING for a in one)}
    return Credited(
        advantage=tuple(found),
        keep=tuple(group in telling for group in place.tolist()),
        stats=_stats(groups) | {"groups_kept": float(len(telling))},
    )


def to_come(one: Trajectory, *, weight: float) -> tuple[float, ...]:
    """Of each turn: the episode's reward and ``weight`` times what this turn and those after it earned."""
    earned = np.array([turn.reward for turn in one.turns], np.float64)
    return tuple((one.reward + weight * earned[::-1].cumsum()[::-1]).tolist())


def against_siblings(returns: Sequence[Sequence[float]], place: Sequence[int] | Integers) -> list[tuple[float, ...]]:
    """What came from each turn on, less the mean of the group's attempts that took a turn of this number. Alone there,
    an attempt deserves nothing."""
    sums: dict[tuple[int, int], tuple[float, int]] = {}
    for one, group in zip(returns, place, strict=True):
        for number, value in enumerate(one):
            total, count = sums.get((int(group), number), (0.0, 0))
            sums[int(group), number] = (total + value, count + 1)
    return [
        tuple(value - sums[int(group), number][0] / sums[int(group), number][1] for number, value in enumerate(one))
        for one, group in zip(returns, place, strict=True)
    ]


def gae(reward: float, values: Sequence[float], *, decay: float) -> tuple[float, ...]:
    """A_t = sum_k decay^k d_{t+k}, d_t = V_{t+1} - V_t, the last one reward - V_{T-1}. No discount: an episode's reward
    is worth as much whenever it comes. ``decay`` 1: reward - V_t."""
    differences = np.diff(np.array([*values, reward], np.float64))
    found, later = [], 0.0
    for one in differences[::-1]:
        later = float(one) + decay * later
        found.append(later)
    return tuple(reversed(found))


def bits(share: float) -> float:
    """Entropy of success or failure, bits: what an outcome can say at most at this pass rate.

    >>> bits(0.5), bits(1.0)
    (1.0, 0.0)
    """
    return float(sum(-p * np.log2(p) for p in (share, 1 - share) if p > 0)) + 0.0


def _stats(groups: Sequence[Group]) -> dict[str, float]:
    episodes = [one for group in groups for one in group.attempts]
    shares = [fmean(one.reward >= FULL for one in group.attempts) for group in groups]
    return {
        "reward": fmean(one.reward for one in episodes),
        "pass": fmean(one.reward >= FULL for one in episodes),
        "turns": fmean(len(one.turns) for one in episodes),
        "groups": float(len(groups)),
        "groups_solved": float(sum(one == 1 for one in shares)),
        "groups_failed": float(sum(all(one.reward == 0 for one in group.attempts) for group in groups)),
        "bits": fmean(bits(one) for one in shares),
    }
