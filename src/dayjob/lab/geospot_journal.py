"""The Geospot world without HTTP: photos kept on disk, lists drawn as the server draws them, clicks, and the replay
they make."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
from geospot.gallery import load_gallery
from geospot.play import photos_of
from geospot.users import Users
from geospot.world import Photos, World, haversine_km

from dayjob.learn.replay import Replay
from dayjob.policies.plackett_luce import Explore
from dayjob.policies.protocol import Lists, Ranker

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

LIST_BATCH = 2000  # lists scored at a time: 40 MB of candidate vectors


def load_world(cache_dir: Path) -> World:
    """The calibrated world over GeoCLIP's gallery; embeddings are cached under ``cache_dir``."""
    return World(load_gallery(cache_dir))


def load_photos(world: World, count: int, *, seed: int, cache_dir: Path) -> Photos:
    """``count`` simulated photos, drawn once and kept under ``cache_dir`` by the world's settings, the count and the
    seed."""
    return _kept(world, f"photos-n{count}-seed{seed}", lambda: world.photos(count, seed=seed), cache_dir=cache_dir)


def load_played(world: World, rounds: int, *, seed: int, cache_dir: Path) -> Photos:
    """The photos that `geospot.play` deals in a play of ``rounds`` rounds with this seed, in that order; kept too."""

    def deal() -> Photos:
        parts = list(photos_of(world, rounds=rounds, seed=seed))
        return Photos(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Photos)})

    return _kept(world, f"played-n{rounds}-seed{seed}", deal, cache_dir=cache_dir)


def _kept(world: World, name: str, draw: Callable[[], Photos], *, cache_dir: Path) -> Photos:
    c = world.config
    size = f"G{len(world.gallery)}-B{c.region_bias:g}-A{c.low_rank_noise:g}-S{c.isotropic_noise:g}-r{c.rank}"
    path = cache_dir / f"{name}-{size}.npz"
    if not path.exists():
        photos = draw()
        partial = path.with_name(f"{path.stem}.{os.getpid()}.partial.npz")  # another process may draw the same
        np.savez(partial, **{field.name: getattr(photos, field.name) for field in fields(Photos)})
        partial.replace(path)
    with np.load(path, allow_pickle=False) as stored:
        return Photos(**{field.name: stored[field.name] for field in fields(Photos)})


def base_scores(world: World, photos: Photos) -> F64:
    """The caller's scores (N, K): log share of the scaled similarity."""
    return world.pairs(photos.similarity_NK)[1].astype(np.float64)


def km_between(world: World, photos: Photos) -> npt.NDArray[np.float32]:
    """(N, K, K): km between the candidates of each photo."""
    there_NK2 = world.gallery.coords_G2[photos.candidate_NK]
    return haversine_km(there_NK2[:, :, None, :], there_NK2[:, None, :, :])


def lists(world: World, photos: Photos, *, losses: bool) -> Lists:
    """Photos as a ranker is given them; ``losses``: with the km between candidates."""
    pair_NKP, score_NK = world.pairs(photos.similarity_NK)
    return Lists(
        context_BD=photos.context_ND,
        candidate_BKE=world.gallery.embedding_GD[photos.candidate_NK],
        pair_BKP=pair_NKP,
        base_BK=score_NK.astype(np.float64),
        loss_BKK=km_between(world, photos).astype(np.float64) if losses else None,
    )


def scores(world: World, photos: Photos, *, ranker: Ranker) -> F64:
    """A ranker's scores (N, K) of photos, km between candidates known, as the server asks for them."""
    parts = [photos.rows(slice(start, start + LIST_BATCH)) for start in range(0, len(photos), LIST_BATCH)]
    return np.concatenate([ranker.score(lists(world, part, losses=True)) for part in parts])


def beliefs(world: World, photos: Photos, *, ranker: Ranker) -> F64:
    """A ranker's beliefs (N, K): what a trial compares."""
    parts = [photos.rows(slice(start, start + LIST_BATCH)) for start in range(0, len(photos), LIST_BATCH)]
    return np.concatenate([ranker.utility(lists(world, part, losses=False)) for part in parts])


