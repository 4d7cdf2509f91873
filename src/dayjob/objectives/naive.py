"""Naive clicks: cross-entropy of the clicked candidate among the shown ones. Believes every click."""

from __future__ import annotations

import torch
from torch import Tensor

from dayjob.objectives.checks import Stats, check_integer, check_same, mean_where
from dayjob.objectives.plackett_luce import in_shown_order


def click_cross_entropy(score_BK: Tensor, shown_BK: Tensor, *, click_B: Tensor) -> tuple[Tensor, Stats]:
    """-mean log softmax(score over the shown list)[clicked], over lists with a click."""
    check_same(score_BK=score_BK, shown_BK=shown_BK)
    check_integer("click_B", click_B)
    log_share_BK = torch.log_softmax(in_shown_order(score_BK, shown_BK), dim=1)
    clicked_B = click_B >= 0
    log_share_B = log_share_BK.gather(1, click_B.clamp_min(0)[:, None])[:, 0]
    return mean_where(-log_share_B, clicked_B), {"clicks": clicked_B.sum()}
