"""The published failure, step by step: Geospot's first learner as it was described, playing with simulated users.

At each step: what its author could see (reward, KL to the averaged policy), what nobody looked at (kilometres of what
was shown), and whether dayjob's monitors would have said something. Written for the dashboard's replay page.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from geospot.users import POPULATIONS, Population, Users

from dayjob.gate.monitors import Change, not_learning
from dayjob.lab import geospot_journal as journals
from dayjob.lab.geospot_offline import SAMPLED, Field, load_field, online_curve, photos_of
from dayjob.learn.fit import score_spread
from dayjob.learn.online import OnlineLearner
from dayjob.learn.recipes import RECIPES, Dpo, Reinforce
from dayjob.policies.ranker import RankerSpec

STEP = 500
STEPS = 24
LEARN_PHOTOS, TEST_PHOTOS = STEP * STEPS, 4_000
REPLAY = Path(__file__).parent.parent / "serve" / "static" / "replay.json"


def rows(field: Field, *, seed: int, marks: Sequence[int]) -> list[dict[str, Any]]:
    """Both published learners on Geospot's users: change in km, greedy and as shown, at each mark."""
    users = Users(POPULATIONS[Population.GEOSPOT])
    out = []
    for name in ("geospot-reinforce", "geospot-dpo"):
        recipe = RECIPES[name]
        assert isinstance(recipe, Reinforce | Dpo), "the published learners"
        for mark, scores in zip(marks, online_curve(field, recipe, users=users, seed=seed, marks=marks), strict=True):
            out.append({"learner": name, "interactions": mark, **scores})
    return out


def failure(field: Field, *, seed: int, command: str) -> dict[str, Any]:
    """The replay's figures: see `dayjob.serve.pages.Replay`."""
    recipe = RECIPES["geospot-reinforce"]
    assert isinstance(recipe, Reinforce)
    users, rng = Users(POPULATIONS[Population.GEOSPOT]), np.random.default_rng([seed, 2])
    photos = photos_of(field, STEP * STEPS, seed=seed)
    whole = journals.journal(
        field.world, photos, score_NK=journals.base_scores(field.world, photos), users=users, explore=SAMPLED, rng=rng
    )
    spec = RankerSpec(
        context_dim=whole.context_BD.shape[1], candidate_dim=whole.vector_VE.shape[1], pair_dim=whole.pair_BKP.shape[2]
    )
    learner = OnlineLearner(spec, recipe, seed=seed, score_spread=score_spread(whole))
    told: dict[str, list[Any]] = {name: [] for name in ("steps", "reward", "kl", "km_served", "position_share")}
    rewards: list[np.ndarray[Any, np.dtype[np.float64]]] = []
    alarm_at, alarm_reason = None, ""
    for step in range(STEPS):
        kl, reward_N, shown_km_N, click_N = [], [], [], []
        for start in range(step * STEP, (step + 1) * STEP, recipe.batch):
            at = slice(start, min(start + recipe.batch, (step + 1) * STEP))
            batch = whole.rows(at)
            shown_BK, _ = journals.draw(learner.score(batch).astype(np.float64), SAMPLED, rng=rng)
            distance_BK = np.take_along_axis(photos.distance_NK[at], shown_BK, axis=1)
            click_B = users.click(distance_BK, batch.user_B, rng=rng)
            stats = learner.learn(replace(batch, shown_BK=shown_BK.astype(np.int16), click_B=click_B))
            kl.append(float(stats["kl"]))
            shown_km_N.append(distance_BK[:, 0])
            click_N.append(click_B)
            reward_N.append(np.where(click_B >= 0, 1.0 - click_B / distance_BK.shape[1], 0.0))
        rewards.append(np.concatenate(reward_N))
        clicks = np.concatenate(click_N)
        share = np.bincount(clicks[clicks >= 0], minlength=10) / max((clicks >= 0).sum(), 1)
        told["steps"].append((step + 1) * STEP)
        told["reward"].append(float(rewards[-1].mean()))
        told["kl"].append(float(np.mean(kl)))
        told["km_served"].append(float(np.concatenate(shown_km_N).mean()))
        told["position_share"].append(share.tolist())
        if alarm_at is None and step >= 1:
            gain = _gain(rewards[0], rewards[-1])
            found = not_learning(kl=told["kl"][-1], reward=told["reward"][-1], gain=gain)
            if found.fires and gain.low <= 0.0:
                alarm_at, alarm_reason = told["steps"][-1], found.reason
    return {
        **told, "km_baseline": float(photos.distance_NK[:, 0].mean()), "alarm_at": alarm_at,
        "alarm_reason": alarm_reason, "seed": seed, "command": command,
    }  # fmt: skip


def _gain(first_N: np.ndarray[Any, np.dtype[np.float64]], now_N: np.ndarray[Any, np.dtype[np.float64]]) -> Change:
    wide = 1.96 * float(np.sqrt(first_N.var() / len(first_N) + now_N.var() / len(now_N)))
    change = float(now_N.mean() - first_N.mean())
    return Change(change=change, low=change - wide, high=change + wide)


def small_field(cache: Path) -> Field:
    """The world with as many photos as this file needs."""
    return load_field(cache, learn_photos=LEARN_PHOTOS, test_photos=TEST_PHOTOS)


def write_replay(field: Field, *, seed: int, command: str, path: Path = REPLAY) -> None:
    """Write the replay page's figures."""
    path.write_text(json.dumps(failure(field, seed=seed, command=command)), encoding="utf-8")
