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
from dayjob.lab.geospot_offline import SAMPLED, TRAINERS, Field, collected, load_field, spec_of
from dayjob.learn.fit import score_spread
from dayjob.learn.online import OnlineLearner
from dayjob.learn.recipes import RECIPES, Reinforce

STEP = 500
STEPS = 24
HELD_OUT = 4_000
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
        "alarm_reason": alarm_reason, "seed": field.seed, "command": command,
    }  # fmt: skip


def _gain(first_N: np.ndarray[Any, np.dtype[np.float64]], now_N: np.ndarray[Any, np.dtype[np.float64]]) -> Change:
    wide = 1.96 * float(np.sqrt(first_N.var() / len(first_N) + now_N.var() / len(now_N)))
    change = float(now_N.mean() - first_N.mean())
    return Change(change=change, low=change - wide, high=change + wide)


def write_replay(cache: Path, *, seed: int, command: str, path: Path = REPLAY) -> None:
    """Write the replay page's figures."""
    world = journals.load_world(cache)
    field = load_field(world, seed=seed, rounds=STEP * STEPS, cache_dir=cache, held_out=HELD_OUT)
    told = failure(field, command=command)
    path.write_text(json.dumps(told), encoding="utf-8")
