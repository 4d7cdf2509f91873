"""Our recipe: estimate the click model and the correction of the caller's score together, prove it held out, then
choose.

1. ``design``: the terms, from contexts and candidates alone.
2. ``belief``: nested fits in each fold, from the caller's score alone to all terms; each begins where the simpler one
ended.
3. ``choose``: the best held-out fit, when it beats the caller's order; how belief becomes a choice, where losses are
known.
4. The chosen fit once more on everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dayjob.learn.belief import Belief, Events, fit_belief, log_likelihoods, make_events, start
from dayjob.learn.choose import (
    Choice,
    HeldOut,
    choice_weight,
    choose,
    folds,
    likelihood_gain,
    reward_gain,
    value_gain,
)
from dayjob.learn.design import Design, make_design
from dayjob.learn.recipes import Debiased
from dayjob.learn.replay import Replay
from dayjob.learn.stages import Calibration, Stages
from dayjob.policies.ranker import RankerSpec, zero_weights

F64 = npt.NDArray[np.float64]
Weights = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One of the nested beliefs: which terms are free."""

    name: str
    shared: bool
    ridge: float | None


def levels(recipe: Debiased) -> list[Level]:
    """From the caller's score alone to the weakest ridge."""
    few = [Level(name="caller", shared=False, ridge=None), Level(name="shared", shared=True, ridge=None)]
    return few + [Level(name=f"ridge-{ridge:g}", shared=True, ridge=ridge) for ridge in recipe.ridges]


def fit_debiased(
    replay: Replay, spec: RankerSpec, *, recipe: Debiased, seed: int, stages: Stages
) -> tuple[Weights, dict[str, float], Calibration | None]:
    """(weights, stats, click model). Keeps the caller's order when nothing beats it, and says so in
    ``kept_baseline``."""
    spec, replay = replace(spec, hidden=()), replay.rows(slice(-recipe.most_decisions, None))
    events = make_events(replay, recipe)
    taught_B = events.taught_B
    stats = {"decisions": float(len(replay)), "taught": float(taught_B.sum()), "kept_baseline": 1.0}
    if taught_B.sum() < recipe.least_clicks:
        return zero_weights(spec), stats, None
    design = make_design(replay, recipe)
    ladder = levels(recipe)
    rows = torch.from_numpy(np.flatnonzero(taught_B))
    held = _held_out(replay, design, events, rows=rows, recipe=recipe, seed=seed, stages=stages)
    best = max(range(len(ladder)), key=lambda i: float(_sum(held[i], events)))
    belief = start(design, events)
    taught, taught_events = design.rows(rows), events.rows(rows)
    for level in ladder[: best + 1]:
        belief = fit_belief(taught, taught_events, first=belief, ridge=level.ridge, shared=level.shared, recipe=recipe)
    likelihood = likelihood_gain(held[best], held[0], events=events)
    choice, first_B = choose(replay, held[best], recipe=recipe)
    value, cost_before = value_gain(replay, first_B, weight_B=held[best].weight_B)
    nats = _sum(held[best], events) - _sum(held[0], events)
    chosen = float(held[best].choice_B.sum())
    enough = nats >= recipe.least_nats and chosen >= recipe.least_chosen
    low, high = belief.rewards.tolist()
    reward = reward_gain(replay, held[best], new_first_B=first_B, low=low, high=high)
    # Clicks and truths say what every choice would have cost; where there are rewards alone, no harm must show.
    harmless = reward.proof > -recipe.proof and (value.proof > recipe.value_proof or not held[best].weight_B.any())
    proven = enough and likelihood.proof >= recipe.proof and harmless
    rewarded = float((events.rewarded_B >= 0).sum())
    if rewarded:
        stats |= {"rewarded": rewarded, "reward_low": low, "reward_high": high}
        stats |= {"reward_gain": reward.mean, "reward_proof": reward.proof}
    stats |= {
        "pull": belief.pull,
        "chosen": chosen,
        "nats": float(nats),
        "level": float(best),
        "ridge": ladder[best].ridge or 0.0,
        "likelihood_gain": likelihood.mean,
        "likelihood_proof": likelihood.proof,
        "value_gain": value.mean / cost_before if cost_before else 0.0,
        "value_proof": value.proof,
        "kept_baseline": float(not proven),
    }
    calibration = _calibration(belief, choice)
    if not proven:
        return zero_weights(spec), stats, calibration
    return _weights(design, belief, choice, spec), stats, calibration


