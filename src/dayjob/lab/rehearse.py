"""``dayjob lab rehearse``: does it help a ranker to learn from imagined users as well?

A small retrieval world of its own: contexts are noisy along a few directions, ten candidates come from one catalog, and
65 % of the clicks fall on the first place unseen. Each learner learns from the same clicks alone, with imagined users
at growing budgets, and, where it makes passes, with as many passes over the real clicks as each budget costs: what more
compute alone brings. Judged by how often the right candidate comes first, in lists that nobody saw.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import Progress

from dayjob.cli.dream_rankers import imagined_users
from dayjob.lab import practice_states
from dayjob.lab.figures import interval, keep, machine, markdown, percent, surely, write
from dayjob.lab.gate import print_rows
from dayjob.learn.fit import Fitted, fit
from dayjob.learn.recipes import Debiased, Mixture, Recipe
from dayjob.learn.rehearse import rehearse
from dayjob.learn.replay import Replay
from dayjob.policies.protocol import Lists
from dayjob.policies.ranker import NumpyRanker

DIM, NOISY, CATALOG, WIDTH, CLOSE = 24, 4, 2_000, 10, 0.25
PULL, CHANGED = 0.65, 0.1  # of clicks by position alone; of first places that are drawn evenly
CODE = ("dream", "learn", "objectives", "policies", "signals", "gate", "lab")  # that decide about the figures
HELD_OUT = 4_000
SIZES, QUICK_SIZES = (500, 2_000), (400,)
BUDGETS, QUICK_BUDGETS = (1, 4, 16, 64), (1, 4)
HIDDEN = (32,)
LEARNERS: Mapping[str, Recipe] = {"debiased": Debiased(), "mixture": Mixture(passes=10)}
ALONE, TRUTHS, CALLER = "real clicks alone", "told what was right", "the caller's order"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Decisions of the world, clicked, and the slot that was right in each."""

    replay: Replay
    right_B: npt.NDArray[np.int64]


def draw(count: int, *, seed: int, part: int) -> Drawn:
    """``count`` decisions: the catalog is that of the seed, contexts and clicks those of its part."""
    world, rng = np.random.default_rng([seed, 0]), np.random.default_rng([seed, part])
    catalog_VE = world.standard_normal((CATALOG, DIM))
    catalog_VE /= np.linalg.norm(catalog_VE, axis=1, keepdims=True)
    noisy_QD = np.linalg.qr(world.standard_normal((DIM, NOISY)))[0].T
    wanted_B = rng.integers(CATALOG, size=count)
    noise_BD = 0.6 * rng.standard_normal((count, NOISY)) @ noisy_QD + CLOSE * rng.standard_normal((count, DIM))
    context_BD = catalog_VE[wanted_B] + noise_BD
    context_BD /= np.linalg.norm(context_BD, axis=1, keepdims=True)
    similarity_BV = context_BD @ catalog_VE.T
    similarity_BV[np.arange(count), wanted_B] = 2.0  # what was wanted is always among the candidates
    near_BK = np.argpartition(-similarity_BV, WIDTH, axis=1)[:, :WIDTH]
    slot_BK = rng.permuted(near_BK, axis=1).astype(np.int32)
    base_BK = np.einsum("bd,bkd->bk", context_BD, catalog_VE[slot_BK])
    right_B = (slot_BK == wanted_B[:, None]).argmax(axis=1)
    shown_BK = np.argsort(-base_BK, axis=1, kind="stable")
    moved_BK = np.where(shown_BK == rng.integers(WIDTH, size=(count, 1)), -1, np.arange(WIDTH))
    explored_B1 = rng.random((count, 1)) < CHANGED
    shown_BK = np.where(explored_B1, np.take_along_axis(shown_BK, moved_BK.argsort(axis=1), axis=1), shown_BK)
    even_BK = shown_BK == np.argsort(-base_BK, axis=1, kind="stable")[:, :1]
    propensity_BK = np.ones((count, WIDTH), np.float32)
    propensity_BK[:, 0] = CHANGED / WIDTH + np.where(even_BK[:, 0], 1 - CHANGED, 0.0)
    place_B = (shown_BK == right_B[:, None]).argmax(axis=1)
    nobody_B = np.full(count, -1, np.int16)
    replay = Replay(
        context_BD=context_BD.astype(np.float32), vector_VE=catalog_VE.astype(np.float32), candidate_BK=slot_BK,
        pair_BKP=np.zeros((count, WIDTH, 0), np.float32), base_BK=base_BK.astype(np.float32),
        shown_BK=shown_BK.astype(np.int16), propensity_BK=propensity_BK,
        click_B=np.where(rng.random(count) < PULL, 0, place_B).astype(np.int16), truth_B=nobody_B,
        user_B=nobody_B.astype(np.int32), role_B=np.zeros(count, np.int16),
    )  # fmt: skip
    return Drawn(replay=replay.check(), right_B=right_B)


def right_first(fitted: Fitted | None, drawn: Drawn) -> float:
    """Share of lists in which what was wanted comes first; ``fitted`` None: by the caller's score."""
    replay = drawn.replay
    score_BK: npt.NDArray[Any] = replay.base_BK
    if fitted is not None:
        lists = Lists(
            context_BD=replay.context_BD, candidate_BKE=replay.vector_VE[replay.candidate_BK],
            pair_BKP=replay.pair_BKP, base_BK=replay.base_BK.astype(np.float64),
        )  # fmt: skip
        score_BK = NumpyRanker(fitted.weights, fitted.network).score(lists)
    return float((score_BK.argmax(axis=1) == drawn.right_B).mean())


