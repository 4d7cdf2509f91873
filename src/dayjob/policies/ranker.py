"""The learned ranker at serving time: numpy alone, batch-first. :mod:`dayjob.policies.network` is the same in torch.

    belief logit      u_k = scale · s_k + inner · x·v_k + (xL)·(v_k R) + v_k·prior + pair_k·w + v_k·crowd
                            + mlp(x, v_k, pair_k [, the list])
    crowd             c_0 · mean_j v_j + c_1 · sum_j softmax(focus · s)_j v_j
    score             u_k, where no loss matrix is known
    score with one    -sum_j softmax(sharpness · u)_j loss_kj / unit

s is the caller's score, x the context, v the candidate; the crowd is what the list has in common, so that a candidate
is judged among the others. The network is Geospot's published head, or set-aware: the same with one look from each
candidate at all of the list behind the first layer (``attend``). The first form believes, the second chooses: what is
most probable and what is cheapest to be wrong with are kept apart. In version zero scale is 1 and all else 0, so it
orders as the caller did.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dayjob.endings import Damaged
from dayjob.policies.protocol import F32, F64, Lists

FORMAT = 1  # of the weights and the network's description
Weights = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankerSpec:
    """The sizes of a ranker. ``hidden`` empty: no network on top of the linear terms. ``attention``: width of the
    network's look at the whole list, 0 where each candidate is scored alone."""

    context_dim: int
    candidate_dim: int
    pair_dim: int = 0
    hidden: tuple[int, ...] = (256, 256)
    attention: int = 0

    def to_json(self) -> dict[str, object]:
        """What a version's manifest keeps."""
        sizes = {"context_dim": self.context_dim, "candidate_dim": self.candidate_dim, "pair_dim": self.pair_dim}
        return {"format": FORMAT, **sizes, "hidden": list(self.hidden), "attention": self.attention}

    @staticmethod
    def from_json(network: Mapping[str, object]) -> RankerSpec:
        """The inverse of :meth:`to_json`. Raises Damaged for another format."""
        if network.get("format") != FORMAT:
            raise Damaged(
                f"this ranker has format {network.get('format')!r}, not {FORMAT}: serve it with its own dayjob"
            )
        sizes = {name: network[name] for name in ("context_dim", "candidate_dim", "pair_dim")}
        hidden, attention = network["hidden"], network.get("attention", 0)  # absent: each candidate alone
        sizes["attention"] = attention
        if not isinstance(hidden, list) or not all(isinstance(size, int) for size in sizes.values()):
            raise Damaged("the description of this ranker's network is not one that dayjob writes: learn it anew")
        return RankerSpec(hidden=tuple(hidden), **sizes)  # type: ignore[arg-type]


def zero_weights(spec: RankerSpec) -> dict[str, npt.NDArray[np.float32]]:
    """Version zero: scale 1, every other term 0, no network. It orders exactly by the caller's score."""
    return {
        "scale": np.ones(1, np.float32),
        "inner": np.zeros(1, np.float32),
        "left": np.zeros((spec.context_dim, 0), np.float32),
        "right": np.zeros((spec.candidate_dim, 0), np.float32),
        "prior": np.zeros(spec.candidate_dim, np.float32),
        "pair": np.zeros(spec.pair_dim, np.float32),
        "crowd": np.zeros(2, np.float32),
        "focus": np.ones(1, np.float32),
        "sharpness": np.ones(1, np.float32),
        "unit": np.zeros(1, np.float32),  # 0: a loss matrix is not looked at
    }


class NumpyRanker:
    """A version of a ranker, ready to serve. Immutable; safe to share between threads.

    ``network`` is :meth:`RankerSpec.to_json`. Raises Damaged when weights and description do not fit each other.
    """

    def __init__(self, weights: Weights, network: Mapping[str, object]) -> None:
        self.spec = RankerSpec.from_json(network)
        self._weights = {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in weights.items()}
        self._check()
        w = self._weights
        self._layers = _layers(w)
        self._scale, self._inner = float(w["scale"][0]), float(w["inner"][0])
        self._sharpness, self._unit = float(w["sharpness"][0]), float(w["unit"][0])

    def score(self, lists: Lists) -> F64:
        """Scores (B, K), higher first."""
        utility_BK = self.utility(lists)
        if lists.loss_BKK is None or self._unit == 0.0:
            return utility_BK
        return expected_loss_score(utility_BK, lists.loss_BKK, sharpness=self._sharpness, unit=self._unit)

    def utility(self, lists: Lists) -> F64:
        """Belief logits u (B, K): softmax(sharpness · u) is the probability that a candidate is the right one."""
        w, candidate_BKE = self._weights, lists.candidate_BKE
        # One vector per decision that every candidate is multiplied with: the context half is computed once.
        with_BE = (lists.context_BD @ w["left"]) @ w["right"].T + w["prior"]
        if self._inner:
            with_BE = with_BE + np.float32(self._inner) * lists.context_BD
        if w["crowd"].any():
            with_BE = with_BE + crowd(w["crowd"], candidate_BKE, logit_BK=float(w["focus"][0]) * lists.base_BK)
        learned_BK = np.matmul(candidate_BKE, with_BE[:, :, None])[:, :, 0]
        if self.spec.pair_dim:
            learned_BK = learned_BK + lists.pair_BKP @ w["pair"]
        if self._layers:
            learned_BK = learned_BK + self._network(lists)
        utility_BK: F64 = self._scale * lists.base_BK + learned_BK
        return utility_BK

    def _network(self, lists: Lists) -> F32:
        w = self._weights
        hidden = (lists.context_BD @ w["mlp.context"] + w["mlp.bias0"])[:, None, :] + lists.candidate_BKE @ w[
            "mlp.candidate"
        ]
        if self.spec.pair_dim:
            hidden = hidden + lists.pair_BKP @ w["mlp.pair"]
        if self.spec.attention:
            hidden = hidden + attend(np.maximum(hidden, 0.0), w)
        for weight, bias in self._layers[1:-1]:
            hidden = np.maximum(hidden, 0.0) @ weight + bias
        out: F32 = np.maximum(hidden, 0.0) @ self._layers[-1][0]
        return out

    def _check(self) -> None:
        spec, w = self.spec, self._weights
        rank = w["left"].shape[1] if "left" in w and w["left"].ndim == 2 else 0
        wanted: dict[str, tuple[int, ...]] = {
            **dict.fromkeys(("scale", "inner", "focus", "sharpness", "unit"), (1,)),
            "left": (spec.context_dim, rank),
            "right": (spec.candidate_dim, rank),
            "prior": (spec.candidate_dim,),
            "pair": (spec.pair_dim,),
            "crowd": (2,),
        }
        if "mlp.context" in w:
            wanted |= network_shapes(spec)
        found = {name: value.shape for name, value in w.items()}
        if found != wanted:
            raise Damaged(f"the weights of this ranker have shapes {found}, not {wanted}: learn it anew")
        if w["inner"][0] and spec.context_dim != spec.candidate_dim:
            raise Damaged("an inner product needs contexts and candidates of one length: learn this version anew")


