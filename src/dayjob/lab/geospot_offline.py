"""The Geospot table in one process: every learner on the same simulated photos and users, greedy and as sampled.

    python -m dayjob.lab.geospot_offline --seeds 5 --out docs/lab

Published learners learn online: each list is drawn from the policy being learned (Plackett-Luce at temperature 1). Ours
and naive clicks learn from what the caller's own order would have collected, 5 % of first places changed, as the server
explores; here no gate stands between a fit and its score, so the table shows the fits themselves. All photos are
simulated.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from geospot.users import POPULATIONS, Population, Users
from geospot.world import Photos, World, haversine_km
from rich.console import Console

from dayjob.lab import geospot_journal as journals
from dayjob.lab.gate import print_rows
from dayjob.learn.fit import Fitted, fit, score_spread
from dayjob.learn.online import OnlineLearner, OnlineRecipe
from dayjob.learn.recipes import Debiased, Dpo, Naive, Reinforce
from dayjob.learn.replay import Replay
from dayjob.policies.plackett_luce import Explore, calibrate
from dayjob.policies.protocol import Lists
from dayjob.policies.ranker import NumpyRanker, RankerSpec

F64 = npt.NDArray[np.float64]

MARKS = (200, 1000, 5000, 20_000)
HIDDEN = (256, 256)
CHANGED_FIRST = 0.05
LEARN_PHOTOS, TEST_PHOTOS = 60_000, 20_000
PHOTO_SEEDS = (2002, 1001)  # of the photos learned from, and of those that judge
POSTERIOR_PHOTOS = 1000  # test photos for the choice by the whole gallery's posterior, which is slow
POSTERIOR_PLACES = 3000  # most probable places that are summed over
SAMPLED = Explore(epsilon=0.0, temperature=1.0)  # how the published policies show their lists


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """What all rows share: the world, photos to learn from and photos to be judged by."""

    world: World
    learn: Photos
    test: Photos
    test_lists: Lists
    base_km: float

    def change(self, first_N: npt.NDArray[np.integer], photos: slice = slice(None)) -> float:
        """Mean km of these first choices against the caller's, as a share: -0.1 is a tenth better."""
        distance_NK = self.test.distance_NK[photos]
        return float(distance_NK[np.arange(len(first_N)), first_N].mean() / distance_NK[:, 0].mean() - 1)


Scores = dict[str, float]  # "greedy" and "sampled": change in km; "hits": share of lists with the closest first


def load_field(cache_dir: Path, *, learn_photos: int = LEARN_PHOTOS, test_photos: int = TEST_PHOTOS) -> Field:
    """The world and its photos; drawn once, minutes, then kept under ``cache_dir``."""
    world = journals.load_world(cache_dir)
    learn = journals.load_photos(world, learn_photos, seed=PHOTO_SEEDS[0], cache_dir=cache_dir)
    test = journals.load_photos(world, test_photos, seed=PHOTO_SEEDS[1], cache_dir=cache_dir)
    test_lists = journals.lists(world, test, losses=True)
    return Field(
        world=world, learn=learn, test=test, test_lists=test_lists, base_km=float(test.distance_NK[:, 0].mean())
    )


def photos_of(field: Field, count: int, *, seed: int) -> Photos:
    """``count`` photos to learn from, another draw for each seed."""
    order = np.random.default_rng(seed).permutation(len(field.learn))
    return field.learn.rows(order[:count])


def judge(field: Field, score_NK: F64, *, explore: Explore, seed: int) -> Scores:
    """Change in km of the first choice, greedy and as the policy would show it."""
    shown_NK, _ = journals.draw(score_NK, explore, rng=np.random.default_rng([seed, 1]))
    first_N = score_NK.argmax(axis=1)
    hits = float((first_N == field.test.distance_NK.argmin(axis=1)).mean())
    return {"greedy": field.change(first_N), "sampled": field.change(shown_NK[:, 0]), "hits": hits}


