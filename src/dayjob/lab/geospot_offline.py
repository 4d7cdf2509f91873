"""The learners of the Geospot table in one process: each on the same simulated photos, greedy and as sampled.

``TRAINERS`` and ``ORACLES`` are the rows: to compare another learner, add its name and function there. Published
learners learn online: each list is drawn from the policy being learned (Plackett-Luce at temperature 1). Ours and naive
clicks learn from what the caller's own order would have collected, 5 % of first places changed, as the server explores;
no gate stands between a fit and its score, so these rows show the fits themselves.

The photos learned from are those that `geospot.play` deals with the same seed, so that a row here and a play over HTTP
see the same photos and people; what judges them is drawn for each seed too. All photos are simulated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import numpy as np
import numpy.typing as npt
from geospot.play import people_of
from geospot.users import Users
from geospot.world import Photos, World, haversine_km

from dayjob.lab import geospot_journal as journals
from dayjob.learn.fit import fit, score_spread
from dayjob.learn.online import OnlineLearner, OnlineRecipe
from dayjob.learn.recipes import RECIPES, Debiased, Dpo, Naive, Recipe, Reinforce
from dayjob.learn.replay import Replay
from dayjob.policies.plackett_luce import Explore, calibrate
from dayjob.policies.protocol import Ranker
from dayjob.policies.ranker import NumpyRanker, RankerSpec

F64 = npt.NDArray[np.float64]

HIDDEN = (256, 256)
CHANGED_FIRST = 0.05
HELD_OUT = 10_000  # photos that judge, of each seed
HELD_OUT_SEED = 1_000_003  # plus the seed: far from the seeds of plays
POSTERIOR_PHOTOS = 1000  # held-out photos for the choice by the whole gallery's posterior, which is slow
POSTERIOR_PLACES = 3000  # most probable places that are summed over
SAMPLED = Explore(epsilon=0.0, temperature=1.0)  # how the published policies show their lists


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """What all rows of a seed share: the world, the photos of the play and those that judge."""

    world: World
    seed: int
    learn: Photos
    test: Photos

    @property
    def base_km(self) -> float:
        """How far off the first guess is on the photos that judge."""
        return float(self.test.distance_NK[:, 0].mean())

    def change(self, first_N: npt.NDArray[np.integer], photos: slice = slice(None)) -> float:
        """Mean km of these first choices against the caller's, as a share: -0.1 is a tenth better."""
        distance_NK = self.test.distance_NK[photos]
        return float(distance_NK[np.arange(len(first_N)), first_N].mean() / distance_NK[:, 0].mean() - 1)


Scores = dict[str, float]  # "greedy" and "sampled": change in km; "hits": share of lists with the closest first


class Trainer(Protocol):
    """A row of the table."""

    def __call__(self, field: Field, users: Users, *, marks: Sequence[int]) -> list[Scores]:
        """Scores after each number of interactions in ``marks``, which grow."""
        ...


def load_field(world: World, *, seed: int, rounds: int, cache_dir: Path, held_out: int = HELD_OUT) -> Field:
    """The photos of one seed; drawn once, a minute, then kept under ``cache_dir``."""
    return Field(
        world=world,
        seed=seed,
        learn=journals.load_played(world, rounds, seed=seed, cache_dir=cache_dir),
        test=journals.load_photos(world, held_out, seed=HELD_OUT_SEED + seed, cache_dir=cache_dir),
    )


def judge(field: Field, score_NK: F64, *, explore: Explore) -> Scores:
    """Change in km of the first choice, greedy and as the policy would show it."""
    shown_NK, _ = journals.draw(score_NK, explore, rng=np.random.default_rng([field.seed, 1]))
    first_N = score_NK.argmax(axis=1)
    hits = float((first_N == field.test.distance_NK.argmin(axis=1)).mean())
    return {"greedy": field.change(first_N), "sampled": field.change(shown_NK[:, 0]), "hits": hits}


def online(recipe: OnlineRecipe) -> Trainer:
    """A published learner, learning from lists drawn from itself."""

    def train(field: Field, users: Users, *, marks: Sequence[int]) -> list[Scores]:
        photos, rng = field.learn.rows(slice(0, max(marks))), np.random.default_rng([field.seed, 2])
        whole = collected(field, users, explore=SAMPLED, rng=rng, count=max(marks))
        learner = OnlineLearner(spec_of(whole), recipe, seed=field.seed, score_spread=score_spread(whole))
        curve = []
        for before, mark in zip((0, *marks[:-1]), marks, strict=True):
            for start in range(before, mark, recipe.batch):
                at = slice(start, min(start + recipe.batch, mark))
                batch = whole.rows(at)
                shown_BK, _ = journals.draw(learner.score(batch).astype(np.float64), SAMPLED, rng=rng)
                distance_BK = np.take_along_axis(photos.distance_NK[at], shown_BK, axis=1)
                click_B = users.click(distance_BK, batch.user_B, rng=rng)
                learner.learn(replace(batch, shown_BK=shown_BK.astype(np.int16), click_B=click_B))
            ranker = NumpyRanker(learner.network.weights(), learner.network.spec.to_json())
            curve.append(_judged(field, ranker, explore=SAMPLED))
        return curve

    return train


