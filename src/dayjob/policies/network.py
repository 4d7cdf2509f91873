"""The ranker's network in torch, to be trained; :class:`dayjob.policies.ranker.NumpyRanker` serves the same weights.

``hidden`` (256, 256) over 512 + 512 + 2 numbers is Geospot's published head, 1026-256-256-1. The first layer is kept in
parts, so that its context half is computed once per decision instead of once per candidate. With ``attention`` the
network is set-aware: behind the first layer every candidate looks once at all the others.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dayjob.policies.ranker import RankerSpec, network_shapes, zero_weights


class ScoreNetwork(nn.Module):
    """score_BK = scale · caller's score + mlp(context, candidate, pair [, the list]).

    ``residual``: the last layer starts at zero and the scale at ``scale``, so that it begins as the caller's order;
    otherwise it scores from scratch, as the published learners did, and the caller's score is not looked at.
    """

    def __init__(self, spec: RankerSpec, *, seed: int, residual: bool, scale: float = 1.0) -> None:
        super().__init__()
        if not spec.hidden:
            raise ValueError("This recipe trains a network: give the policy hidden layers, such as [256, 256].")
        self.spec = spec
        generator = torch.Generator().manual_seed(seed)
        fan_in = {"mlp.out": spec.hidden[-1]}
        fan_in |= dict.fromkeys(("mlp.context", "mlp.candidate", "mlp.pair", "mlp.bias0"), sum(_inputs(spec)))
        fan_in |= dict.fromkeys(("set.query", "set.key", "set.value"), spec.hidden[0]) | {"set.mix": spec.attention}
        for number, size in enumerate(spec.hidden[:-1], start=1):
            fan_in |= {f"mlp.weight{number}": size, f"mlp.bias{number}": size}
        self.part = nn.ParameterDict()
        for name, shape in network_shapes(spec).items():
            bound = 1 / math.sqrt(fan_in[name])  # torch's own start of a linear layer
            start = (torch.rand(shape, generator=generator) * 2 - 1) * bound
            self.part[_key(name)] = nn.Parameter(torch.zeros(shape) if residual and name == "mlp.out" else start)
        self.scale = nn.Parameter(torch.full((1,), scale if residual else 0.0), requires_grad=residual)

    def forward(
        self, context_BD: Tensor, candidate_BKE: Tensor, *, pair_BKP: Tensor, base_BK: Tensor, real_BK: Tensor
    ) -> Tensor:
        """Scores (B, K); what fillers (not ``real_BK``) hold changes nobody's score."""
        part = self.part
        once_BH = context_BD @ part["mlp_context"] + part["mlp_bias0"]
        hidden = once_BH[:, None, :] + candidate_BKE @ part["mlp_candidate"]
        if self.spec.pair_dim:
            hidden = hidden + pair_BKP @ part["mlp_pair"]
        if self.spec.attention:
            hidden = hidden + self._attend(torch.relu(hidden), real_BK)
        for number in range(1, len(self.spec.hidden)):
            hidden = torch.relu(hidden) @ part[f"mlp_weight{number}"] + part[f"mlp_bias{number}"]
        score_BK: Tensor = torch.relu(hidden) @ part["mlp_out"] + self.scale * base_BK
        return score_BK

    def _attend(self, active_BKH: Tensor, real_BK: Tensor) -> Tensor:
        """:func:`dayjob.policies.ranker.attend`, nobody looking at fillers."""
        query, key, value = (active_BKH @ self.part[f"set_{name}"] for name in ("query", "key", "value"))
        logit_BKK = query @ key.transpose(1, 2) / math.sqrt(self.spec.attention)
        # The lowest finite number instead of -inf: a list of fillers alone must not become nan.
        logit_BKK = torch.where(real_BK[:, None, :], logit_BKK, torch.finfo(logit_BKK.dtype).min)
        mixed: Tensor = torch.softmax(logit_BKK, dim=2) @ value @ self.part["set_mix"]
        return mixed

    def weights(self) -> dict[str, npt.NDArray[np.float32]]:
        """What :class:`NumpyRanker` serves."""
        weights = zero_weights(self.spec)
        weights["scale"] = self.scale.detach().numpy().copy()
        return weights | {name: self.part[_key(name)].detach().numpy().copy() for name in network_shapes(self.spec)}


def _inputs(spec: RankerSpec) -> tuple[int, int, int]:
    return spec.context_dim, spec.candidate_dim, spec.pair_dim


def _key(name: str) -> str:
    return name.replace(".", "_")  # torch forbids dots in parameter names
