"""A small retrieval world: contexts are noisy in a few directions, candidates come from one catalog, most users click
the top."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from dayjob.learn.replay import Replay

DIM, NOISY, CATALOG, WIDTH = 24, 4, 400, 6


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A replay, and which slot is really right."""

    replay: Replay
    right_B: np.ndarray


@functools.lru_cache(maxsize=12)
def draw_world(
    count: int, *, seed: int = 0, pull: float = 0.65, noise: float = 0.0, people: int = 0, dim: int = DIM
) -> Drawn:
    """``pull`` of the clicks fall on position 1, ``noise`` anywhere, the rest on the right slot. A tenth of the first
    places is drawn evenly. ``dim``: length of the candidates; other than DIM they are a random projection."""
    rng = np.random.default_rng(seed)
    world = np.random.default_rng(99)
    catalog = world.standard_normal((CATALOG, DIM)).astype(np.float32)
    catalog /= np.linalg.norm(catalog, axis=1, keepdims=True)
    noisy = np.linalg.qr(world.standard_normal((DIM, NOISY)))[0].T
    right = rng.integers(CATALOG, size=count)
    context = (
        catalog[right] + rng.standard_normal((count, NOISY)) @ noisy * 0.8 + rng.standard_normal((count, DIM)) * 0.08
    )
    context = (context / np.linalg.norm(context, axis=1, keepdims=True)).astype(np.float32)
    similarity = context @ catalog.T
    similarity[np.arange(count), right] += 10  # the right one is always among the candidates
    slots = np.argpartition(-similarity, WIDTH, axis=1)[:, :WIDTH].astype(np.int32)
    nearest = np.argsort(-np.take_along_axis(similarity, slots, axis=1), axis=1)
    slots = np.take_along_axis(slots, nearest, axis=1)
    slots = np.take_along_axis(slots, np.argsort(rng.random(slots.shape), axis=1), axis=1)
    base = np.einsum("bd,bkd->bk", context, catalog[slots]).astype(np.float32)
    right_slot = (slots == right[:, None]).argmax(axis=1)
    shown = np.argsort(-base, axis=1)
    for b in np.flatnonzero(rng.random(count) < 0.1):
        first = rng.integers(WIDTH)
        shown[b] = [first, *[s for s in shown[b] if s != first]]
    chance = rng.random(count)
    wanted = (shown == right_slot[:, None]).argmax(axis=1)
    anywhere = rng.integers(WIDTH, size=count)
    click = np.where(chance < pull, 0, np.where(chance < pull + noise, anywhere, wanted))
    vectors = catalog if dim == DIM else catalog @ world.standard_normal((DIM, dim)).astype(np.float32)
    place = catalog[:, :2]
    replay = Replay(
        context_BD=context,
        vector_VE=vectors,
        candidate_BK=slots,
        pair_BKP=base[:, :, None],
        base_BK=base,
        shown_BK=shown.astype(np.int16),
        propensity_BK=np.full(base.shape, 0.5, np.float32),
        click_B=click.astype(np.int16),
        truth_B=np.full(count, -1, np.int16),
        user_B=rng.integers(people, size=count).astype(np.int32) if people else np.full(count, -1, np.int32),
        role_B=np.zeros(count, np.int16),
        loss_BKK=np.linalg.norm(place[slots][:, :, None] - place[slots][:, None], axis=3).astype(np.float32),
    )
    return Drawn(replay=replay.check(), right_B=right_slot)


@pytest.fixture(scope="session")
def world() -> Callable[..., Drawn]:
    """:func:`draw_world`."""
    torch.set_num_threads(1)
    return draw_world
