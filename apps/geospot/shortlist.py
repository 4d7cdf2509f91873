"""Geospot's side of the contract: how the places of the gallery become a ranker's candidates, and its answers places.

Retrieval happens here, in the application; dayjob is given ten candidates with their vectors and orders them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dayjob.client import Candidate, RankerSpec
from geospot.gallery import Gallery
from geospot.world import EARTH_RADIUS_KM, World, haversine_km, nearest

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]

POLICY = "geospot"
DAYJOB_URL = "http://127.0.0.1:8080"  # unless the environment has DAYJOB_URL
PAIR = 2  # similarity, share
FARTHEST_KM = float(np.pi) * EARTH_RADIUS_KM  # the other side of the earth


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortlist:
    """The K places retrieved for one photo, most similar first.

    ``context_D`` the photo's unit vector; ``row_K`` rows of the gallery; ``pair_KP`` [similarity, share];
    ``score_K`` log share.
    """

    context_D: F32
    row_K: I32
    pair_KP: F32
    score_K: F32


def spec(gallery: Gallery) -> RankerSpec:
    """How the policy is declared: judged by kilometres between places, not by clicks alone."""
    width = gallery.embedding_GD.shape[1]
    return RankerSpec(
        context_dim=width,
        candidate_dim=width,
        pair_dim=PAIR,
        similarity_scale=round(gallery.similarity_scale, 4),
        metric="km",
    )


def item_of(row: int) -> str:
    """The id of a gallery row, as dayjob knows it.

    >>> item_of(12345)
    'g12345'
    """
    return f"g{row}"


def row_of(item: str) -> int:
    """The gallery row of an id.

    >>> row_of("g12345")
    12345
    """
    return int(item.removeprefix("g"))


def retrieve(world: World, context_D: F32) -> Shortlist:
    """The places most similar to one photo's unit vector, of the whole gallery."""
    row_NK, similarity_NK = nearest(context_D[None, :], world.gallery.embedding_GD, count=world.config.candidates)
    return shortlist(world, context_D, row_K=row_NK[0], similarity_K=similarity_NK[0])


def shortlist(world: World, context_D: F32, *, row_K: I32, similarity_K: F32) -> Shortlist:
    """What retrieval found, with the numbers that go with it."""
    pair_NKP, score_NK = world.pairs(similarity_K[None, :])
    return Shortlist(context_D=context_D, row_K=row_K, pair_KP=pair_NKP[0], score_K=score_NK[0])


def candidates(gallery: Gallery, found: Shortlist) -> list[Candidate]:
    """The shortlist as a rank call's candidates, each with where it lies (the metric "km" reads that)."""
    return [
        Candidate(
            id=item_of(int(row)),
            features=gallery.embedding_GD[row],
            pair=pair_P.tolist(),
            score=float(score),
            meta={"lat": round(float(gallery.coords_G2[row, 0]), 6), "lon": round(float(gallery.coords_G2[row, 1]), 6)},
        )
        for row, pair_P, score in zip(found.row_K, found.pair_KP, found.score_K, strict=True)
    ]


def distances(gallery: Gallery, items: Sequence[str], *, place: tuple[float, float]) -> dict[str, float]:
    """Kilometres of each item from ``place`` (latitude, longitude in degrees)."""
    coords = gallery.coords_G2[[row_of(item) for item in items]]
    return {item: float(km) for item, km in zip(items, haversine_km(coords, place), strict=True)}


def relevance(km: Mapping[str, float]) -> dict[str, float]:
    """Distances as a truth's relevance, in [0, 1] and linear in km: 1 on the spot, 0 on the other side of the earth."""
    return {item: round(max(0.0, 1.0 - distance / FARTHEST_KM), 9) for item, distance in km.items()}
