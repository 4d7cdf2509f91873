"""A policy's catalog in memory: exact nearest neighbours by cosine.

``share`` is the softmax of similarity_scale × similarity over the candidates given; ``score`` is its logarithm, so
that version zero orders by similarity.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dayjob.endings import Invalid
from dayjob.journal.readers import Reader
from dayjob.records import Candidate, Json

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """N items: ids, what is journaled of each, vectors (N, E), the same of length one, metadata."""

    ids: tuple[str, ...]
    items: tuple[Candidate, ...]
    vector_NE: F32
    unit_NE: F32
    metas: tuple[Json | None, ...]
    slot_of: dict[str, int]

    def slots(self, ids: Sequence[str]) -> list[int]:
        """Where these ids stand. Raises Invalid for an unknown one."""
        try:
            return [self.slot_of[one] for one in ids]
        except KeyError as missing:
            raise Invalid(
                f"candidate {missing.args[0]!r} is not in the catalog: send its features, or PUT it into the catalog",
                param="candidates",
            ) from None

    def nearest(self, context_D: F32, k: int) -> list[int]:
        """The slots of the k nearest by cosine, nearest first."""
        similarity_N = self.unit_NE @ unit(context_D)
        k = min(k, len(similarity_N))
        top = np.argpartition(-similarity_N, k - 1)[:k]
        return [int(slot) for slot in top[np.argsort(-similarity_N[top], kind="stable")]]


def unit(vector_D: F32) -> F32:
    """A vector scaled to length one; zero stays zero."""
    length = math.sqrt(float(np.dot(vector_D, vector_D)))
    scaled_D: F32 = vector_D / np.float32(max(length, 1e-30))
    return scaled_D


def units(vector_NE: F32) -> F32:
    """Rows scaled to length one; zero stays zero."""
    length_N1 = np.linalg.norm(vector_NE, axis=-1, keepdims=True)
    scaled_NE: F32 = (vector_NE / np.maximum(length_N1, np.float32(1e-30))).astype(np.float32)
    return scaled_NE


def similarity_pair(context_D: F32, unit_KE: F32, *, scale: float) -> tuple[F32, F64]:
    """What the catalog says of K of its items, given as rows of ``Catalog.unit_NE``.

    ``pair`` (K, 2) = similarity and share, ``score`` (K,) = log share.
    """
    similarity_K = (unit_KE @ unit(context_D)).astype(np.float64)
    logit_K = scale * similarity_K
    log_share_K = logit_K - np.logaddexp.reduce(logit_K)
    pair_K2 = np.empty((len(logit_K), 2), np.float32)
    pair_K2[:, 0], pair_K2[:, 1] = similarity_K, np.exp(log_share_K)
    return pair_K2, log_share_K


def load_catalog(reader: Reader, tenant: str, policy: str, *, dim: int) -> Catalog | None:
    """A policy's catalog, None when it has none."""
    ids, digests, metas = reader.catalog(tenant, policy)
    if not ids:
        return None
    vector_NE = reader.get_many(tenant, digests, dim=dim)
    return Catalog(
        ids=tuple(ids),
        items=tuple(Candidate(id=one, digest=digest) for one, digest in zip(ids, digests, strict=True)),
        vector_NE=vector_NE,
        unit_NE=units(vector_NE),
        metas=tuple(metas),
        slot_of={one: n for n, one in enumerate(ids)},
    )
