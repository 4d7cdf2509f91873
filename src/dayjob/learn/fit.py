"""From replay to weights. Always from the baseline, on all of the replay: the same data, recipe, seed and threads, the
same weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dayjob.learn import checkpoint as checkpoints
from dayjob.learn.debiased import fit_debiased
from dayjob.learn.networks import fit_network
from dayjob.learn.online import OnlineLearner, OnlineRecipe
from dayjob.learn.recipes import ClickModelRecipe, Debiased, Recipe
from dayjob.learn.replay import Replay
from dayjob.learn.stages import Calibration, Stages
from dayjob.policies.ranker import RankerSpec

SAVE_EVERY = 200  # batches of an online recipe between checkpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A version to be: weights for :class:`dayjob.policies.ranker.NumpyRanker`, its description, and how it came about.

    ``calibration`` is None for the recipes that estimate no click model.
    """

    weights: dict[str, npt.NDArray[np.float32]]
    network: dict[str, object]
    stats: dict[str, float]
    calibration: Calibration | None


def fit(
    replay: Replay,
    *,
    shape: Sequence[int],
    recipe: Recipe,
    seed: int,
    checkpoint: Path | None = None,
    progress: Callable[[float], None] | None = None,
) -> Fitted:
    """Weights from replay by ``recipe``; ``shape`` are the sizes of the hidden layers, for recipes that train a
    network.

    ``progress`` is told a share in [0, 1] from time to time. With ``checkpoint`` a killed fit goes on where it was, to
    the same weights; the file is removed at the end. Raises ValueError when the replay is malformed.
    """
    replay.check()
    spec = RankerSpec(
        context_dim=replay.context_BD.shape[1],
        candidate_dim=replay.vector_VE.shape[1],
        pair_dim=replay.pair_BKP.shape[2],
        hidden=tuple(shape),
    )
    mark = checkpoints.fingerprint(replay, recipe, seed=seed, hidden=spec.hidden) if checkpoint else ""
    stages = Stages(path=checkpoint, mark=mark, report=progress)
    if isinstance(recipe, Debiased):
        weights, stats, calibration = fit_debiased(replay, spec, recipe=recipe, seed=seed, stages=stages)
    elif isinstance(recipe, ClickModelRecipe):
        weights, stats, spec = fit_network(
            replay, spec, recipe=recipe, seed=seed, score_spread=score_spread(replay), stages=stages
        )
        calibration = None
    else:
        weights, stats = _fit_online(replay, spec, recipe, seed=seed, stages=stages)
        calibration = None
    stages.finish()
    return Fitted(weights=weights, network=spec.to_json(), stats=stats, calibration=calibration)


def score_spread(replay: Replay) -> float:
    """Root mean square of the caller's score within its list; 1 when it never differs."""
    real_BK = replay.real_BK
    mean_B1 = np.where(real_BK, replay.base_BK, 0).sum(1, keepdims=True) / np.maximum(real_BK.sum(1, keepdims=True), 1)
    square = float(np.square((replay.base_BK - mean_B1)[real_BK]).mean()) if real_BK.any() else 0.0
    return square**0.5 or 1.0


def _fit_online(
    replay: Replay, spec: RankerSpec, recipe: OnlineRecipe, *, seed: int, stages: Stages
) -> tuple[dict[str, npt.NDArray[np.float32]], dict[str, float]]:
    learner = OnlineLearner(spec, recipe, seed=seed, score_spread=score_spread(replay))
    starts = [i for _ in range(recipe.passes) for i in range(0, len(replay), recipe.batch)]
    saved = stages.load()
    done = int(saved.pop("done")[0]) if saved else 0
    if saved:
        learner.restore(saved)
    stats: dict[str, float] = {"decisions": float(len(replay))}
    for number in range(done, len(starts)):
        found = learner.learn(replay.rows(slice(starts[number], starts[number] + recipe.batch)))
        if number == len(starts) - 1:
            stats |= {name: float(value) for name, value in found.items()}
        stages.say((number + 1) / len(starts))
        if (number + 1) % SAVE_EVERY == 0:
            stages.save(learner.state() | {"done": np.array([number + 1], np.int64)})
    return learner.network.weights(), stats
