"""How far the student's next-token distribution is from the teacher's: forward KL, reverse KL, JSD(beta).

Over the full vocabulary, or over the student's top-k and one bucket for all the rest. Logits in, one number a token
out; FP32 or wider.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dayjob.objectives.checks import check_rank, check_same
from dayjob.objectives.language.logits import CHUNK, chunked, wide


@dataclass(frozen=True, kw_only=True, slots=True)
class Divergence:
    """Which divergence, and what is left out of it.

    - ``kind``: ``"forward"`` KL(teacher || student), covers all that the teacher may say; ``"reverse"`` KL(student ||
      teacher), commits to one of its ways; ``"jsd"`` between the two, ``beta`` the teacher's share of the mixture.
    - ``top_k``: the student's k likeliest tokens and a bucket with the others' probability, 1 - sum p_k, on both sides;
      None for all. A word that the student would not say is only known through the bucket, so nothing says *which* word
      to learn: prefer the full vocabulary where a lesson contradicts the student.
    - ``clip``: no vocabulary entry adds more than this to a token (.05 in the published self-distillation), so that
      matters of style do not outweigh the rest; None for no clip. As published the clipped entry also loses its
      gradient, and the entries that stay may push the *other* way: a teacher surer than the clip allows is unlearned
      from. ``clip_keeps_direction`` shrinks the gradient of a clipped entry by as much as its value instead.
    """

    kind: Literal["forward", "reverse", "jsd"] = "forward"
    beta: float = 0.5
    top_k: int | None = None
    clip: float | None = None
    clip_keeps_direction: bool = False


FORWARD = Divergence(kind="forward")


def divergence(student_NV: Tensor, teacher_NV: Tensor, *, how: Divergence) -> Tensor:
    """One divergence a row of logits, shape (N,). The teacher has no gradient.

    forward: sum_v p_T log(p_T / p_S); reverse: sum_v p_S log(p_S / p_T); jsd: beta KL(p_T || m) + (1 - beta)
    KL(p_S || m), m = beta p_T + (1 - beta) p_S (Agarwal et al., ICLR 2024, GKD; Hinton et al., 2015). Top-k with a tail
    and the two of them on one model: SDPO (Huebotter et al., 2026). Per-entry clip: OPSD (Zhao et al., 2026).
    With ``clip`` the sum may be negative: entries where the student is above the teacher are, and are not clipped.
    """
    check_rank("student_NV", student_NV, rank=2)
    check_same(student_NV=student_NV, teacher_NV=teacher_NV)
    student_NV, teacher_NV = _support(wide(student_NV), wide(teacher_NV).detach(), how.top_k)
    entry_NV = _ENTRIES[how.kind](student_NV, teacher_NV, how.beta)
    if how.clip is not None:
        entry_NV = _clipped(entry_NV, how.clip, keeps_direction=how.clip_keeps_direction)
    return entry_NV.sum(dim=1)


def divergence_along(
    student_BTD: Tensor,
    student_VD: Tensor,
    *,
    teacher_BTD: Tensor,
    teacher_VD: Tensor,
    mask_BT: Tensor,
    how: Divergence,
    temperature: float = 1.0,
    chunk: int = CHUNK,
) -> Tensor:
    """:func:`divergence` at each position of a completion, shape (B, T); 0 where ``mask_BT`` is false.

    From last hidden states and output matrices, ``chunk`` tokens at a time: the logits of all never exist. Row by row,
    both read *the same completion*, the teacher after its privileged context: hidden states are of the positions that
    predict the completion's tokens. Widths may differ, vocabularies not.
    """
    assert student_BTD.shape[:-1] == teacher_BTD.shape[:-1] == mask_BT.shape, "student and teacher positions differ"
    assert student_VD.shape[0] == teacher_VD.shape[0], "student and teacher have different vocabularies"
    keep_BT = mask_BT.bool()

    def _of_chunk(student_CD: Tensor, teacher_CD: Tensor, student_VD: Tensor, teacher_VD: Tensor) -> Tensor:
        student_CV = wide(student_CD) @ student_VD.T / temperature
        with torch.no_grad():
            teacher_CV = wide(teacher_CD) @ teacher_VD.T / temperature
        return divergence(student_CV, teacher_CV, how=how)

    rows = (student_BTD[keep_BT], teacher_BTD.detach()[keep_BT])
    value_N = chunked(_of_chunk, rows=rows, shared=(wide(student_VD), wide(teacher_VD).detach()), chunk=chunk)
    return value_N.new_zeros(mask_BT.shape).masked_scatter(keep_BT, value_N)


def _support(student_NV: Tensor, teacher_NV: Tensor, top_k: int | None) -> tuple[Tensor, Tensor]:
    """Log-probabilities of both over the vocabulary, or over the student's top-k and the tail."""
    if top_k is None:
        return torch.log_softmax(student_NV, dim=1), torch.log_softmax(teacher_NV, dim=1)
    if not 0 < top_k < student_NV.shape[1]:
        raise ValueError(f"top_k is {top_k}: from 1 to {student_NV.shape[1] - 1}, or None for the full vocabulary")
    top_NK = student_NV.detach().topk(top_k, dim=1).indices
    return _with_tail(student_NV, top_NK), _with_tail(teacher_NV, top_NK)


def _with_tail(logit_NV: Tensor, top_NK: Tensor) -> Tensor:
    # log(1 - sum p_k) as the log of the sum of the others: exact where 1 - sum would have no digits left.
    tail_N1 = logit_NV.scatter(1, top_NK, -torch.inf).logsumexp(dim=1, keepdim=True)
    return torch.cat([logit_NV.gather(1, top_NK), tail_N1], dim=1) - logit_NV.logsumexp(dim=1, keepdim=True)


def _clipped(entry_NV: Tensor, clip: float, *, keeps_direction: bool) -> Tensor:
    if not keeps_direction:
        return entry_NV.clamp_max(clip)
    shrink_NV = torch.where(entry_NV > clip, clip / entry_NV, 1.0).detach()
    return entry_NV * shrink_NV


def _kl(p_NV: Tensor, q_NV: Tensor) -> Tensor:
    return p_NV.exp() * (p_NV - q_NV)


def _forward(student_NV: Tensor, teacher_NV: Tensor, beta: float) -> Tensor:  # noqa: ARG001 - one signature for all
    return _kl(teacher_NV, student_NV)


def _reverse(student_NV: Tensor, teacher_NV: Tensor, beta: float) -> Tensor:  # noqa: ARG001
    return _kl(student_NV, teacher_NV)


def _jsd(student_NV: Tensor, teacher_NV: Tensor, beta: float) -> Tensor:
    if not 0 < beta < 1:
        raise ValueError(f'beta is {beta}: between 0 and 1; take kind "forward" or "reverse" for the two ends')
    share = torch.tensor(beta, dtype=student_NV.dtype, device=student_NV.device)
    middle_NV = torch.logaddexp(teacher_NV + share.log(), student_NV + torch.log1p(-share))
    return beta * _kl(teacher_NV, middle_NV) + (1 - beta) * _kl(student_NV, middle_NV)


_ENTRIES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "forward": _forward,
    "reverse": _reverse,
    "jsd": _jsd,
}
