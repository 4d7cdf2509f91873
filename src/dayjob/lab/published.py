"""The published failure, step by step: Geospot's first learner as it was described, playing with simulated users.

At each step: what its author could see (reward, KL to the averaged policy), what nobody looked at (kilometres of what
it would show, on photos that nobody played with), and what dayjob's report and watch say (`published_said`). Written
for the dashboard's replay page.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from geospot.users import POPULATIONS, Population, Users

from dayjob.gate.desk import Desk
from dayjob.lab import geospot_journal as journals
from dayjob.lab.geospot_offline import SAMPLED, TRAINERS, Field, collected, judge, load_field, spec_of
from dayjob.lab.published_said import Watch, lines, report
from dayjob.learn.fit import score_spread
from dayjob.learn.online import OnlineLearner
from dayjob.learn.recipes import RECIPES, Reinforce
from dayjob.policies.ranker import NumpyRanker

STEP = 500
STEPS = 40  # as many interactions as the table has, on the same photos
WATCHES = 21  # draws of the pairs, by which the moment of the rollback varies
CURVES = ("steps", "reward", "kl", "km_served", "position_share", "state", "moved", "alarm", "said")
REPLAY = Path(__file__).parent.parent / "serve" / "static" / "replay.json"


def rows(field: Field, population: Population, *, marks: Sequence[int]) -> list[dict[str, Any]]:
    """Both published learners on these users: change in km, greedy and as shown, at each mark."""
    users = Users(POPULATIONS[population])
    return [
        {"learner": name, "interactions": mark, **scores}
        for name in ("published REINFORCE", "published DPO")
        for mark, scores in zip(marks, TRAINERS[name](field, users, marks=marks), strict=True)
    ]


def failure(field: Field, *, command: str) -> dict[str, Any]:
    """The replay's figures: see `dayjob.serve.pages.Replay`."""
    recipe = RECIPES["geospot-reinforce"]
    assert isinstance(recipe, Reinforce)
    users, rng = Users(POPULATIONS[Population.GEOSPOT]), np.random.default_rng([field.seed, 2])
    photos = field.learn.rows(slice(0, STEP * STEPS))
    whole = collected(field, users, explore=SAMPLED, rng=rng, count=STEP * STEPS)
    learner = OnlineLearner(spec_of(whole), recipe, seed=field.seed, score_spread=score_spread(whole))
    desk = Desk(key=b"")
    watches = [Watch(users, rng=np.random.default_rng([field.seed, 4, n])) for n in range(WATCHES)]
    told: dict[str, list[Any]] = {name: [] for name in CURVES}
    for step in range(STEPS):
        kl, click_N = [], []
        for start in range(step * STEP, (step + 1) * STEP, recipe.batch):
            at = slice(start, min(start + recipe.batch, (step + 1) * STEP))
            score_BK = learner.score(whole.rows(at)).astype(np.float64)
            shown_BK, propensity_BK = journals.draw(score_BK, SAMPLED, rng=rng)
            distance_BK = photos.distance_NK[at]
            click_B = users.click(np.take_along_axis(distance_BK, shown_BK, axis=1), whole.user_B[at], rng=rng)
            batch = replace(
                whole.rows(at), shown_BK=shown_BK.astype(np.int16), click_B=click_B,
                propensity_BK=propensity_BK.astype(np.float32),
            )  # fmt: skip
            desk.lines.extend(lines(batch, score_BK, version=at.stop))
            for watch in watches:
                watch.see(batch, shown_BK, distance_BK=distance_BK)
            kl.append(float(learner.learn(batch)["kl"]))
            click_N.append(click_B)
        said, click_S = report(desk), np.concatenate(click_N)
        values = (
            at.stop, _reward(click_S, whole.width), float(np.mean(kl)), _km(field, learner),
            _shares(click_S, whole.width), said["feedback"]["state"], said["learning"]["kl"],
            said["learning"]["alarm"], said["learning"]["reason"],
        )  # fmt: skip
        for name, value in zip(CURVES, values, strict=True):
            told[name].append(value)
    middle = sorted(watches, key=lambda watch: watch.ended_at or math.inf)[WATCHES // 2]
    return {
        **told, "km_baseline": field.base_km, "rollbacks": [watch.ended_at for watch in watches],
        "rollback_at": middle.ended_at, "rollback_reason": middle.finding().reason, "seed": field.seed,
        "command": command,
    }  # fmt: skip


def _reward(click_N: npt.NDArray[np.integer], width: int) -> float:
    return float(np.where(click_N >= 0, 1.0 - click_N / width, 0.0).mean())


def _shares(click_N: npt.NDArray[np.integer], width: int) -> list[float]:
    clicked_N = click_N[click_N >= 0]
    return [float(share) for share in np.bincount(clicked_N, minlength=width) / max(len(clicked_N), 1)]


def _km(field: Field, learner: OnlineLearner) -> float:
    """Mean km of the first place of lists drawn from the learner, on the photos that judge."""
    ranker = NumpyRanker(learner.network.weights(), learner.network.spec.to_json())
    score_NK = journals.scores(field.world, field.test, ranker=ranker)
    return field.base_km * (1.0 + judge(field, score_NK, explore=SAMPLED)["sampled"])


def write_replay(cache: Path, *, seed: int, command: str, path: Path = REPLAY) -> None:
    """Write the replay page's figures."""
    world = journals.load_world(cache)
    field = load_field(world, seed=seed, rounds=STEP * STEPS, cache_dir=cache)
    told = failure(field, command=command)
    path.write_text(json.dumps(told), encoding="utf-8")
