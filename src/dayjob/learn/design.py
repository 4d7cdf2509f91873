"""The terms by which a ranker may depart from the caller's score, and what is known of them before any click.

Retrieval compares a context x with a candidate v by an inner product. Two things go wrong with it that no click is
needed to see: some directions of x are noise that many photos, queries or users share, and some candidates are near
everything. So the terms are

- a few shared ones: x whitened along its principal directions (by the square root and in full) times v, v along the
  mean context and along the mean candidate, v along the list's own mean (plain, and by the caller's scores), and the
  caller's pair features: a handful of coefficients;
- many own ones: a coefficient for each principal direction j of (x_j · v_j) and of v_j, or, where x and v have
  different lengths, of every product of their leading components.

Every term is scaled to unit spread within lists, so that one ridge weight means the same for all and for every scale of
the input.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dayjob.learn.recipes import Debiased
from dayjob.learn.replay import Replay
from dayjob.policies.ranker import RankerSpec, zero_weights

CHUNK = 4096  # decisions a pass: 20 MB of gathered components
CHUNK_NUMBERS = 50_000_000  # gathered in a pass: of wide lists it takes fewer decisions
BLOCK = 256  # decisions whose products stay in the processor's cache
GATHERED_MOST = 100_000_000  # numbers: components gathered once up to here (400 MB), for each pass anew beyond
POWERS = (0.5, 1.0)  # of the whitening
CROWD = 2  # terms of a candidate along its own list
SAMPLE = 20_000  # decisions from which directions and spreads are taken
TINY = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """Terms of B decisions. A coefficient vector is laid out [score, shared (S), per direction of v (R), products (Q)].

    ``shared_BKS`` are ready; the rest is made in chunks from the components ``x_BM`` of contexts and ``v_VR`` of
    candidates. ``spread`` holds what each term was divided by.
    """

    score_BK: Tensor
    shared_BKS: Tensor
    x_BM: Tensor
    v_VR: Tensor
    candidate_BK: Tensor
    real_BK: Tensor
    same: bool  # contexts and candidates share directions: products are x_j v_j, else x_i v_j
    left_DM: Tensor  # how x_BM comes about: (x - mean) @ left
    right_ER: Tensor  # v_VR = (v - mean) @ right
    spread_S: Tensor
    spread: float  # of the caller's score
    mean_D: Tensor
    mean_E: Tensor
    floor_D: Tensor  # principal variances over the smallest kept, empty where contexts and candidates differ
    gathered_BKR: Tensor  # v_VR of each candidate; empty where that would be too large

    @property
    def shared(self) -> int:
        """1 + S: the caller's score and the shared terms."""
        return 1 + self.shared_BKS.shape[2]

    @property
    def own(self) -> int:
        """R + Q: the terms of the single directions."""
        products = self.x_BM.shape[1] if self.same else self.x_BM.shape[1] * self.v_VR.shape[1]
        return self.v_VR.shape[1] + products

    def __len__(self) -> int:
        return len(self.score_BK)

    def rows(self, at: Tensor) -> Design:
        """The decisions ``at`` alone, copied once, so that passes over them read memory in order."""
        names = ("score_BK", "shared_BKS", "x_BM", "candidate_BK", "real_BK")
        picked: dict[str, Any] = {name: getattr(self, name)[at] for name in names}
        gathered = self.gathered_BKR[at] if len(self.gathered_BKR) else self.gathered_BKR
        return replace(self, **picked, gathered_BKR=gathered)

    def chunks(self) -> Iterator[tuple[slice, Tensor]]:
        """(decisions, components of their candidates) in chunks."""
        for at in _passes(self.candidate_BK, self.v_VR.shape[1]):
            yield at, self.gathered_BKR[at] if len(self.gathered_BKR) else self.v_VR[self.candidate_BK[at]]

    def utility(self, coefficient: Tensor, at: slice, *, v_BKR: Tensor) -> Tensor:
        """Utilities (b, K) of the decisions ``at``; their candidates' components are given."""
        few = coefficient[: self.shared]
        plain_BK = self.score_BK[at] * few[0] + self.shared_BKS[at] @ few[1:]
        if not coefficient[self.shared :].any():
            return plain_BK
        query_BR = self._query(coefficient, at)
        starts = range(0, len(query_BR), BLOCK)
        own = [(v_BKR[i : i + BLOCK] * query_BR[i : i + BLOCK, None, :]).sum(2) for i in starts]
        return plain_BK + torch.cat(own)

    def gradient(self, slope_BK: Tensor, at: slice, *, v_BKR: Tensor) -> Tensor:
        """The gradient in the coefficients when that in the utilities of the decisions ``at`` is ``slope_BK``."""
        back_BR = torch.bmm(slope_BK[:, None, :], v_BKR)[:, 0, :]
        x_BM = self.x_BM[at]
        products = (x_BM * back_BR).sum(0) if self.same else (x_BM.T @ back_BR).flatten()
        return torch.cat([self.shared_gradient(slope_BK, at), back_BR.sum(0), products])

    def shared_gradient(self, slope_BK: Tensor, at: slice) -> Tensor:
        """The part of :meth:`gradient` that belongs to the caller's score and the shared terms."""
        score = (slope_BK * self.score_BK[at]).sum()[None]
        return torch.cat([score, slope_BK.flatten() @ self.shared_BKS[at].flatten(0, 1)])

    def _query(self, coefficient: Tensor, at: slice) -> Tensor:
        """(b, R): what the components of a candidate are multiplied with."""
        width = self.v_VR.shape[1]
        own = coefficient[self.shared :]
        if self.same:
            return own[:width] + self.x_BM[at] * own[width:]
        return own[:width] + self.x_BM[at] @ own[width:].reshape(-1, width)

    def weights(self, coefficient: Tensor, spec: RankerSpec) -> dict[str, Tensor]:
        """A ranker's weights with the same utilities up to a constant per list (see policies.ranker)."""
        weights = {name: torch.from_numpy(value).double() for name, value in zero_weights(spec).items()}
        coefficient = coefficient.double()
        few, own, width = coefficient[: self.shared], coefficient[self.shared :], self.v_VR.shape[1]
        left, right, mean = self.left_DM.double(), self.right_ER.double(), self.mean_D.double()
        weights["scale"] = few[:1] / self.spread
        shared = few[1:] / self.spread_S.double()
        weights["pair"], weights["crowd"] = shared[: spec.pair_dim], shared[-CROWD:]
        weights["focus"] = torch.full((1,), 1 / self.spread, dtype=torch.float64)
        weights["prior"] = right @ own[:width]
        if not self.same:
            weights["left"], weights["right"] = left @ own[width:].reshape(-1, width), right
        else:
            unit_DR = left / left.norm(dim=0)
            white = shared[spec.pair_dim : spec.pair_dim + len(POWERS)]
            gain_R = sum(w * (self.floor_D.double() ** -p - 1) for w, p in zip(white, POWERS, strict=True))
            along = shared[spec.pair_dim + len(POWERS) : -CROWD]
            scale_R = left.norm(dim=0) * right.norm(dim=0)
            weights["left"], weights["right"] = unit_DR * (gain_R + own[width:] * scale_R), unit_DR
            weights["inner"] = white.sum()[None]
            weights["prior"] = weights["prior"] - white.sum() * mean + along[0] * mean + along[1] * self.mean_E.double()
        if weights["left"].shape[1]:
            weights["prior"] = weights["prior"] - weights["right"] @ (weights["left"].T @ mean)
        return weights


