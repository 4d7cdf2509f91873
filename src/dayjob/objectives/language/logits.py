"""From hidden states to log-probabilities of tokens, a chunk of tokens at a time.

With a vocabulary of 150,000, the logits of 8,192 tokens take 5 GB in FP32, and a plain log-softmax holds three such
matrices. Here only a chunk of them exists at any moment: the forward keeps one number a token, the backward computes
the chunk's logits again. Logits are always FP32 or wider, whatever the weights are (ScaleRL, Khatri et al., 2025:
an FP32 head raised the ceiling of reward from .52 to .61).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dayjob.objectives.checks import check_integer, check_rank

CHUNK = 256  # tokens whose logits exist at once


def token_logprobs(
    hidden_BTD: Tensor,
    matrix_VD: Tensor,
    *,
    token_BT: Tensor,
    mask_BT: Tensor,
    temperature: float = 1.0,
    chunk: int = CHUNK,
) -> Tensor:
    """log softmax(hidden matrix' / temperature)[token], shape (B, T); 0 where ``mask_BT`` is false.

    ``hidden_BTD``: the last hidden state at the position that *predicts* the token. ``matrix_VD``: the output
    matrix. ``temperature``: of the sampling, so that the number is comparable with the journal's. Peak memory beside
    inputs and gradients: ``chunk`` x V numbers, twice. Once differentiable, in both tensors.
    """
    check_integer("token_BT", token_BT)
    check_rank("matrix_VD", matrix_VD, rank=2)
    assert hidden_BTD.shape[:-1] == token_BT.shape == mask_BT.shape, "one hidden state, token and mask entry a position"
    keep_BT = mask_BT.bool()
    logp_N: Tensor = _TokenLogprobs.apply(  # type: ignore[no-untyped-call]
        hidden_BTD[keep_BT], matrix_VD, token_BT[keep_BT], temperature, chunk
    )
    return logp_N.new_zeros(token_BT.shape).masked_scatter(keep_BT, logp_N)


def wide(tensor: Tensor) -> Tensor:
    """``tensor`` in FP32, or in FP64 if that is what it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def chunks(count: int, chunk: int) -> Iterator[slice]:
    """Slices of at most ``chunk`` that cover ``count`` rows."""
    return (slice(start, min(start + chunk, count)) for start in range(0, count, chunk))


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        hidden_ND, matrix_VD, token_N, temperature, chunk = arguments
        matrix = wide(matrix_VD)
        logp_N = torch.empty(len(token_N), dtype=matrix.dtype, device=matrix.device)
        normaliser_N = torch.empty_like(logp_N)
        for part in chunks(len(token_N), chunk):
            logit_CV = (wide(hidden_ND[part]) @ matrix.T).div_(temperature)
            normaliser_N[part] = torch.logsumexp(logit_CV, dim=1)
            logp_N[part] = logit_CV.gather(1, token_N[part, None])[:, 0] - normaliser_N[part]
        ctx.save_for_backward(hidden_ND, matrix_VD, token_N, normaliser_N)
        ctx.temperature, ctx.chunk = temperature, chunk
        return logp_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden_ND, matrix_VD, token_N, normaliser_N = ctx.saved_tensors
        need_hidden, need_matrix = ctx.needs_input_grad[:2]
        matrix = wide(matrix_VD)
        hidden_gradient = torch.empty_like(hidden_ND) if need_hidden else None
        matrix_gradient = torch.zeros_like(matrix) if need_matrix else None
        for part in chunks(len(token_N), ctx.chunk):
            hidden = wide(hidden_ND[part])
            incoming_C1 = gradients[0][part, None] / ctx.temperature
            # d logp / d logit = 1[token] - p, made in the place of the logits.
            slope_CV = (hidden @ matrix.T).div_(ctx.temperature).sub_(normaliser_N[part, None]).exp_()
            slope_CV.mul_(-incoming_C1).scatter_add_(1, token_N[part, None], incoming_C1)
            if hidden_gradient is not None:
                hidden_gradient[part] = (slope_CV @ matrix).to(hidden_ND.dtype)
            if matrix_gradient is not None:
                matrix_gradient.addmm_(slope_CV.T, hidden)
        if matrix_gradient is not None:
            matrix_gradient = matrix_gradient.to(matrix_VD.dtype)
        return hidden_gradient, matrix_gradient, None, None, None


def chunked(
    function: Callable[..., Tensor], *, rows: Sequence[Tensor], shared: Sequence[Tensor], chunk: int = CHUNK
) -> Tensor:
    """``function(*rows, *shared)`` computed a chunk of rows at a time, and again in the backward.

    ``rows`` are cut along their first axis, ``shared`` are given whole to each chunk; ``function`` returns one tensor
    with as many rows. Nothing that it makes on the way is kept. Once differentiable, in every tensor that asks for it.
    """
    result: Tensor = _Chunked.apply(function, chunk, len(rows), *rows, *shared)  # type: ignore[no-untyped-call]
    return result


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        function, chunk, count, *tensors = arguments
        ctx.save_for_backward(*tensors)
        ctx.function, ctx.chunk, ctx.count = function, chunk, count
        rows, shared = tensors[:count], tensors[count:]
        parts = [function(*(row[part] for row in rows), *shared) for part in chunks(len(rows[0]), chunk)]
        return torch.cat(parts) if parts else function(*rows, *shared)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        need = ctx.needs_input_grad[3:]
        tensors = [one.detach().requires_grad_(wanted) for one, wanted in zip(ctx.saved_tensors, need, strict=True)]
        rows, shared = tensors[: ctx.count], tensors[ctx.count :]
        # Sums over many chunks are kept wide, so that the result does not depend on how many there were.
        total = [torch.zeros_like(wide(one) if i >= ctx.count else one) for i, one in enumerate(tensors)]
        for part in chunks(len(rows[0]), ctx.chunk):
            with torch.enable_grad():
                cut = [row.detach()[part].requires_grad_(row.requires_grad) for row in rows]
                value = ctx.function(*cut, *shared)
            wanted = [i for i, one in enumerate((*cut, *shared)) if one.requires_grad]
            asked = [(*cut, *shared)[i] for i in wanted]
            for i, slope in zip(wanted, torch.autograd.grad(value, asked, gradients[0][part]), strict=True):
                if i < ctx.count:
                    total[i][part] = slope
                else:
                    total[i] += slope
        found = (sum_.to(one.dtype) for sum_, one in zip(total, tensors, strict=True))
        return (None, None, None, *(one if wanted else None for one, wanted in zip(found, need, strict=True)))