def online_curve(field: Field, recipe: OnlineRecipe, *, users: Users, seed: int, marks: Sequence[int]) -> list[Scores]:
    """A published learner, learning from lists drawn from itself; judged at each mark."""
    photos = photos_of(field, max(marks), seed=seed)
    rng = np.random.default_rng([seed, 2])
    whole = journals.journal(
        field.world, photos, score_NK=journals.base_scores(field.world, photos), users=users, explore=SAMPLED, rng=rng
    )
    learner = OnlineLearner(_spec(whole), recipe, seed=seed, score_spread=score_spread(whole))
    curve = []
    for before, mark in zip((0, *marks[:-1]), marks, strict=True):
        for start in range(before, mark, recipe.batch):
            at = slice(start, min(start + recipe.batch, mark))
            batch = whole.rows(at)
            shown_BK, _ = journals.draw(learner.score(batch).astype(np.float64), SAMPLED, rng=rng)
            distance_BK = np.take_along_axis(photos.distance_NK[at], shown_BK, axis=1)
            click_B = users.click(distance_BK, batch.user_B, rng=rng)
            learner.learn(replace(batch, shown_BK=shown_BK.astype(np.int16), click_B=click_B))
        curve.append(judge(field, _network_scores(field, learner), explore=SAMPLED, seed=seed))
    return curve


def replay_curve(
    field: Field, recipe: Debiased | Naive, *, users: Users, seed: int, marks: Sequence[int]
) -> list[tuple[Scores, Fitted]]:
    """A recipe fitted to the first decisions up to each mark of what the caller's order collected."""
    photos = photos_of(field, max(marks), seed=seed)
    score_NK = journals.base_scores(field.world, photos)
    explore = calibrate(list(score_NK[:500]), changed_first=CHANGED_FIRST)
    rng = np.random.default_rng([seed, 3])
    whole = journals.journal(field.world, photos, score_NK=score_NK, users=users, explore=explore, rng=rng)
    return [_fit_and_judge(field, whole.rows(slice(0, mark)), recipe, seed=seed) for mark in marks]


def oracle_curve(field: Field, *, seed: int, marks: Sequence[int], residual: bool) -> list[Scores]:
    """The published network told which candidate is closest: cross-entropy on the truth, one pass."""
    photos = photos_of(field, max(marks), seed=seed)
    count, width = photos.distance_NK.shape
    whole = journals.as_replay(
        field.world,
        photos,
        shown_NK=np.tile(np.arange(width), (count, 1)),
        propensity_NK=np.ones((count, width)),
        click_N=photos.distance_NK.argmin(axis=1),
        user_N=np.full(count, -1),
    )
    recipe = Naive(residual=residual)
    return [_fit_and_judge(field, whole.rows(slice(0, mark)), recipe, seed=seed)[0] for mark in marks]


