"""Self-distillation: the model with privileged context teaches the model without it.

Both read the same completion. In on-policy self-distillation the student sampled it from the bare prompt (OPSD, Zhao et
al., 2026; SDFT, Shenfeld et al., 2026; SDPO, Huebotter et al., 2026); in trajectory-refined distillation the teacher
rewrote it from the first error onward. The teacher is frozen (the adapter off) or an average of the student's adapter
(:mod:`dayjob.objectives.language.average`); here it is only hidden states and an output matrix.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dayjob.objectives.checks import Stats, check_rank
from dayjob.objectives.language.divergence import FORWARD, Divergence, divergence_along
from dayjob.objectives.language.logits import CHUNK


def self_distillation(
    student_BTD: Tensor,
    student_VD: Tensor,
    *,
    teacher_BTD: Tensor,
    teacher_VD: Tensor,
    weight_BT: Tensor,
    how: Divergence,
    temperature: float = 1.0,
    chunk: int = CHUNK,
) -> tuple[Tensor, Stats]:
    """sum w D(student, teacher) along completions that the student sampled; D as ``how`` says.

    Shapes as in :func:`~dayjob.objectives.language.divergence.divergence_along`; usual weights: ``per_token``. Plain
    self-distillation forgets almost everything else within tens of steps: mix it with the anchor of ``retention``.
    Stats: ``divergence`` (the loss), ``tokens``.
    """
    value_BT = divergence_along(
        student_BTD,
        student_VD,
        teacher_BTD=teacher_BTD,
        teacher_VD=teacher_VD,
        mask_BT=weight_BT != 0,
        how=how,
        temperature=temperature,
        chunk=chunk,
    )
    loss = (weight_BT * value_BT).sum()
    return loss, {"divergence": loss.detach(), "tokens": (weight_BT != 0).sum()}


def trajectory_refined(
    student_BTD: Tensor,
    student_VD: Tensor,
    *,
    teacher_BTD: Tensor,
    teacher_VD: Tensor,
    weight_BT: Tensor,
    repaired_B: Tensor,
    chunk: int = CHUNK,
) -> tuple[Tensor, Stats]:
    """TRD: sum w KL(teacher || student), full vocabulary, along y_r, the teacher's rewriting of the student's y_o.

    The teacher saw the privileged context and y_o, found the first error, kept the prefix and rewrote the rest; the
    student reads y_r after its bare prompt. ``repaired_B``: y_r differs from y_o. All rollouts count, those that needed
    no repair too. Stats: ``divergence``, ``divergence_repaired`` (its part from repaired rollouts), ``repaired``,
    ``tokens``.
    """
    check_rank("repaired_B", repaired_B, rank=1)
    value_BT = divergence_along(
        student_BTD,
        student_VD,
        teacher_BTD=teacher_BTD,
        teacher_VD=teacher_VD,
        mask_BT=weight_BT != 0,
        how=FORWARD,
        chunk=chunk,
    )
    part_B = (weight_BT * value_BT).sum(dim=1)
    loss = part_B.sum()
    stats = {
        "divergence": loss.detach(),
        "divergence_repaired": torch.where(repaired_B.bool(), part_B.detach(), 0.0).sum(),
        "repaired": repaired_B.bool().sum(),
        "tokens": (weight_BT != 0).sum(),
    }
    return loss, stats