def replayed(recipe: Recipe) -> Trainer:
    """A recipe fitted to the first decisions up to each mark of what the caller's order collected."""

    def train(field: Field, users: Users, *, marks: Sequence[int]) -> list[Scores]:
        rng = np.random.default_rng([field.seed, 3])
        whole = collected(field, users, explore=None, rng=rng, count=max(marks))
        return [judged_fit(field, whole.rows(slice(0, mark)), recipe=recipe) for mark in marks]

    return train


def collected(field: Field, users: Users, *, explore: Explore | None, rng: np.random.Generator, count: int) -> Replay:
    """The first ``count`` photos of the field as the caller's order shows them, clicked; ``explore`` None: by
    default."""
    photos = field.learn.rows(slice(0, count))
    score_NK = journals.base_scores(field.world, photos)
    explore = explore or calibrate(list(score_NK[:500]), changed_first=CHANGED_FIRST)
    user_N = people_of(users, rounds=len(field.learn), seed=field.seed)[:count]
    return journals.journal(
        field.world, photos, score_NK=score_NK, users=users, user_N=user_N, explore=explore, rng=rng
    )


def told_the_truth(*, residual: bool) -> Trainer:
    """The published network told which candidate is closest: cross-entropy on the truth, one pass."""

    def train(field: Field, users: Users, *, marks: Sequence[int]) -> list[Scores]:
        del users  # nobody clicks here
        photos = field.learn.rows(slice(0, max(marks)))
        count, width = photos.distance_NK.shape
        whole = journals.as_replay(
            field.world, photos,
            shown_NK=np.tile(np.arange(width), (count, 1)),
            propensity_NK=np.ones((count, width)),
            click_N=photos.distance_NK.argmin(axis=1),
            user_N=np.full(count, -1),
        )  # fmt: skip
        recipe = Naive(residual=residual)
        return [judged_fit(field, whole.rows(slice(0, mark)), recipe=recipe) for mark in marks]

    return train


ORACLES: Mapping[str, Trainer] = MappingProxyType(
    {
        "published network, true distances": told_the_truth(residual=False),
        "the same on the caller's score, true distances": told_the_truth(residual=True),
    }
)
"""Rows that nobody's clicks taught: once a seed."""

TRAINERS: Mapping[str, Trainer] = MappingProxyType(
    {
        "published REINFORCE": online(Reinforce()),
        "published DPO": online(Dpo()),
        "naive clicks": replayed(Naive()),
        "mixture likelihood, published network": replayed(RECIPES["mixture"]),
        "mixture likelihood, set-aware network": replayed(RECIPES["mixture-set"]),
        "skip-above pairs, published network": replayed(RECIPES["skip-above"]),
        "doubly robust, published network": replayed(RECIPES["doubly-robust"]),
        "PL-rank, published network": replayed(RECIPES["pl-rank"]),
        "ours, fits without the gate": replayed(Debiased()),
    }
)
"""Rows that learn from clicks: once a seed and kind of users. Another learner is another entry."""


def fixed_rows(field: Field) -> Scores:
    """Change in km of choices that learn nothing: best of ten, a random pick, the Bayes choices by the world's
    likelihood."""
    test = field.test
    log_NK = field.world.candidate_log_likelihood(test)
    belief_NK = np.exp(log_NK - log_NK.max(axis=1, keepdims=True))
    belief_NK /= belief_NK.sum(axis=1, keepdims=True)
    expected_NK = np.einsum("nkj,nj->nk", journals.km_between(field.world, test), belief_NK)
    return {
        "baseline: the first guess": 0.0,
        "best of ten": field.change(test.distance_NK.argmin(axis=1)),
        "random pick": float(test.distance_NK.mean() / field.base_km - 1),
        "Bayes, most probable of the ten": field.change(log_NK.argmax(axis=1)),
        "Bayes, least expected km over the ten": field.change(expected_NK.argmin(axis=1)),
        "Bayes, least expected km over the gallery": _gallery_choice(field),
    }


def _gallery_choice(field: Field) -> float:
    some = slice(0, POSTERIOR_PHOTOS)
    coords_G2, test = field.world.gallery.coords_G2, field.test.rows(some)
    first = []
    for batch, mass_NG in field.world.gallery_posterior(test.context_ND):
        for row, mass_G in zip(test.candidate_NK[batch], mass_NG, strict=True):
            likely = np.argsort(-mass_G)[:POSTERIOR_PLACES]
            km_KP = haversine_km(coords_G2[row][:, None, :], coords_G2[likely][None, :, :])
            first.append(int((km_KP @ mass_G[likely]).argmin()))
    return field.change(np.array(first), some)


def judged_fit(field: Field, replay: Replay, *, recipe: Recipe) -> Scores:
    """The scores of a recipe fitted to ``replay``; as sampled: with the server's exploration."""
    fitted = fit(replay, shape=HIDDEN, recipe=recipe, seed=field.seed)
    return _judged(field, NumpyRanker(fitted.weights, fitted.network), explore=None)


def _judged(field: Field, ranker: Ranker, *, explore: Explore | None) -> Scores:
    score_NK = journals.scores(field.world, field.test, ranker=ranker)
    return judge(field, score_NK, explore=explore or calibrate(list(score_NK[:500]), changed_first=CHANGED_FIRST))


def spec_of(replay: Replay) -> RankerSpec:
    """The shape of a network for these decisions."""
    return RankerSpec(
        context_dim=replay.context_BD.shape[1],
        candidate_dim=replay.vector_VE.shape[1],
        pair_dim=replay.pair_BKP.shape[2],
        hidden=HIDDEN,
    )
