"""Credit: how much each attempt deserves. Apart from the loss, which says what gradient that makes.

Rewards in, advantages out; numpy, no state. A group is the attempts at one prompt, in any order and of any size; rows
of one group carry the same number. Rewards are finite: leave out the attempts that nothing could score.

A group whose attempts all earned the same teaches nothing to the group methods: its advantages are 0, and by default
its rows are dropped, so that they do not count in the step's denominators either (DAPO, Yu et al., 2025; ScaleRL,
Khatri et al., 2025). A group of one is such a group whatever it earned. Both are counted in the stats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]
ZeroVariance = Literal["drop", "keep"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Credit:
    """``advantage_B`` one a row, 0 where not kept; ``keep_B`` the rows that count; ``stats`` numbers to report:
    ``rows``, ``dropped``, ``groups``, ``groups_of_one``, ``groups_without_variance`` (of two rows or more)."""

    advantage_B: F64
    keep_B: Bools
    stats: dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Groups:
    index_B: Integers  # of the row's group, from 0
    count_G: F64
    mean_G: F64
    varies_G: Bools


def grpo(reward_B: F64, group_B: Integers, *, eps: float = 1e-4, zero_variance: ZeroVariance = "drop") -> Credit:
    """(r - mean) / (std + eps), std with G - 1. Shao et al., 2024 (DeepSeekMath). Weighs up prompts that are nearly
    solved or nearly hopeless; see ``dr_grpo``."""

    def advantage(reward: F64, groups: _Groups) -> F64:
        gap = reward - groups.mean_G[groups.index_B]
        square = np.bincount(groups.index_B, gap**2, minlength=len(groups.count_G))
        spread_G = np.where(groups.varies_G, np.sqrt(square / np.maximum(groups.count_G - 1, 1)), 1.0)
        return np.asarray(gap / (spread_G + eps)[groups.index_B])

    return _by_group(reward_B, group_B, rule=advantage, zero_variance=zero_variance)


def dr_grpo(reward_B: F64, group_B: Integers, *, zero_variance: ZeroVariance = "drop") -> Credit:
    """r - mean, the default: no standard deviation, so no prompt weighs more for being nearly solved. Liu et al.,
    2025."""
    return _by_group(
        reward_B, group_B, rule=lambda r, groups: r - groups.mean_G[groups.index_B], zero_variance=zero_variance
    )


def rloo(reward_B: F64, group_B: Integers, *, zero_variance: ZeroVariance = "drop") -> Credit:
    """r - mean of the *other* attempts = G / (G - 1) (r - mean): an unbiased baseline. Kool et al., 2019; Ahmadian et
    al., ACL 2024."""

    def advantage(reward: F64, groups: _Groups) -> F64:
        scale_G = groups.count_G / np.maximum(groups.count_G - 1, 1)
        return np.asarray((reward - groups.mean_G[groups.index_B]) * scale_G[groups.index_B])

    return _by_group(reward_B, group_B, rule=advantage, zero_variance=zero_variance)


def maxrl(reward_B: F64, group_B: Integers, *, zero_variance: ZeroVariance = "drop") -> Credit:
    """(r - mean) / mean: climbs the log of the pass rate instead of the rate, so hard prompts weigh more. Tajwar et
    al., 2026. Rewards are not negative; a group without any success has advantages of 0."""
    if np.any(np.asarray(reward_B) < 0):
        raise ValueError("MaxRL divides by the mean reward and needs rewards of 0 or more: shift them, or take dr_grpo")

    def advantage(reward: F64, groups: _Groups) -> F64:
        mean_B = groups.mean_G[groups.index_B]
        return np.asarray((reward - mean_B) / np.where(mean_B > 0, mean_B, 1.0))

    return _by_group(reward_B, group_B, rule=advantage, zero_variance=zero_variance)


def rae(
    reward_B: F64,
    key_B: Sequence[str],
    *,
    baselines: Mapping[str, float],
    decay: float = 0.95,
    initial: float = 0.0,
) -> tuple[Credit, dict[str, float]]:
    """A = r - b, then b <- decay b + (1 - decay) r, row after row; (credit, the new baselines). For single samples, the
    normal case online, where there is no group. Role-conditioned advantage estimation: Liu et al., 2025 (SPIRAL).

    ``key_B`` names what shares a baseline (a policy, a role, a kind of task); ``initial`` is a new key's. The baseline
    that a row meets does not contain its own reward, so it adds no bias; and two calls give what one would.
    """
    reward_B = _checked(reward_B)
    assert len(reward_B) == len(key_B), f"{len(reward_B)} rewards and {len(key_B)} keys"
    state = dict(baselines)
    advantage_B = np.zeros(len(reward_B))
    for row, (reward, key) in enumerate(zip(reward_B.tolist(), key_B, strict=True)):
        before = state.get(key, initial)
        advantage_B[row] = reward - before
        state[key] = decay * before + (1 - decay) * reward
    stats = {"rows": float(len(reward_B)), "dropped": 0.0, "baselines": float(len(state))}
    return Credit(advantage_B=advantage_B, keep_B=np.ones(len(reward_B), bool), stats=stats), state


def batch_normalised(credit: Credit, *, eps: float = 1e-4) -> Credit:
    """Advantages over their standard deviation in the whole batch (+ eps), rows left out not counted. ScaleRL (Khatri
    et al., 2025): steps of one size, without weighing one prompt against another as ``grpo`` does."""
    kept = credit.advantage_B[credit.keep_B]
    spread = float(kept.std(ddof=1)) if len(kept) > 1 else 0.0
    return Credit(
        advantage_B=credit.advantage_B / (spread + eps),
        keep_B=credit.keep_B,
        stats=credit.stats | {"advantage_std": spread},
    )


def accept_reject(acted_B: Bools, accepted_B: Bools, *, threshold: float = 0.25) -> F64:
    """1 - p* for a suggestion that was accepted, -p* for one that was not, 0 where the policy kept silent.

    Acting earns P(accept) - p* in expectation and silence 0, so the best policy acts exactly when P(accept) > p*. .25
    is what the largest public deployment uses (Cursor Tab, 2025).
    """
    if not 0 < threshold < 1:
        raise ValueError(f"the threshold is {threshold}: the probability of acceptance worth acting on, within (0, 1)")
    return np.where(np.asarray(acted_B, bool), np.where(np.asarray(accepted_B, bool), 1.0, 0.0) - threshold, 0.0)


def _by_group(
    reward_B: F64, group_B: Integers, *, rule: Callable[[F64, _Groups], F64], zero_variance: ZeroVariance
) -> Credit:
    reward_B = _checked(reward_B)
    group_B = np.asarray(group_B)
    assert reward_B.shape == group_B.shape, f"{reward_B.shape} rewards and {group_B.shape} groups"
    _, index_B, count_G = np.unique(group_B, return_inverse=True, return_counts=True)
    most_G, least_G = np.full(len(count_G), -np.inf), np.full(len(count_G), np.inf)
    np.maximum.at(most_G, index_B, reward_B)
    np.minimum.at(least_G, index_B, reward_B)
    groups = _Groups(
        index_B=index_B,
        count_G=count_G.astype(np.float64),
        mean_G=np.bincount(index_B, reward_B, minlength=len(count_G)) / np.maximum(count_G, 1),
        varies_G=most_G > least_G,  # of the rewards themselves: a mean in floating point differs from equal rewards
    )
    varies_B = groups.varies_G[index_B]
    keep_B = varies_B if zero_variance == "drop" else np.ones_like(varies_B)
    stats = {
        "rows": float(len(reward_B)),
        "dropped": float((~keep_B).sum()),
        "groups": float(len(count_G)),
        "groups_of_one": float((count_G == 1).sum()),
        "groups_without_variance": float((~groups.varies_G & (count_G > 1)).sum()),
    }
    return Credit(advantage_B=np.where(varies_B, rule(reward_B, groups), 0.0), keep_B=keep_B, stats=stats)


def _checked(reward_B: F64) -> F64:
    reward_B = np.asarray(reward_B, np.float64)
    if not np.isfinite(reward_B).all():
        row = int(np.flatnonzero(~np.isfinite(reward_B))[0])
        raise ValueError(f"the reward of row {row} is {reward_B[row]}: leave out attempts that could not be scored")
    return reward_B
