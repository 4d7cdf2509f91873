"""Geospot's second learner, as it was published: DPO of the clicked candidate against each one ranked below it.

Kept as it was, so that it can be compared. Its flaw: a click on position 1 makes K - 1 pairs that restate the order.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from dayjob.objectives.checks import Stats, check_integer, check_same, mean_where
from dayjob.objectives.plackett_luce import in_shown_order


def dpo(
    score_BK: Tensor, reference_BK: Tensor, *, shown_BK: Tensor, click_B: Tensor, beta: float
) -> tuple[Tensor, Stats]:
    """-mean log sigma(beta[(s_w - r_w) - (s_l - r_l)]) over pairs (w clicked, l any lower-ranked candidate).

    ``reference_BK`` are the frozen reference's scores. Rafailov et al., NeurIPS 2023; a list's pairs are summed, lists
    averaged, so a list counts for as many pairs as it makes. A click on the last place makes none.
    """
    check_same(score_BK=score_BK, reference_BK=reference_BK, shown_BK=shown_BK)
    check_integer("click_B", click_B)
    gain_BK = in_shown_order(score_BK, shown_BK) - in_shown_order(reference_BK.detach(), shown_BK)
    position_K = torch.arange(gain_BK.shape[1], device=gain_BK.device)
    clicked_B = click_B >= 0
    lower_BK = (position_K > click_B[:, None]) & (shown_BK >= 0) & clicked_B[:, None]
    winner_B1 = gain_BK.gather(1, click_B.clamp_min(0)[:, None])
    margin_BK = beta * (winner_B1 - gain_BK)
    loss_B = torch.where(lower_BK, -functional.logsigmoid(margin_BK), 0.0).sum(dim=1)
    pairs = lower_BK.sum()
    right = torch.where(lower_BK, margin_BK > 0, False).sum() / pairs.clamp_min(1)
    return mean_where(loss_B, clicked_B), {"pairs": pairs, "margin_right": right.detach()}