def cell(learner: str, *, size: int, seed: int, budgets: Sequence[int]) -> dict[str, Any]:
    """One learner on one seed's clicks: alone, with imagined users, with further passes, and told what was right."""
    recipe, drawn, test = LEARNERS[learner], draw(size, seed=seed, part=1), draw(HELD_OUT, seed=seed, part=2)
    alone = fit(drawn.replay, shape=HIDDEN, recipe=recipe, seed=seed)
    rights = {CALLER: right_first(None, test), ALONE: right_first(alone, test)}
    imagined = {}
    for budget in budgets:
        done = rehearse(
            drawn.replay, shape=HIDDEN, recipe=recipe, budget=budget, imagine=imagined_users, seed=seed
        )  # fmt: skip
        name = f"and imagined users, x{budget}"
        rights[name], imagined[name] = right_first(done.fitted, test), done.imagined
        if isinstance(recipe, Mixture):
            again = replace(recipe, passes=recipe.passes * (budget + 1))
            rights[f"alone, {again.passes} passes"] = right_first(
                fit(drawn.replay, shape=HIDDEN, recipe=again, seed=seed), test
            )
    told = replace(drawn.replay, truth_B=drawn.right_B.astype(np.int16))
    if learner == "debiased":
        rights[TRUTHS] = right_first(fit(told, shape=HIDDEN, recipe=recipe, seed=seed), test)
    return {
        "learner": learner, "size": size, "seed": seed, "rights": rights, "imagined": imagined,
        "proven": not alone.stats.get("kept_baseline"),
    }  # fmt: skip


def run(seeds: Sequence[int], out_dir: Path, *, quick: bool = False) -> dict[str, Any]:
    """Every learner at every size on every seed; each cell is kept, so that a stopped run goes on."""
    sizes, budgets = (QUICK_SIZES, QUICK_BUDGETS) if quick else (SIZES, BUDGETS)
    practice_states.mark(*CODE)
    cells = []
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("rehearse", total=len(seeds) * len(sizes) * len(LEARNERS))
        for seed in seeds:
            for size in sizes:
                for learner in LEARNERS:
                    path = out_dir / "rehearse" / f"{learner}-{size}-{max(budgets)}-{seed}.json"
                    if not path.exists():
                        made = cell(learner, size=size, seed=seed, budgets=budgets)
                        keep(path, made | {"code": practice_states.mark(*CODE)})
                    cells.append(json.loads(path.read_text(encoding="utf-8")))
                    progress.advance(task)
    rows = [row for learner in LEARNERS for size in sizes for row in _rows(cells, learner, size=size)]
    print_rows(Console(width=150), rows, title="Imagined users beside real ones")
    result: dict[str, Any] = {
        "command": f"dayjob lab rehearse --seeds {len(seeds)}{' --quick' if quick else ''}", "machine": machine(),
        "seeds": list(seeds), "quick": quick, "cells": cells,
        "codes": practice_states.states(cells),
    }  # fmt: skip
    page = [_INTRODUCTION, _sentence(cells, sizes), markdown(rows), *practice_states.told(result["codes"])]
    write(out_dir, "rehearse", result=result, page=page, code=CODE)
    return result


def _rows(cells: Sequence[Mapping[str, Any]], learner: str, *, size: int) -> list[dict[str, Any]]:
    mine = _of(cells, learner, size=size)
    return [
        {
            "learner": learner, "clicked lists": size, "learns from": name,
            "right first, %": percent(interval([one["rights"][name] for one in mine]), of=0, signed=False),
            "against real clicks alone, points": "" if name == ALONE else percent(_gain(mine, name), of=0),
            "imagined": round(float(np.mean([one["imagined"].get(name, 0) for one in mine]))),
        }
        for name in mine[0]["rights"]
    ]  # fmt: skip


def _of(cells: Sequence[Mapping[str, Any]], learner: str, *, size: int) -> list[Mapping[str, Any]]:
    return [one for one in cells if (one["learner"], one["size"]) == (learner, size)]


def _gain(mine: Sequence[Mapping[str, Any]], name: str) -> dict[str, float]:
    return interval([one["rights"][name] - one["rights"][ALONE] for one in mine])


def _sentence(cells: Sequence[Mapping[str, Any]], sizes: Sequence[int]) -> str:
    """What the table says of imagination."""
    groups = [_of(cells, learner, size=size) for learner in LEARNERS for size in sizes]
    signs = [surely(_gain(mine, name)) for mine in groups for name in mine[0]["imagined"]]
    return (
        f"**Of {len(signs)} rows with imagined users {signs.count(1)} are surely better than real clicks alone (the"
        f" interval excludes zero), {signs.count(-1)} surely worse.**"
    )


_INTRODUCTION = (
    f"A small simulated world: {WIDTH} candidates, {PULL:.0%} of the clicks on the first place unseen, the others on"
    f" what was wanted, {CHANGED:.0%} of first places drawn evenly. *Right first*: in {HELD_OUT:,} lists that nobody"
    " saw, mean and 95 % interval over seeds. The click model, its belief and the learner's own proof come from the"
    " real clicks."
    " *Passes*: the same compute spent on the real clicks. Where a learner proves nothing on real clicks nothing is"
    " imagined, and the caller's order stays."
)
