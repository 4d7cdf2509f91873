"""The simulated photos. There is no photo: an embedding is drawn as GeoCLIP's image encoder might have given it.

    z = normalise(e(true place) + B·b + A·n + S·w)

e is GeoCLIP's location embedding of a true place off the gallery's points; b the mean direction of an over-predicted
region; n noise of unit expected square in the span of the gallery's leading principal directions (confusable kinds of
places); w isotropic noise, unit variance per axis. A, B, S are calibrated so that GeoCLIP's published errors come out:
first guess 2,464 km, best of ten 1,276 km. What comes of it is simulated, and must be called so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geospot.gallery import Gallery

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]

EARTH_RADIUS_KM = 6371.0088
PHOTO_BATCH = 256  # photos a pass of retrieval: 100 MB of similarities
BLOCK = 100  # gallery points a block of retrieval
PUBLISHED_TOP1_KM = 2464.0
PUBLISHED_BEST_OF_TEN_KM = 1276.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldConfig:
    """How photos are drawn. The defaults are the calibrated world."""

    region_bias: float = 0.5  # B
    low_rank_noise: float = 0.83  # A: square root of the expected square norm
    isotropic_noise: float = 0.16  # S: standard deviation per axis
    rank: int = 32  # principal directions of the gallery that carry the low-rank noise
    region: tuple[float, float, float, float] = (36.0, 60.0, -10.0, 20.0)  # south, north, west, east, degrees
    jitter_km: float = 25.0  # true places lie this far (standard deviation per axis) from a gallery point
    candidates: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Photos:
    """N simulated photos and what retrieval gave for each, most similar first.

    ``place_N2`` true latitude and longitude in degrees; ``context_ND`` unit vectors; ``candidate_NK`` rows of the
    gallery; ``similarity_NK`` cosines; ``distance_NK`` kilometres from the true place.
    """

    place_N2: F32
    context_ND: F32
    candidate_NK: I32
    similarity_NK: F32
    distance_NK: F32

    def __len__(self) -> int:
        return len(self.place_N2)

    def rows(self, index: npt.NDArray[np.integer] | slice) -> Photos:
        """The photos at ``index``, in that order."""
        return Photos(
            place_N2=self.place_N2[index],
            context_ND=self.context_ND[index],
            candidate_NK=self.candidate_NK[index],
            similarity_NK=self.similarity_NK[index],
            distance_NK=self.distance_NK[index],
        )


class World:
    """A gallery and the law by which photos of it are drawn."""

    def __init__(self, gallery: Gallery, config: WorldConfig | None = None) -> None:
        self.gallery = gallery
        self.config = config or WorldConfig()
        self._bias_D = self.config.region_bias * region_direction(gallery, self.config.region)
        self._noise_RD = low_rank_basis(gallery.embedding_GD, self.config.rank) * np.float32(self.config.low_rank_noise)

    def photos(self, count: int, *, seed: int) -> Photos:
        """``count`` photos with their candidates. The same seed gives the same photos."""
        rng = np.random.default_rng(seed)
        place_N2 = self._places(count, rng)
        context_ND = self._contexts(place_N2, rng)
        candidate_NK, similarity_NK = nearest(context_ND, self.gallery.embedding_GD, count=self.config.candidates)
        there_NK2 = self.gallery.coords_G2[candidate_NK]
        return Photos(
            place_N2=place_N2,
            context_ND=context_ND,
            candidate_NK=candidate_NK,
            similarity_NK=similarity_NK,
            distance_NK=haversine_km(place_N2[:, None, :], there_NK2),
        )

    def pairs(self, similarity_NK: F32) -> tuple[F32, F32]:
        """(pair_NKP, score_NK): ``[similarity, share]`` and log share; share = softmax of the scaled similarity."""
        logit = similarity_NK * np.float32(self.gallery.similarity_scale)
        logit = logit - logit.max(axis=-1, keepdims=True)
        log_share = logit - np.log(np.exp(logit).sum(axis=-1, keepdims=True))
        return np.stack([similarity_NK, np.exp(log_share)], axis=-1).astype(np.float32), log_share.astype(np.float32)

    def candidate_log_likelihood(self, photos: Photos) -> F64:
        """log p(z | the photo was taken at candidate k), shape (N, K), up to a constant of the photo."""
        mean_NKD = self.gallery.embedding_GD[photos.candidate_NK] + self._bias_D
        return self._angular_gaussian(
            photos.context_ND,
            np.einsum("nkd,nkd->nk", mean_NKD, self._solve(mean_NKD)),
            np.einsum("nkd,nd->nk", mean_NKD, self._solve(photos.context_ND)),
        )

    def gallery_posterior(self, context_ND: F32) -> Iterator[tuple[slice, F32]]:
        """Batches of p(gallery point | z), shape (batch, G), under a uniform prior over gallery points."""
        mean_GD = self.gallery.embedding_GD + self._bias_D
        solved_GD = self._solve(mean_GD)
        square_G = np.einsum("gd,gd->g", mean_GD, solved_GD)
        for start in range(0, len(context_ND), PHOTO_BATCH):
            z_ND = context_ND[start : start + PHOTO_BATCH]
            log_NG = self._angular_gaussian(z_ND, square_G[None, :], z_ND @ solved_GD.T)
            log_NG -= log_NG.max(axis=1, keepdims=True)
            mass_NG = np.exp(log_NG).astype(np.float32)
            yield slice(start, start + len(z_ND)), mass_NG / mass_NG.sum(axis=1, keepdims=True)

    def _places(self, count: int, rng: np.random.Generator) -> F32:
        near_N2 = self.gallery.coords_G2[rng.integers(len(self.gallery), size=count)]
        step_N2 = rng.normal(scale=self.config.jitter_km / (EARTH_RADIUS_KM * np.pi / 180), size=(count, 2))
        latitude = np.clip(near_N2[:, 0] + step_N2[:, 0], -89.9, 89.9)
        longitude = near_N2[:, 1] + step_N2[:, 1] / np.maximum(np.cos(np.radians(latitude)), 0.05)
        return np.stack([latitude, (longitude + 180) % 360 - 180], axis=1).astype(np.float32)

    def _contexts(self, place_N2: F32, rng: np.random.Generator) -> F32:
        clean_ND = self.gallery.encoder.encode(place_N2) + self._bias_D
        rank, width = self._noise_RD.shape
        low_ND = rng.standard_normal((len(place_N2), rank), dtype=np.float32) @ self._noise_RD
        wide_ND = rng.standard_normal((len(place_N2), width), dtype=np.float32) * np.float32(
            self.config.isotropic_noise
        )
        z_ND = clean_ND + low_ND + wide_ND
        unit_ND: F32 = z_ND / np.linalg.norm(z_ND, axis=1, keepdims=True)
        return unit_ND

    def _solve(self, x_ND: F32) -> F32:
        """x times the inverse covariance of the noise, by Woodbury: rank R plus S² times the identity."""
        s2 = np.float32(self.config.isotropic_noise**2)
        inner_RR = self._noise_RD @ self._noise_RD.T / s2 + np.eye(len(self._noise_RD), dtype=np.float32)
        low = x_ND @ self._noise_RD.T @ np.linalg.inv(inner_RR)
        solved_ND: F32 = (x_ND - low @ self._noise_RD / s2) / s2
        return solved_ND

    def _angular_gaussian(self, z_ND: F32, square: npt.NDArray[np.floating], cross: npt.NDArray[np.floating]) -> F64:
        """log of the density of a normalised Gaussian at z, less the terms that depend on z alone.

        With a = z'Cz, cross = z'Cμ, square = μ'Cμ (C the inverse covariance) and m = cross / sqrt(a), the radius
        integrates to exp(-(square - m²)/2) · ∫ t^(D-1) exp(-(t-m)²/2) dt; the integral by Laplace, exact to 1/D.
        """
        power = z_ND.shape[1] - 1
        a_N1 = np.einsum("nd,nd->n", z_ND, self._solve(z_ND))[:, None].astype(np.float64)
        m = cross / np.sqrt(a_N1)
        peak = (m + np.sqrt(m * m + 4 * power)) / 2
        radial = power * np.log(peak) - (peak - m) ** 2 / 2 - np.log1p(power / peak**2) / 2
        return np.asarray(radial - (square - m * m) / 2)


def haversine_km(a: npt.ArrayLike, b: npt.ArrayLike) -> F32:
    """Great-circle distance in km between latitude, longitude pairs in degrees (last axis 2), broadcast."""
    p, q = np.radians(np.asarray(a, dtype=np.float64)), np.radians(np.asarray(b, dtype=np.float64))
    half = np.sin((q - p) / 2) ** 2
    h = half[..., 0] + np.cos(p[..., 0]) * np.cos(q[..., 0]) * half[..., 1]
    km: F32 = (2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(h, 0.0, 1.0)))).astype(np.float32)
    return km


def nearest(context_ND: F32, embedding_GD: F32, *, count: int) -> tuple[I32, F32]:
    """Rows of the ``count`` gallery points of the highest inner product, best first, and the products: (N, count).

    Exact: the best ``count`` points lie in the ``count`` blocks of the highest maxima, so only those are sorted.
    """
    rows = np.empty((len(context_ND), count), np.int32)
    products = np.empty((len(context_ND), count), np.float32)
    starts = np.arange(0, len(embedding_GD), BLOCK)
    kept = min(count, len(starts))
    for start in range(0, len(context_ND), PHOTO_BATCH):
        product_NG = context_ND[start : start + PHOTO_BATCH] @ embedding_GD.T
        maximum_NB = np.maximum.reduceat(product_NG, starts, axis=1)
        block = np.argpartition(maximum_NB, -kept, axis=1)[:, -kept:]
        at = (block[:, :, None] * BLOCK + np.arange(BLOCK)).reshape(len(block), -1)
        value = np.take_along_axis(product_NG, np.minimum(at, len(embedding_GD) - 1), axis=1)
        value[at >= len(embedding_GD)] = -np.inf
        order = np.lexsort((at, -value), axis=1)[:, :count]
        rows[start : start + len(block)] = np.take_along_axis(at, order, axis=1)
        products[start : start + len(block)] = np.take_along_axis(value, order, axis=1)
    return rows, products


def region_direction(gallery: Gallery, region: tuple[float, float, float, float]) -> F32:
    """Unit mean embedding of the gallery points inside (south, north, west, east)."""
    south, north, west, east = region
    latitude, longitude = gallery.coords_G2[:, 0], gallery.coords_G2[:, 1]
    inside = (latitude >= south) & (latitude <= north) & (longitude >= west) & (longitude <= east)
    if not inside.any():
        raise ValueError(f"No gallery point lies in the region {region}; give (south, north, west, east) in degrees.")
    mean_D = gallery.embedding_GD[inside].mean(axis=0)
    return np.asarray(mean_D / np.linalg.norm(mean_D), dtype=np.float32)


def low_rank_basis(embedding_GD: F32, rank: int) -> F32:
    """Leading principal directions times their standard deviations, scaled to unit total variance: (rank, D)."""
    centred = embedding_GD - embedding_GD.mean(axis=0)
    variance_D, direction_DD = np.linalg.eigh((centred.T @ centred).astype(np.float64) / len(centred))
    top = slice(-1, -rank - 1, -1)
    share_R = variance_D[top] / variance_D[top].sum()
    return np.ascontiguousarray((direction_DD[:, top] * np.sqrt(share_R)).T, dtype=np.float32)
