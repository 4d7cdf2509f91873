"""The simulated photos, on a small piece of the real gallery."""

import numpy as np
import pytest
from geospot.gallery import Gallery, geoclip_folder, load_encoder, read_coordinates
from geospot.world import World, WorldConfig, haversine_km, low_rank_basis, nearest, region_direction


@pytest.fixture(scope="module")
def small():
    coords = read_coordinates(geoclip_folder() / "gps_gallery" / "coordinates_100K.csv")[:1500]
    encoder = load_encoder()
    return Gallery(coords_G2=coords, embedding_GD=encoder.encode(coords), similarity_scale=39.7, encoder=encoder)


def test_haversine_by_hand():
    assert haversine_km([0, 0], [0, 90]) == pytest.approx(6371.0088 * np.pi / 2, rel=1e-6)
    assert haversine_km([48.8566, 2.3522], [51.5074, -0.1278]) == pytest.approx(343.5, abs=1.0)  # Paris, London
    assert haversine_km([90, 0], [-90, 57]) == pytest.approx(6371.0088 * np.pi, rel=1e-6)


def test_nearest_is_exact(small):
    rng = np.random.default_rng(0)
    z = rng.standard_normal((40, 512)).astype(np.float32)
    rows, products = nearest(z, small.embedding_GD, count=10)
    every = z @ small.embedding_GD.T
    want = np.argsort(-every, axis=1)[:, :10]
    assert np.allclose(products, np.take_along_axis(every, want, axis=1), atol=1e-5)
    assert (rows == want).mean() > 0.99  # equal products may change places


def test_photos_are_what_they_claim(small):
    photos = World(small).photos(300, seed=3)
    assert np.linalg.norm(photos.context_ND, axis=1) == pytest.approx(1.0, abs=1e-5)
    there = small.coords_G2[photos.candidate_NK]
    assert np.allclose(photos.distance_NK, haversine_km(photos.place_N2[:, None], there))
    assert (np.diff(photos.similarity_NK, axis=1) <= 1e-6).all()
    again = World(small).photos(300, seed=3)
    assert (again.context_ND == photos.context_ND).all()
    # True places lie off the gallery's points, by the jitter: the nearest is some km away, none at 0.
    nearest_km = haversine_km(photos.place_N2[:, None], small.coords_G2[None]).min(axis=1)
    assert nearest_km.min() > 0
    assert 3 < np.median(nearest_km) < 60


def test_noise_has_the_size_it_is_given(small):
    basis = low_rank_basis(small.embedding_GD, 32)
    assert (basis**2).sum() == pytest.approx(1.0, abs=1e-4)
    quiet = World(small, WorldConfig(region_bias=0.0, low_rank_noise=0.0, isotropic_noise=1e-3)).photos(200, seed=1)
    loud = World(small).photos(200, seed=1)
    assert quiet.distance_NK[:, 0].mean() < 0.5 * loud.distance_NK[:, 0].mean()


def test_the_likelihood_prefers_the_truth_and_matches_a_direct_integral(small):
    world = World(small, WorldConfig(rank=4))
    photos = world.photos(400, seed=2)
    log_NK = world.candidate_log_likelihood(photos)
    best = np.arange(400), photos.distance_NK.argmin(axis=1)
    random = np.arange(400), np.random.default_rng(0).integers(10, size=400)
    assert log_NK[best].mean() > log_NK[random].mean()
    # Numerically: integral over the radius r of r^511 N(r z; mean, noise), for two candidates of one photo.
    noise = world._noise_RD.astype(np.float64)
    precision = np.linalg.inv(noise.T @ noise + world.config.isotropic_noise**2 * np.eye(512))
    z = photos.context_ND[0].astype(np.float64)
    radius = np.linspace(0.5, 12, 20_000)
    logs = []
    for k in (0, 7):
        mean = small.embedding_GD[photos.candidate_NK[0, k]].astype(np.float64) + world._bias_D
        a, b, c = z @ precision @ z, z @ precision @ mean, mean @ precision @ mean
        exponent = 511 * np.log(radius) - (a * radius**2 - 2 * b * radius + c) / 2
        logs.append(exponent.max() + np.log(np.exp(exponent - exponent.max()).sum()))
    assert log_NK[0, 0] - log_NK[0, 7] == pytest.approx(logs[0] - logs[1], abs=2e-2)


def test_the_gallery_posterior_sums_to_one_and_agrees_with_the_candidates(small):
    world = World(small)
    photos = world.photos(20, seed=4)
    ((batch, mass_NG),) = list(world.gallery_posterior(photos.context_ND))
    assert batch == slice(0, 20)
    assert mass_NG.sum(axis=1) == pytest.approx(1.0, abs=1e-4)
    ratio = np.log(np.take_along_axis(mass_NG, photos.candidate_NK.astype(np.int64), axis=1))
    gap = ratio - world.candidate_log_likelihood(photos)
    assert np.abs(gap - gap[:, :1])[:, :3].max() < 0.05


def test_pairs_by_hand(small):
    pair, score = World(small).pairs(np.array([[0.5, 0.5, 0.4]], np.float32))
    share = np.exp(39.7 * np.array([0, 0, -0.1]))
    assert pair[0, :, 1] == pytest.approx(share / share.sum(), rel=1e-4)
    assert score[0] == pytest.approx(np.log(share / share.sum()), abs=1e-4)


def test_an_empty_region_is_refused(small):
    with pytest.raises(ValueError, match="No gallery point"):
        region_direction(small, (0.0, 0.001, 0.0, 0.001))


@pytest.mark.slow
def test_the_world_is_calibrated(tmp_path):
    from geospot.gallery import load_gallery
    from geospot.world import PUBLISHED_BEST_OF_TEN_KM, PUBLISHED_TOP1_KM

    photos = World(load_gallery(tmp_path)).photos(20_000, seed=1001)
    assert photos.distance_NK[:, 0].mean() == pytest.approx(PUBLISHED_TOP1_KM, rel=0.03)
    assert photos.distance_NK.min(axis=1).mean() == pytest.approx(PUBLISHED_BEST_OF_TEN_KM, rel=0.03)