def make_design(replay: Replay, recipe: Debiased) -> Design:
    """The terms of a replay's decisions. Directions, means and spreads come from its newest ``SAMPLE`` contexts and
    lists."""
    context, vector = torch.from_numpy(replay.context_BD), torch.from_numpy(replay.vector_VE)
    real_BK = torch.from_numpy(replay.real_BK)
    candidate_BK = torch.from_numpy(replay.candidate_BK).long().clamp_min(0)
    recent = slice(max(0, len(replay) - SAMPLE), len(replay))
    same = context.shape[1] == vector.shape[1]
    times_V = torch.bincount(candidate_BK[recent][real_BK[recent]], minlength=len(vector)).float()
    mean_D, variance_D, basis_DD = _principal(context[recent], torch.ones(len(context[recent])))
    mean_E, variance_E, basis_EE = _principal(vector, times_V)
    limit = recipe.rank if same else recipe.bilinear_rank
    rank = _useful(variance_D, limit)
    left = basis_DD[:, :rank]
    right = left if same else basis_EE[:, : _useful(variance_E, limit)]
    x_BM, v_VR = (context - mean_D) @ left, (vector - mean_E) @ right
    x_spread, v_spread = _root_mean_square(x_BM[recent]), _weighted_spread(v_VR, times_V)
    shared = [torch.from_numpy(replay.pair_BKP)]
    floor_D = torch.zeros(0)
    if same:
        floor_D = variance_D[:rank] / variance_D[rank - 1]
        shared.append(_whitened(context - mean_D, vector, candidate_BK, left=left, floor_D=floor_D))
        along_V2 = torch.stack([vector @ mean_D, vector @ mean_E], dim=1)
        shared.append(along_V2[candidate_BK])
    score_BK1, spread = _unit_spread(torch.from_numpy(replay.base_BK)[:, :, None], real_BK, recent)
    shared.append(_crowd(vector, candidate_BK, real_BK, score_BK1[:, :, 0]))
    shared_BKS, spread_S = _unit_spread(torch.cat(shared, dim=2), real_BK, recent)
    small = candidate_BK.numel() * v_VR.shape[1] <= GATHERED_MOST
    return Design(
        gathered_BKR=(v_VR / v_spread)[candidate_BK] if small else v_VR[:0],
        score_BK=score_BK1[:, :, 0],
        shared_BKS=shared_BKS,
        x_BM=x_BM / x_spread,
        v_VR=v_VR / v_spread,
        candidate_BK=candidate_BK,
        real_BK=real_BK,
        same=same,
        left_DM=left / x_spread,
        right_ER=right / v_spread,
        spread_S=spread_S,
        spread=float(spread[0]),
        mean_D=mean_D,
        mean_E=mean_E,
        floor_D=floor_D,
    )


