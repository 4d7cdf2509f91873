"""Supervised fine-tuning: the log-likelihood of what should have been said."""

from __future__ import annotations

from torch import Tensor

from dayjob.objectives.checks import Stats, check_rank, check_same
from dayjob.objectives.language.weights import counted


def sft(logp_BT: Tensor, *, weight_BT: Tensor) -> tuple[Tensor, Stats]:
    """-sum w log p(token). Cross-entropy on demonstrations and corrections (Ouyang et al., 2022).

    Usual weights: ``per_token``. Stats: ``nll`` (the loss), ``tokens``.
    """
    check_rank("logp_BT", logp_BT, rank=2)
    check_same(logp_BT=logp_BT, weight_BT=weight_BT)
    loss = -(weight_BT * counted(logp_BT, weight_BT)).sum()
    return loss, {"nll": loss.detach(), "tokens": (weight_BT != 0).sum()}
