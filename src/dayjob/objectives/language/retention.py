"""Keeping what the model knew: KL to the base model on traffic and on prompts that it writes itself, and its budget.

KL(base || new) foretells forgetting (RL's Razor, Shenfeld et al., 2025). The anchor needs no labels: the base model,
which is the model with its adapter off, says what it would have said. Where its prompts cover what the model knew,
nothing is forgotten; so replayed traffic goes together with prompts that the model writes from an empty context
(pseudo-rehearsal, Robins, 1995).
"""

from __future__ import annotations

import torch
from torch import Tensor

from dayjob.objectives.checks import Stats, check_rank
from dayjob.objectives.language.divergence import FORWARD, divergence_along
from dayjob.objectives.language.logits import CHUNK


def anchor(
    new_BTD: Tensor,
    new_VD: Tensor,
    *,
    base_BTD: Tensor,
    base_VD: Tensor,
    weight_BT: Tensor,
    self_written_B: Tensor,
    chunk: int = CHUNK,
) -> tuple[Tensor, Stats]:
    """sum w KL(base || new) per token over the full vocabulary (Li and Hoiem, ECCV 2016, for language models).

    Both read the same rows: replayed ones, and (``self_written_B``) what the base model wrote itself. Usual weights:
    ``per_token``; weight of the part in a mixture: 5 worked in trials. Stats: ``kl`` (nats a token, the loss), and its
    two parts ``kl_replayed`` and ``kl_self_written``, ``tokens``.
    """
    check_rank("self_written_B", self_written_B, rank=1)
    value_BT = divergence_along(
        new_BTD,
        new_VD,
        teacher_BTD=base_BTD,
        teacher_VD=base_VD,
        mask_BT=weight_BT != 0,
        how=FORWARD,
        chunk=chunk,
    )
    part_B = (weight_BT * value_BT).sum(dim=1)
    loss = part_B.sum()
    own_B = torch.where(self_written_B.bool(), part_B.detach(), 0.0)
    stats = {
        "kl": loss.detach(),
        "kl_replayed": loss.detach() - own_B.sum(),
        "kl_self_written": own_B.sum(),
        "tokens": (weight_BT != 0).sum(),
    }
    return loss, stats


def brake(kl: float, *, budget: float) -> float:
    """The share, 0 to 1, at which everything but the anchor goes on learning: clamp(2 - kl / budget, 0, 1).

    1 within the budget, falling in a straight line to 0 at twice the budget, where only the anchor is left and the next
    steps can only lead back. ``kl``: nats a token on the anchor's rows, of the step before or a running mean of a few,
    so that the weights of a step are known before it and microbatches still add up. What is not a number brakes fully.
    """
    if not budget > 0:
        raise ValueError(f"the KL budget is {budget}: more than 0 nats a token; leave the anchor out to have none")
    return min(1.0, max(0.0, 2 - kl / budget))  # in this order: the larger of 0 and nan is 0