def draw(score_NK: F64, explore: Explore, *, rng: np.random.Generator) -> tuple[I64, F64]:
    """(slots in the order shown, propensities), both (N, K): as :func:`dayjob.policies.plackett_luce.draw`, many lists
    at once."""
    count, width = score_NK.shape
    if explore.temperature > 0:
        shown_NK = np.argsort(
            -(score_NK / explore.temperature + rng.gumbel(size=score_NK.shape)), axis=1, kind="stable"
        )
    else:
        shown_NK = np.argsort(-score_NK, axis=1, kind="stable")
    forced_N1 = rng.random((count, 1)) < explore.epsilon
    slot_N1 = rng.integers(width, size=(count, 1))
    moved_NK = np.where(shown_NK == slot_N1, -1, np.arange(width))
    forced_NK = np.take_along_axis(shown_NK, np.argsort(moved_NK, axis=1, kind="stable"), axis=1)
    shown_NK = np.where(forced_N1, forced_NK, shown_NK)
    return shown_NK, _propensities(score_NK, shown_NK, explore)


def _propensities(score_NK: F64, shown_NK: I64, explore: Explore) -> F64:
    if explore.temperature > 0:
        logit_NK = np.take_along_axis(score_NK, shown_NK, axis=1) / explore.temperature
        logit_NK = logit_NK - logit_NK.max(axis=1, keepdims=True)
        rest_NK = np.logaddexp.accumulate(logit_NK[:, ::-1], axis=1)[:, ::-1]
        each_NK = np.exp(logit_NK - rest_NK)
    else:
        plain_NK = np.argsort(-score_NK, axis=1, kind="stable")
        each_NK = (plain_NK == shown_NK).astype(np.float64)
        each_NK[:, 1:] = 1.0  # given a forced first place the rest follows in order
    each_NK[:, 0] = explore.epsilon / score_NK.shape[1] + (1 - explore.epsilon) * each_NK[:, 0]
    clipped_NK: F64 = np.clip(each_NK, 1e-30, 1.0)
    return clipped_NK


def journal(
    world: World, photos: Photos, *, score_NK: F64, users: Users, user_N: npt.NDArray[np.integer], explore: Explore,
    rng: np.random.Generator,
) -> Replay:  # fmt: skip
    """What the journal would hold after these photos were shown by ``score_NK`` and clicked by ``user_N`` of
    ``users``."""
    shown_NK, propensity_NK = draw(score_NK, explore, rng=rng)
    click_N = users.click(np.take_along_axis(photos.distance_NK, shown_NK, axis=1), user_N, rng=rng)
    return as_replay(world, photos, shown_NK=shown_NK, propensity_NK=propensity_NK, click_N=click_N, user_N=user_N)


def as_replay(
    world: World,
    photos: Photos,
    *,
    shown_NK: I64,
    propensity_NK: F64,
    click_N: npt.NDArray[np.integer],
    user_N: npt.NDArray[np.integer],
) -> Replay:
    """Arrays for the learner."""
    pair_NKP, score_NK = world.pairs(photos.similarity_NK)
    row_V, index = np.unique(photos.candidate_NK, return_inverse=True)
    return Replay(
        context_BD=photos.context_ND,
        vector_VE=world.gallery.embedding_GD[row_V],
        candidate_BK=index.reshape(photos.candidate_NK.shape).astype(np.int32),
        pair_BKP=pair_NKP,
        base_BK=score_NK,
        shown_BK=shown_NK.astype(np.int16),
        propensity_BK=propensity_NK.astype(np.float32),
        click_B=click_N.astype(np.int16),
        truth_B=np.full(len(photos), -1, np.int16),
        user_B=user_N.astype(np.int32),
        role_B=np.zeros(len(photos), np.int16),
        loss_BKK=km_between(world, photos),
    )
