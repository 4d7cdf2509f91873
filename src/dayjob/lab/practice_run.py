"""``dayjob lab practice``: reinforcement learning from the shipped clerk, on tasks that are checked.

Four parts, each in pieces that are kept: what practice lifts, out of zero with the curriculum and without, from nearly
all towards all, and a warm start against none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from dayjob.endings import Invalid
from dayjob.lab import figures
from dayjob.lab.clerk_gym import EASY
from dayjob.lab.practice_ground import Tasks
from dayjob.lab.practice_page import page, plot
from dayjob.lab.practice_pieces import CODE, Bench, Piece, seeds_of
from dayjob.learn.practice.recipe import PracticeRecipe
from dayjob.records import Json

LIFT, ZERO, NINES, WARM = "lift", "zero", "nines", "warm"
PARTS = (LIFT, ZERO, NINES, WARM)
LOW, HIGH = 0.05, 0.60  # where a task is to begin that practice shall lift
NEARLY = 0.85  # and one that shall go towards all
COOL = 0.5  # the temperature there: what is known is said nearly always, and two attempts may still differ
WARM_JUDGE, WARM_TRIES = 60, 1  # of the office: an episode is several turns, and each look at it plays them

# Name -> spec, from easy to hard; of each family the first that begins between LOW and HIGH is practised.
FAMILIES: Mapping[str, Mapping[str, Json]] = {
    **{
        name: {
            "easy": {"env": "gym", "dataset": name, "config": dict(settings)},
            "default": {"env": "gym", "dataset": name},
        }
        for name, settings in EASY.items()
    },
    "code": {
        "expressions": {"env": "code", "style": "expression", "conditions": 0, "examples": 1},
        "expressions with a condition": {"env": "code", "style": "expression", "examples": 1},
        "functions": {"env": "code", "conditions": 0, "examples": 1},
    },
}  # fmt: skip
# Of the first of which nothing is ever solved: it is practised out of zero. What lies between the first one and words
# that the clerk can spell are fewer words and shorter ones, a rung at a time.
HOPELESS: Mapping[str, Json] = {
    "three words backward": {"env": "strings", "operations": ["reverse"], "words": 3, "letters": 6},
    "long words backward": {"env": "gym", "dataset": "spell_backward", "config": {"min_word_len": 10}},
    "four numbers": {"env": "arithmetic", "terms": 4},
    "sums of six numbers": {"env": "gym", "dataset": "chain_sum", "config": {"min_terms": 6, "max_terms": 6}},
    "functions": {"env": "code"},
}
# The easiest there is of what the clerk knows; the one that begins highest goes towards all.
NEAR: Mapping[str, Json] = {
    "letters of one word": {"env": "gym", "dataset": "letter_counting", "config": {"min_words": 1, "max_words": 1}},
    "three numbers in order": {
        "env": "gym", "dataset": "number_sorting", "config": {"min_numbers": 3, "max_numbers": 3, "max_decimals": 0},
    },
    "words of three letters backward": {
        "env": "gym", "dataset": "spell_backward", "config": {"min_word_len": 3, "max_word_len": 3},
    },
    "two numbers of one digit": {
        "env": "gym", "dataset": "chain_sum",
        "config": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
    },
}  # fmt: skip
OFFICE: Json = {"env": "office", "turns": 4, "manual": False, "items": 2, "customers": 2, "kinds": ["count"]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Of every piece."""

    recipe: PracticeRecipe
    tasks: Tasks
    curated: int = 64  # reference solutions of a warm start


FULL = Sizes(
    recipe=PracticeRecipe(steps=100, groups=16, look_every=25, context_tokens=512, warm_steps=0, anchor_rows=16),
    tasks=Tasks(stop=64, judge=200, tries=4),
)
QUICK = Sizes(
    recipe=PracticeRecipe(
        steps=2, groups=2, attempts=4, look_every=1, context_tokens=256, self_written=8, anchor_rows=4, warm_steps=0
    ),
    tasks=Tasks(stop=4, judge=8), curated=2,
)  # fmt: skip


def run(
    seeds: range, parts: Sequence[str] | None, model: Path | None, out_dir: Path, *, steps: int, quick: bool
) -> None:
    """Every piece that is missing, then the page of all there are."""
    chosen = list(parts or PARTS)
    unknown = sorted(set(chosen) - set(PARTS))
    if unknown:
        raise Invalid(f"there is no part {unknown[0]!r}: use some of {', '.join(PARTS)}", param="parts")
    sizes = QUICK if quick else replace(FULL, recipe=replace(FULL.recipe, steps=steps))
    bench, seeds = Bench.of(model, out_dir, name="practice"), seeds_of(seeds, quick=quick)
    made = {LIFT: _lift, ZERO: _zero, NINES: _nines, WARM: _warm}
    result: dict[str, Any] = {
        "command": f"dayjob lab practice --seeds {len(seeds)} --steps {sizes.recipe.steps}" + " --quick" * quick,
        "machine": figures.machine(), "seeds": list(seeds), "quick": quick,
        "range": [LOW, HIGH], "steps": sizes.recipe.steps, "groups": sizes.recipe.groups,
        "attempts": sizes.recipe.attempts, "judge": sizes.tasks.judge,
        "tries": sizes.tasks.tries,
    }  # fmt: skip
    for part in chosen:
        result[part] = made[part](bench, sizes, seeds, quick)
    result["codes"] = sorted(bench.codes)
    figures.write(
        out_dir, "practice", result=result, page=page(result), code=CODE, plot=lambda path: plot(result, path)
    )
    print("\n\n".join(page(result)))