def _held_out(
    replay: Replay, design: Design, events: Events, *, rows: Tensor, recipe: Debiased, seed: int, stages: Stages
) -> list[HeldOut]:
    """Each level's word on every decision, from fits that did not see it. A killed run goes on after its last whole
    fold."""
    ladder, width = levels(recipe), replay.width
    saved = stages.load()
    done = int(saved["done"][0]) if saved else 0
    fold_B = torch.from_numpy(folds(replay, count=recipe.folds, seed=seed))
    kept = {name: np.array(value, np.float64) for name, value in saved.items() if name != "done"} or {
        f"{name}.{i}": np.zeros((len(replay), width) if name == "utility" else len(replay))
        for i in range(len(ladder))
        for name in ("likelihood", "choice", "weight", "utility")
    }
    for fold in range(done, recipe.folds):
        seen, unseen = rows[fold_B[rows] != fold], torch.nonzero(fold_B == fold)[:, 0]
        near, far = (design.rows(seen), events.rows(seen)), (design.rows(unseen), events.rows(unseen))
        belief = start(design, events)
        for i, level in enumerate(ladder):
            belief = fit_belief(*near, first=belief, ridge=level.ridge, shared=level.shared, recipe=recipe)
            _keep(kept, i, unseen.numpy(), design=far[0], events=far[1], belief=belief)
            stages.say((fold * len(ladder) + i + 1) / (len(ladder) * (recipe.folds + 1)))
        stages.save(kept | {"done": np.array([fold + 1], np.int64)})
    return [_held(kept, i) for i in range(len(ladder))]


def _keep(
    kept: Mapping[str, F64], i: int, at: npt.NDArray[np.int64], *, design: Design, events: Events, belief: Belief
) -> None:
    """Write what ``belief`` says of the unseen decisions ``at`` into level i's arrays."""
    likelihood_B, choice_B, utility_BK = log_likelihoods(design, events, belief=belief)
    kept[f"likelihood.{i}"][at] = likelihood_B.numpy()
    kept[f"choice.{i}"][at] = choice_B.numpy() * events.taught_B
    kept[f"weight.{i}"][at] = choice_weight(events, choice_B, examined_K=belief.examined_K.float())
    kept[f"utility.{i}"][at] = utility_BK.numpy()


def _held(kept: Mapping[str, F64], i: int) -> HeldOut:
    return HeldOut(
        log_likelihood_B=kept[f"likelihood.{i}"],
        choice_B=kept[f"choice.{i}"],
        weight_B=kept[f"weight.{i}"],
        utility_BK=kept[f"utility.{i}"],
    )


def _sum(held: HeldOut, events: Events) -> np.float64:
    return np.float64((held.log_likelihood_B * events.weight_B.numpy()).sum())


def _weights(design: Design, belief: Belief, choice: Choice, spec: RankerSpec) -> Weights:
    weights = design.weights(belief.coefficient, spec)
    arrays = {name: value.float().numpy() for name, value in weights.items()}
    arrays["sharpness"] = np.array([choice.sharpness], np.float32)
    arrays["unit"] = np.array([choice.unit], np.float32)
    return arrays


def _calibration(belief: Belief, choice: Choice) -> Calibration:
    return Calibration(
        pull=belief.pull,
        pull_at=tuple(torch.softmax(belief.pull_at_K, 0).tolist()),
        examined=tuple(belief.examined_K.tolist()),
        sharpness=choice.sharpness,
        unit=choice.unit,
    )
