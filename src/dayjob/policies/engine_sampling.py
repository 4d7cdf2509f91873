"""Drawing tokens: temperature, nucleus, a generator of its own for each request.

A request's draws are the uniform numbers of Philox keyed with its seed, one a token, turned into tokens by inverting
the cumulative distribution. So a draw depends on the request's logits and seed alone, on any device; only where a
cumulative sum falls within rounding of the number can another batch shape draw another token.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dayjob.policies.engine_protocol import Alternatives


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """One token a row, with the two log-probabilities of :mod:`dayjob.policies.engine_protocol`."""

    token_B: list[int]
    model_logp_B: list[float]
    sample_logp_B: list[float]
    top_B: list[Alternatives]


def uniforms(seed: int, count: int) -> npt.NDArray[np.float64]:
    """The request's draws, in [0, 1)."""
    return np.random.Generator(np.random.Philox(key=seed)).random(count)


def draw(
    logit_BV: Tensor, *, temperature_B: list[float], top_p_B: list[float], uniform_B: list[float], top: list[int]
) -> Drawn:
    """Draw a token from each row of FP32 logits; ``top``: how many alternatives each row reports."""
    logp_BV = torch.log_softmax(logit_BV, dim=1)
    token_B = logp_BV.argmax(dim=1)
    sample_B = torch.zeros_like(logp_BV[:, 0])
    hot = [row for row, temperature in enumerate(temperature_B) if temperature > 0]
    if hot:
        nucleus = [top_p_B[row] for row in hot]
        heat = torch.tensor([temperature_B[row] for row in hot], device=logit_BV.device)
        uniform = torch.tensor([uniform_B[row] for row in hot], dtype=torch.float64, device=logit_BV.device)
        hot_logit = logit_BV if len(hot) == len(token_B) else logit_BV[hot]
        drawn, sample = _invert(torch.log_softmax(hot_logit / heat[:, None], dim=1), nucleus, uniform)
        token_B[hot], sample_B[hot] = drawn, sample
    model_B = logp_BV.gather(1, token_B[:, None])[:, 0]
    return Drawn(
        token_B=token_B.tolist(),
        model_logp_B=model_B.tolist(),
        sample_logp_B=sample_B.tolist(),
        top_B=alternatives(logp_BV, top),
    )


def alternatives(logp_BV: Tensor, top: list[int]) -> list[Alternatives]:
    """The ``top[row]`` most probable tokens of each row, with their log-probabilities."""
    most = min(max(top, default=0), logp_BV.shape[1])
    if most == 0:
        return [() for _ in top]
    values, ids = (one.tolist() for one in logp_BV.topk(most, dim=1))
    return [
        tuple(zip(row_ids[:count], row_values[:count], strict=True))
        for row_ids, row_values, count in zip(ids, values, top, strict=True)
    ]


def _invert(logp_BV: Tensor, nucleus: list[float], uniform_B: Tensor) -> tuple[Tensor, Tensor]:
    """(token, log-probability of having drawn it), by the cumulative distribution in FP64."""
    order_BV = None
    p_BV = logp_BV.double().exp()
    if min(nucleus) < 1:
        p_BV, order_BV = p_BV.sort(dim=1, descending=True, stable=True)
        mass_B1 = torch.tensor(nucleus, dtype=torch.float64, device=logp_BV.device)[:, None]
        # What is above a token decides whether it belongs: the first always does.
        above_BV = p_BV.cumsum(dim=1) - p_BV
        p_BV = torch.where((above_BV < mass_B1) | (mass_B1 >= 1), p_BV, 0.0)
    total_BV = p_BV.cumsum(dim=1)
    mass_B = total_BV[:, -1]
    place_B1 = torch.searchsorted(total_BV, (uniform_B * mass_B)[:, None], right=True)
    # Rounding may point behind the last token that has any probability.
    last_B1 = p_BV.shape[1] - 1 - (p_BV > 0).flip(1).int().argmax(dim=1, keepdim=True)
    place_B1 = torch.minimum(place_B1, last_B1)
    token_B1 = place_B1 if order_BV is None else order_BV.gather(1, place_B1)
    kept_B = torch.tensor([part < 1 for part in nucleus], device=logp_BV.device)
    sample_B = logp_BV.gather(1, token_B1)[:, 0] - torch.where(kept_B, mass_B.log(), 0.0).to(logp_BV.dtype)
    return token_B1[:, 0], sample_B