def _lift(bench: Bench, sizes: Sizes, seeds: range, quick: bool) -> dict[str, Any]:
    """Of each family what begins in range, practised; and where all of them begin."""
    starts, rows, curated = {}, {}, {}
    for family, tasks in FAMILIES.items():
        chosen = None
        for name, spec in tasks.items():
            piece = _piece(sizes, f"{family}, {name}", spec)
            starts[piece.name] = rate = fmean(bench.start(replace(piece, seed=seed)) for seed in seeds)
            if chosen is None and LOW <= rate <= HIGH:
                chosen = piece
        if chosen is None and max(starts[f"{family}, {name}"] for name in tasks) < LOW:
            easiest = next(iter(tasks))  # nothing to start from: a few curated solutions come first
            chosen = _with_curated(_piece(sizes, f"{family}, {easiest}, curated", tasks[easiest]), sizes, quick=quick)
            curated[chosen.name] = {
                "start": starts[f"{family}, {easiest}"], "steps": chosen.recipe.warm_steps,
                "solutions": chosen.tasks.curated,
            }  # fmt: skip
        if chosen is None and quick:
            chosen = piece  # to see that it runs
        if chosen is not None:
            rows[chosen.name] = [bench.run(replace(chosen, seed=seed)) for seed in seeds]
    return {"starts": starts, "rows": rows, "curated": curated}


def _zero(bench: Bench, sizes: Sizes, seeds: range, _: bool) -> dict[str, Any]:
    """A task that is never solved: by itself, with the curriculum, with a teacher who knows the solution, with both."""
    starts, found = {}, None
    for name, spec in HOPELESS.items():
        piece = _piece(sizes, name, spec)
        starts[name] = fmean(bench.start(replace(piece, seed=seed)) for seed in seeds)
        if starts[name] == 0.0:
            found = piece
            break
    if found is None:
        return {"starts": starts, "rows": {}}
    longer = replace(found, recipe=replace(found.recipe, steps=2 * found.recipe.steps))
    taught = replace(longer, recipe=replace(longer.recipe, teacher=1.0))
    ways = {"no curriculum": longer, "curriculum": _with_curriculum(longer), "privileged self-teacher": taught,
            "curriculum and privileged self-teacher": _with_curriculum(taught)}  # fmt: skip
    rows = {}
    for way, piece in ways.items():
        name = f"{found.name}, {way}"
        rows[name] = [bench.run(replace(piece, name=name, seed=seed)) for seed in seeds]
    return {"starts": starts, "rows": rows}


def _nines(bench: Bench, sizes: Sizes, seeds: range, quick: bool) -> dict[str, Any]:
    """From nearly all towards all: as it is, with failures mined and mutated, and with solved groups learned from."""
    starts: dict[str, float] = {}
    cool = replace(sizes, recipe=replace(sizes.recipe, temperature=COOL))
    for name, spec in NEAR.items():
        piece = _piece(cool, name, spec)
        starts[name] = fmean(bench.start(replace(piece, seed=seed)) for seed in seeds)
    tasks = sizes.tasks if quick else replace(sizes.tasks, judge=1000, tries=2)
    told = {"starts": starts, "nearly": NEARLY, "temperature": COOL, "judge": tasks.judge, "tries": tasks.tries}
    nearly = [name for name, rate in starts.items() if NEARLY <= rate < 1.0]
    if not nearly and not quick:
        return told | {"rows": {}}
    name = max(nearly or starts, key=lambda one: starts[one])
    base = replace(_piece(cool, name, NEAR[name]), tasks=tasks)
    ways = {
        "as it is": base,
        "failures mined": _with_curriculum(base),
        "solved groups too": replace(base, recipe=replace(base.recipe, solved=0.1)),
    }
    rows = {
        f"{name}, {way}": [bench.run(replace(piece, name=f"{name}, {way}", seed=seed)) for seed in seeds]
        for way, piece in ways.items()
    }
    return told | {"rows": rows}


def _warm(bench: Bench, sizes: Sizes, seeds: range, quick: bool) -> dict[str, Any]:
    """The office's application, which the clerk has never seen: with a few curated solutions first, and without."""
    few = sizes if quick else replace(sizes, tasks=replace(sizes.tasks, judge=WARM_JUDGE, tries=WARM_TRIES))
    cold = _piece(few, "office, cold", OFFICE)
    named = replace(cold, name=f"office, {sizes.curated} curated solutions")
    warm = _with_curated(named, sizes, quick=quick)
    both = {one.name: [bench.run(replace(one, seed=seed)) for seed in seeds] for one in (cold, warm)}
    return {"starts": {}, "rows": both, "judge": few.tasks.judge, "tries": few.tasks.tries}


def _with_curriculum(piece: Piece) -> Piece:
    return replace(piece, tasks=replace(piece.tasks, curriculum=True))


def _with_curated(piece: Piece, sizes: Sizes, *, quick: bool) -> Piece:
    """With a warm start. What it is said to begin at is after that."""
    recipe = replace(piece.recipe, warm_steps=2 if quick else 200)
    return replace(piece, tasks=replace(piece.tasks, curated=sizes.curated), recipe=recipe)


def _piece(sizes: Sizes, name: str, spec: Json) -> Piece:
    return Piece(name=name, spec=spec, recipe=sizes.recipe, tasks=sizes.tasks, seed=0)
