"""A ranker's night with rehearsal: the recipe on what really happened and on imagined users together.

Who imagines is handed in. What is learned must first be proven without imagination, for imagined clicks agree with the
fit that imagined them and would prove anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from dayjob.endings import Invalid
from dayjob.learn.fit import Fitted, fit
from dayjob.learn.networks import ClickModel, estimate
from dayjob.learn.recipes import Debiased, Recipe
from dayjob.learn.replay import Replay, concatenate

PLAIN_SHARE = 0.3  # of the progress: the fit without imagination


class Imagine(Protocol):
    """Further users on the contexts of a replay: ``count`` decisions that share its candidate vectors."""

    def __call__(self, replay: Replay, model: ClickModel, *, count: int, seed: int) -> Replay: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsed:
    """What came of a rehearsal, the same without it, and how many decisions were imagined (0: nothing was proven, and
    ``fitted`` is ``plain``)."""

    fitted: Fitted
    plain: Fitted
    imagined: int


def rehearse(
    replay: Replay,
    *,
    shape: Sequence[int],
    recipe: Recipe,
    budget: float,
    imagine: Imagine,
    seed: int,
    checkpoint: Path | None = None,
    progress: Callable[[float], None] | None = None,
) -> Rehearsed:
    """Learn from ``replay`` and ``budget`` times as many imagined decisions, no more than the recipe reads.

    ``checkpoint`` as in :func:`fit`; the fit without imagination, which comes first and is the smallest, is made again.
    Raises Invalid for a budget below 0.
    """
    if budget < 0:
        raise Invalid(f"budget is {budget:g}: 0 or more imagined decisions for each real one", param="budget")
    say = progress or _silent
    plain = fit(replay, shape=shape, recipe=recipe, seed=seed, progress=lambda share: say(PLAIN_SHARE * share))
    count = imagined_of(replay, recipe=recipe, budget=budget)
    if plain.stats.get("kept_baseline") or not count:
        return Rehearsed(fitted=plain, plain=plain, imagined=0)
    further = imagine(replay, estimate(replay), count=count, seed=seed)
    # What really happened stands last: a recipe that reads the newest alone reads all of it.
    fitted = fit(
        concatenate([further, replay]), shape=shape, recipe=recipe, seed=seed, checkpoint=checkpoint,
        progress=partial(_later, say),
    )  # fmt: skip
    return Rehearsed(fitted=fitted, plain=plain, imagined=count)


def imagined_of(replay: Replay, *, recipe: Recipe, budget: float) -> int:
    """How many decisions a budget imagines: what a recipe would not read is not imagined."""
    count = int(budget * len(replay))
    return min(count, max(0, recipe.most_decisions - len(replay))) if isinstance(recipe, Debiased) else count


def _silent(_: float) -> None:
    return None


def _later(say: Callable[[float], None], share: float) -> None:
    say(PLAIN_SHARE + (1 - PLAIN_SHARE) * share)
