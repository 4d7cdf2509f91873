"""Who counts how much: the denominators of a step, as one weight a token or a sequence.

Made on the host from masks alone, over *all* rows of the step, before it is cut into microbatches. Weights sum to 1
(``per_budget`` apart), or are all 0 when nothing counts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dayjob.objectives.checks import check_integer, check_rank, check_same


def per_token(mask_BT: Tensor) -> Tensor:
    """1 / tokens of the step: each token counts the same. SFT, distillation, the anchor; DAPO (Yu et al., 2025)."""
    check_rank("mask_BT", mask_BT, rank=2)
    mask_BT = mask_BT.to(torch.float32)
    return mask_BT / mask_BT.sum().clamp_min(1)


def per_sequence(mask_BT: Tensor) -> Tensor:
    """1 / (sequences x tokens of the own one): each sequence counts the same. GRPO (Shao et al., 2024).

    A sequence without tokens is not counted.
    """
    check_rank("mask_BT", mask_BT, rank=2)
    mask_BT = mask_BT.to(torch.float32)
    length_B1 = mask_BT.sum(dim=1, keepdim=True)
    return mask_BT / length_B1.clamp_min(1) / (length_B1 > 0).sum().clamp_min(1)


def per_prompt(mask_BT: Tensor, group_B: Tensor) -> Tensor:
    """1 / (prompts x tokens of all siblings): each prompt counts the same. ScaleRL (Khatri et al., 2025), for CISPO.

    ``group_B`` (int64, any values): rows with the same number are attempts at one prompt. Within a prompt each token
    counts the same; a prompt without tokens is not counted.
    """
    check_rank("mask_BT", mask_BT, rank=2)
    check_integer("group_B", group_B)
    mask_BT = mask_BT.to(torch.float32)
    _, index_B = torch.unique(group_B, return_inverse=True)
    tokens_G = torch.zeros(len(group_B), device=mask_BT.device).index_add(0, index_B, mask_BT.sum(dim=1))
    return mask_BT / tokens_G.clamp_min(1)[index_B][:, None] / (tokens_G > 0).sum().clamp_min(1)


def per_budget(mask_BT: Tensor, length: int) -> Tensor:
    """1 / (rows x ``length``), ``length`` the budget of tokens of a completion: no bias by length, neither towards
    short right answers nor towards long wrong ones. Dr. GRPO (Liu et al., 2025)."""
    check_rank("mask_BT", mask_BT, rank=2)
    return mask_BT.to(torch.float32) / (max(mask_BT.shape[0], 1) * length)


def per_row(keep_B: Tensor) -> Tensor:
    """1 / rows that are kept, shape (B,): pairs of DPO, thumbs of KTO."""
    check_rank("keep_B", keep_B, rank=1)
    keep_B = keep_B.to(torch.float32)
    return keep_B / keep_B.sum().clamp_min(1)


def sequence_logprob(logp_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """log p(completion | prompt), shape (B,): the sum over its tokens."""
    check_same(logp_BT=logp_BT, mask_BT=mask_BT)
    return torch.where(mask_BT.bool(), logp_BT, 0.0).sum(dim=1)


def counted(value: Tensor, weight: Tensor) -> Tensor:
    """``value`` where it counts, 0 where the weight is 0, so that what stands there reaches neither loss nor gradient.

    To be applied to the *inputs* of a formula: 0 times the derivative of what is not finite is not 0.
    """
    return torch.where(weight != 0, value, 0.0)
