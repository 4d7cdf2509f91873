"""Geospot's first learner, as it was published: REINFORCE on the whole shown ranking, paid by the clicked position.

Kept as it was, so that it can be compared. Its flaw: a click that fell by position pays the policy for its own order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dayjob.objectives.checks import Stats, check_integer, check_rank, check_same, mean_where
from dayjob.objectives.plackett_luce import kl_along, log_prob


def position_reward(click_B: Tensor, positions: int) -> Tensor:
    """R = 1 - position / (K - 1): 1 at the first place, 0 at the last; 0 when nothing was clicked."""
    check_rank("click_B", click_B, rank=1)
    falling = 1 - click_B.to(torch.float32) / max(positions - 1, 1)
    return torch.where(click_B >= 0, falling, 0.0)


def next_baseline(baseline: Tensor, reward_B: Tensor, *, decay: float) -> Tensor:
    """b <- decay b + (1 - decay) mean R, the running average that is subtracted from the reward."""
    return decay * baseline + (1 - decay) * reward_B.mean()


def reinforce(
    score_BK: Tensor,
    average_BK: Tensor,
    *,
    shown_BK: Tensor,
    click_B: Tensor,
    baseline: Tensor,
    kl_weight: float,
) -> tuple[Tensor, Stats]:
    """loss = -mean[(R - b) log p(ranking)] + beta KL(p || p_average); Williams 1992 on Plackett-Luce.

    ``average_BK`` are the scores of the Polyak-averaged behaviour policy, without gradient. All lists count, also those
    without a click (R = 0).
    """
    check_same(score_BK=score_BK, average_BK=average_BK, shown_BK=shown_BK)
    check_integer("click_B", click_B)
    reward_B = position_reward(click_B, score_BK.shape[1])
    kl_B = kl_along(score_BK, average_BK.detach(), shown_BK=shown_BK)
    policy = -((reward_B - baseline) * log_prob(score_BK, shown_BK)).mean()
    everything_B = torch.ones_like(click_B, dtype=torch.bool)
    kl = mean_where(kl_B, everything_B)
    stats = {"reward": reward_B.mean(), "kl": kl.detach(), "policy_loss": policy.detach()}
    return policy + kl_weight * kl, stats
