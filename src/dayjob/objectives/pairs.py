"""Skip-above pairs: a clicked candidate against each one ranked above it, which the user passed over."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from dayjob.objectives.checks import Stats, check_integer, check_same
from dayjob.objectives.plackett_luce import in_shown_order


def skip_above(score_BK: Tensor, shown_BK: Tensor, *, click_B: Tensor, weight_B: Tensor) -> tuple[Tensor, Stats]:
    """-mean log sigma(s_clicked - s_above) over pairs, each list's pairs weighted 1 / their number times ``weight_B``.

    "Click > skip above", Joachims et al., SIGIR 2005. A click on position 1 makes no pair, so a pull towards the top
    adds none.
    """
    check_same(score_BK=score_BK, shown_BK=shown_BK)
    check_integer("click_B", click_B)
    by_position = in_shown_order(score_BK, shown_BK)
    position_K = torch.arange(by_position.shape[1], device=by_position.device)
    above_BK = (position_K < click_B[:, None]) & (shown_BK >= 0)
    margin_BK = by_position.gather(1, click_B.clamp_min(0)[:, None]) - by_position
    each_B = torch.where(above_BK, -functional.logsigmoid(margin_BK), 0.0).sum(dim=1) / above_BK.sum(dim=1).clamp_min(1)
    weight_B = torch.where(above_BK.any(dim=1), weight_B, 0.0)
    total = weight_B.sum().clamp_min(torch.finfo(weight_B.dtype).tiny)
    return (weight_B * each_B).sum() / total, {"pairs": above_BK.sum()}