def _passes(candidate_BK: Tensor, dim: int) -> Iterator[slice]:
    """Decisions whose candidates, ``dim`` numbers each, are gathered at once."""
    step = max(1, min(CHUNK, CHUNK_NUMBERS // max(candidate_BK.shape[1] * dim, 1)))
    return (slice(start, start + step) for start in range(0, len(candidate_BK), step))


def _principal(x_ND: Tensor, weight_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted mean, variances (largest first) and principal directions as columns; signs fixed."""
    share_N = (weight_N / weight_N.sum())[:, None]
    mean_D = (share_N * x_ND).sum(0)
    centred = x_ND - mean_D
    variance, basis = torch.linalg.eigh((centred.T @ (centred * share_N)).double())
    variance, basis = variance.flip(0).clamp_min(0), basis.flip(1)
    strongest = basis.abs().argmax(0)
    sign = torch.sign(basis[strongest, torch.arange(basis.shape[1])])
    return mean_D, variance.float(), (basis * sign).float()


def _useful(variance_D: Tensor, limit: int) -> int:
    """How many leading directions are kept: at most ``limit``, none without variance to speak of, at least one."""
    alive = int((variance_D > variance_D[0] * 1e-6).sum()) if len(variance_D) else 0
    return max(1, min(limit, alive))


def _whitened(x_BD: Tensor, v_VD: Tensor, candidate_BK: Tensor, *, left: Tensor, floor_D: Tensor) -> Tensor:
    """(B, K, powers): x with its principal variances levelled to that of the last one kept, to each power, times v."""
    parts = []
    component_BR = x_BD @ left
    for rows in _passes(candidate_BK, v_VD.shape[1]):
        v_BKD = v_VD[candidate_BK[rows]]
        queries = [x_BD[rows] + (component_BR[rows] * (floor_D**-power - 1)) @ left.T for power in POWERS]
        parts.append(torch.bmm(v_BKD, torch.stack(queries, dim=2)))
    return torch.cat(parts)


def _crowd(v_VD: Tensor, candidate_BK: Tensor, real_BK: Tensor, score_BK: Tensor) -> Tensor:
    """(B, K, 2): each candidate times its list's mean, and times its mean by the softmax of the caller's score."""
    plain_BK = real_BK / real_BK.sum(1, keepdim=True).clamp_min(1)
    share_BK = torch.softmax(torch.where(real_BK, score_BK, -torch.inf), dim=1).nan_to_num(0.0)
    weight_BK2 = torch.stack([plain_BK, share_BK], dim=2)
    parts = []
    for rows in _passes(candidate_BK, v_VD.shape[1]):
        v_BKD = v_VD[candidate_BK[rows]]
        parts.append(torch.bmm(v_BKD, torch.bmm(v_BKD.transpose(1, 2), weight_BK2[rows])))
    return torch.cat(parts)


def _unit_spread(term_BKS: Tensor, real_BK: Tensor, recent: slice) -> tuple[Tensor, Tensor]:
    """Terms centred within each list and divided by their root mean square there (1 where a term never varies)."""
    count_B1 = real_BK.sum(1, keepdim=True).clamp_min(1)
    real_BK1 = real_BK[:, :, None]
    mean_B1S = (term_BKS * real_BK1).sum(1, keepdim=True) / count_B1[:, :, None]
    centred = (term_BKS - mean_B1S) * real_BK1
    square_S = centred[recent].square().sum((0, 1)) / real_BK[recent].sum().clamp_min(1)
    spread_S = torch.where(square_S > TINY, square_S.sqrt(), 1.0)
    return centred / spread_S, spread_S


def _root_mean_square(x_NM: Tensor) -> Tensor:
    return x_NM.square().mean(0).sqrt().clamp_min(TINY**0.5)


def _weighted_spread(v_VR: Tensor, weight_V: Tensor) -> Tensor:
    share_V1 = (weight_V / weight_V.sum())[:, None]
    return (share_V1 * v_VR.square()).sum(0).sqrt().clamp_min(TINY**0.5)