def fixed_rows(field: Field) -> dict[str, float]:
    """Change in km of choices that learn nothing: best of ten, a random pick, the Bayes choices by the world's
    likelihood."""
    test = field.test
    log_NK = field.world.candidate_log_likelihood(test)
    belief_NK = np.exp(log_NK - log_NK.max(axis=1, keepdims=True))
    belief_NK /= belief_NK.sum(axis=1, keepdims=True)
    assert field.test_lists.loss_BKK is not None
    expected_NK = np.einsum("nkj,nj->nk", field.test_lists.loss_BKK, belief_NK)
    return {
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


def _fit_and_judge(field: Field, replay: Replay, recipe: Debiased | Naive, *, seed: int) -> tuple[Scores, Fitted]:
    fitted = fit(replay, shape=HIDDEN, recipe=recipe, seed=seed)
    score_NK = _score(NumpyRanker(fitted.weights, fitted.network), field.test_lists)
    explore = calibrate(list(score_NK[:500]), changed_first=CHANGED_FIRST)
    return judge(field, score_NK, explore=explore, seed=seed), fitted


def _network_scores(field: Field, learner: OnlineLearner) -> F64:
    return _score(NumpyRanker(learner.network.weights(), learner.network.spec.to_json()), field.test_lists)


def _score(ranker: NumpyRanker, lists: Lists) -> F64:
    parts = [ranker.score(part) for part in _parts(lists)]
    return np.concatenate(parts)


def _parts(lists: Lists) -> Iterator[Lists]:
    for start in range(0, len(lists.context_BD), journals.LIST_BATCH):
        at = slice(start, start + journals.LIST_BATCH)
        yield Lists(
            context_BD=lists.context_BD[at],
            candidate_BKE=lists.candidate_BKE[at],
            pair_BKP=lists.pair_BKP[at],
            base_BK=lists.base_BK[at],
            loss_BKK=None if lists.loss_BKK is None else lists.loss_BKK[at],
        )


def _spec(replay: Replay) -> RankerSpec:
    return RankerSpec(
        context_dim=replay.context_BD.shape[1],
        candidate_dim=replay.vector_VE.shape[1],
        pair_dim=replay.pair_BKP.shape[2],
        hidden=HIDDEN,
    )


def interval(values: Sequence[float]) -> dict[str, float]:
    """Mean and the half-width of its 95 % interval over seeds (Student's t)."""
    from scipy import stats

    count = len(values)
    half = stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / math.sqrt(count) if count > 1 else math.nan
    return {"mean": float(np.mean(values)), "half": float(half)}


Curve = Callable[[int], list[Scores]]  # seed -> scores at each mark


def _row(name: str, population: str, *, marks: Sequence[int], seeds: Sequence[int], curve: Curve) -> dict[str, Any]:
    """One learner over all seeds; says on the error stream when it is done, for a table takes its time."""
    curves = [curve(seed) for seed in seeds]
    row: dict[str, Any] = {"learner": name, "users": population}
    for how in ("greedy", "sampled", "hits"):
        for i, mark in enumerate(marks):
            row[f"{how} {mark}"] = interval([one[i][how] for one in curves])
    Console(stderr=True).print(f"{name}, {population}: {row[f'greedy {marks[-1]}']['mean']:+.1%}")
    return row


def population_rows(
    field: Field, population: Population, *, seeds: Sequence[int], marks: Sequence[int]
) -> list[dict[str, Any]]:
    """The learners' rows for one kind of users."""
    users = Users(POPULATIONS[population])
    learners: dict[str, Curve] = {
        "published REINFORCE": lambda seed: online_curve(field, Reinforce(), users=users, seed=seed, marks=marks),
        "published DPO": lambda seed: online_curve(field, Dpo(), users=users, seed=seed, marks=marks),
        "naive clicks": lambda seed: [s for s, _ in replay_curve(field, Naive(), users=users, seed=seed, marks=marks)],
        "ours (fits, no gate)": lambda seed: [
            s for s, _ in replay_curve(field, Debiased(), users=users, seed=seed, marks=marks)
        ],
    }
    return [_row(name, str(population), marks=marks, seeds=seeds, curve=curve) for name, curve in learners.items()]


def run(
    seeds: Sequence[int],
    out_dir: Path,
    *,
    cache_dir: Path,
    populations: Sequence[Population] = tuple(Population),
    quick: bool = False,
) -> dict[str, Any]:
    """The whole table, printed and written to ``out_dir``/geospot_offline.json. ``quick``: short, to see that it
    runs."""
    marks = MARKS[:2] if quick else MARKS
    field = load_field(cache_dir, learn_photos=4000, test_photos=2000) if quick else load_field(cache_dir)
    result: dict[str, Any] = {
        "seeds": list(seeds), "quick": quick, "machine": platform.processor(), "threads": torch.get_num_threads(),
        "simulated": "photos and users are simulated", "baseline_km": field.base_km,
        "best_of_ten_km": float(field.test.distance_NK.min(axis=1).mean()), "fixed": fixed_rows(field),
    }  # fmt: skip
    oracles: dict[str, Curve] = {
        "published network, true distances": lambda seed: oracle_curve(field, seed=seed, marks=marks, residual=False),
        "the same on the caller's score": lambda seed: oracle_curve(field, seed=seed, marks=marks, residual=True),
    }
    rows = [_row(name, "-", marks=marks, seeds=seeds, curve=curve) for name, curve in oracles.items()]
    for population in populations:
        rows += population_rows(field, population, seeds=seeds, marks=marks)
    result["rows"] = rows
    console = Console(width=200)
    print_rows(
        console, [{"choice": k, "change in km": v} for k, v in result["fixed"].items()], title="Without learning"
    )
    plain = [_plain(row) for row in rows]
    km = [{k: v for k, v in row.items() if not k.startswith("hits")} for row in plain]
    print_rows(console, km, title="Change in km of the first choice, % (95 % interval over seeds)")
    hits = [{k: v for k, v in row.items() if k in ("learner", "users") or k.startswith("hits")} for row in plain]
    print_rows(console, hits, title="Lists with the closest candidate first, %")
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / "geospot_offline.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    return result


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    plain = {k: v for k, v in row.items() if isinstance(v, str)}
    for k, v in row.items():
        if k not in plain:
            sign = "" if k.startswith("hits") else "+"
            plain[k] = f"{100 * v['mean']:{sign}.1f} ±{100 * v['half']:.1f}"
    return plain


def main() -> None:
    """The command line of this file."""
    parser = argparse.ArgumentParser(description="The Geospot table in one process.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs/lab"))
    parser.add_argument("--cache", type=Path, default=Path("data/cache"))
    parser.add_argument("--users", nargs="*", default=[str(p) for p in Population])
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    populations = [Population(name) for name in args.users]
    run(range(args.seeds), args.out, cache_dir=args.cache, populations=populations, quick=args.quick)


if __name__ == "__main__":
    main()