def network_shapes(spec: RankerSpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the network's weights. The first layer is kept in its context, candidate and pair parts."""
    first, *rest = spec.hidden
    shapes: dict[str, tuple[int, ...]] = {
        "mlp.context": (spec.context_dim, first),
        "mlp.candidate": (spec.candidate_dim, first),
        "mlp.pair": (spec.pair_dim, first),
        "mlp.bias0": (first,),
    }
    if spec.attention:
        shapes |= dict.fromkeys(("set.query", "set.key", "set.value"), (first, spec.attention))
        shapes |= {"set.mix": (spec.attention, first)}
    for number, (before, after) in enumerate(zip(spec.hidden[:-1], rest, strict=True), start=1):
        shapes |= {f"mlp.weight{number}": (before, after), f"mlp.bias{number}": (after,)}
    return shapes | {"mlp.out": (spec.hidden[-1],)}


def attend(active_BKH: F32, w: Weights) -> F32:
    """What each candidate adds to its first hidden layer for the company it is in, (B, K, H): one head of attention.

    softmax_j(q_k · k_j / sqrt(A)) v_j through ``set.mix`` (Vaswani et al., NeurIPS 2017), without positions: permuting
    the list permutes the answer (Zaheer et al., Deep Sets, NeurIPS 2017).
    """
    query, key, value = (active_BKH @ w[f"set.{name}"] for name in ("query", "key", "value"))
    logit_BKK = np.matmul(query, key.transpose(0, 2, 1)) / np.float32(query.shape[-1] ** 0.5)
    share_BKK = np.exp(logit_BKK - logit_BKK.max(axis=2, keepdims=True))
    share_BKK /= share_BKK.sum(axis=2, keepdims=True)
    mixed: F32 = np.matmul(share_BKK, value) @ w["set.mix"]
    return mixed


def crowd(weight: npt.NDArray[np.float32], candidate_BKE: F32, *, logit_BK: F64) -> F32:
    """What every candidate is multiplied with for the company it is in, (B, E)."""
    share_BK = np.exp(logit_BK - logit_BK.max(axis=1, keepdims=True))
    share_BK /= share_BK.sum(axis=1, keepdims=True)
    mixed_BK = weight[0] / candidate_BKE.shape[1] + weight[1] * share_BK
    crowd_BE: F32 = np.matmul(mixed_BK.astype(np.float32)[:, None, :], candidate_BKE)[:, 0, :]
    return crowd_BE


def expected_loss_score(utility_BK: F64, loss_BKK: F64, *, sharpness: float, unit: float) -> F64:
    """-E[loss of showing k first] / unit under the belief softmax(sharpness · u); ``loss_BKK`` rows shown, columns
    right."""
    logit_BK = sharpness * (utility_BK - utility_BK.max(axis=1, keepdims=True))
    belief_BK = np.exp(logit_BK)
    belief_BK /= belief_BK.sum(axis=1, keepdims=True)
    return np.asarray(-np.matmul(loss_BKK, belief_BK[:, :, None])[:, :, 0] / unit, dtype=np.float64)


def _layers(weights: Weights) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    """(weight, bias) of each layer of the network, the last without a bias of use; empty when there is no network."""
    if "mlp.out" not in weights:
        return []
    count = sum(name.startswith("mlp.weight") for name in weights)
    middle = [(weights[f"mlp.weight{i}"], weights[f"mlp.bias{i}"]) for i in range(1, count + 1)]
    return [(weights["mlp.candidate"], weights["mlp.bias0"]), *middle, (weights["mlp.out"], weights["mlp.bias0"])]
