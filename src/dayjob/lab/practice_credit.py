"""``dayjob lab credit``: which turn deserves what, on the office's application.

Trained at ``trained`` turns and served at more; what a step takes of memory at 5 turns and at 100, each in a process
of its own. All methods begin with the same warm start, without which nobody ever earns anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from dayjob.endings import Invalid
from dayjob.lab import figures, practice_states
from dayjob.lab.figures import interval, markdown, percent
from dayjob.lab.practice_ground import Tasks
from dayjob.lab.practice_pieces import CODE, Bench, Piece, seeds_of
from dayjob.learn.practice.recipe import CREDITS, PracticeRecipe, settings_of
from dayjob.records import Json

TURNS = (5, 20, 100)
COURSES, MEMORY_PART = "courses", "memory"
PARTS = (COURSES, MEMORY_PART)
NAMES = {
    "outcome": "outcome only", "turns": "turns: group baseline per turn", "value": "value: learned baseline, GAE",
    "process": "process rewards", "hindsight": "hindsight: self-teacher told the outcome",
}  # fmt: skip
RECIPE = PracticeRecipe(
    groups=4, attempts=8, look_every=15, context_tokens=384, warm_steps=200, row_tokens=4096, self_written=64
)  # fmt: skip
TASKS = Tasks(stop=32, judge=100, tries=1, curated=64)
MEMORY = PracticeRecipe(
    steps=2, groups=2, attempts=4, look_every=0, context_tokens=384, warm_steps=1, row_tokens=4096, anchor=0.0,
    self_written=0, learning_rate=1e-5,
)  # fmt: skip


def office(turns: int) -> Json:
    """The application with ``turns`` turns, small enough that a clerk may learn its calls without a manual."""
    return {"env": "office", "turns": turns, "manual": False, "items": 2, "customers": 2, "kinds": ["count"]}


def run(
    seeds: range, model: Path | None, out_dir: Path, *, steps: int, trained: list[int], quick: bool,
    parts: Sequence[str] | None = None,
) -> None:  # fmt: skip
    """Every piece that is missing of these parts (None: of all), then the page of all there are."""
    chosen = list(parts or PARTS)
    unknown = sorted(set(chosen) - set(PARTS))
    if unknown:
        raise Invalid(f"there is no part {unknown[0]!r}: use some of {', '.join(PARTS)}", param="parts")
    recipe, tasks, memory = replace(RECIPE, steps=steps), TASKS, MEMORY
    turns: tuple[int, ...] = TURNS
    if quick:
        recipe = replace(recipe, steps=1, groups=1, attempts=2, look_every=0, warm_steps=2, self_written=4,
                         anchor_rows=2, context_tokens=160)  # fmt: skip
        tasks, turns, trained = Tasks(stop=2, judge=4, curated=2), (5, 8), [5]
        memory = replace(memory, steps=1, groups=1, attempts=2, context_tokens=160)
    bench, seeds = Bench.of(model, out_dir, name="credit"), seeds_of(seeds, quick=quick)
    rows: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for at in trained:
        served = {f"{more} turns": office(more) for more in turns if more != at}
        courses = {
            credit: Piece(
                name=f"{credit}-{at}", spec=office(at), tasks=tasks, seed=0, served=served,
                recipe=replace(recipe, **settings_of([f"credit={credit}"], PracticeRecipe)[0]),
            )
            for credit in CREDITS
        }  # fmt: skip
        pieces = {credit: [replace(one, seed=seed) for seed in seeds] for credit, one in courses.items()}
        # Of a part that was not asked for the page has what is there, where that is all of it.
        if COURSES in chosen or all(bench.done(one) for some in pieces.values() for one in some):
            rows[str(at)] = {credit: [bench.run(one) for one in some] for credit, some in pieces.items()}
    small = Tasks(stop=1, judge=1, tries=1, curated=2)
    alone = {at: Piece(name=f"memory-{at}", spec=office(at), recipe=memory, tasks=small, seed=0) for at in turns}
    peaks = {}
    if MEMORY_PART in chosen or all(bench.done(one) for one in alone.values()):
        peaks = {str(at): bench.run(one, alone=True) for at, one in alone.items()}
    result = {
        "command": f"dayjob lab credit --seeds {len(seeds)} --steps {recipe.steps}"
        + "".join(f" --trained {one}" for one in trained)
        + "".join(f" --parts {one}" for one in chosen if set(chosen) != set(PARTS)) + " --quick" * quick,
        "machine": figures.machine(), "seeds": list(seeds), "quick": quick, "steps": recipe.steps,
        "rows": rows, "context": recipe.context_tokens,
        "memory": {at: {"peak_mb": one["peak_mb"], "turns": one["curve"]["turns"][-1]} for at, one in peaks.items()},
        "codes": sorted(bench.codes),
    }  # fmt: skip
    figures.write(out_dir, "credit", result=result, page=page(result), code=CODE)
    print("\n\n".join(page(result)))


def page(result: dict[str, Any]) -> list[str]:
    """The page below its head."""
    lengths = " and ".join(result["rows"]) or "none"
    out = [
        "The office's application: jobs from an inbox, done by calls, one reward at the end (1 or 0). Held-out episodes"
        f" solved in per cent, {result['steps']} steps of practice after the same warm start; means and 95 % intervals"
        " over seeds. `against outcome only`: paired by seed. Lengths, in turns, at which courses were trained and run"
        f" for this page: {lengths}; what is served at other lengths was trained at these.",
    ]
    for trained, methods in result["rows"].items():
        out += [f"## Trained at {trained} turns", markdown(_rows(methods, trained, len(result["seeds"])))]
    if result["memory"]:
        out += _memory(result)
    return out + practice_states.told(result["codes"])


def _memory(result: dict[str, Any]) -> list[str]:
    first = next(iter(result["memory"].values()))["peak_mb"]
    rows = [
        {"turns of the reference": at, "turns taken": one["turns"], "peak memory, MB": one["peak_mb"],
         "times the first": round(one["peak_mb"] / first, 2)}
        for at, one in result["memory"].items()
    ]  # fmt: skip
    return [
        "## Memory",
        f"Peak resident memory of a whole process that attempts and learns, a turn within {result['context']} tokens.",
        markdown(rows),
    ]


def _rows(methods: dict[str, list[dict[str, Any]]], trained: str, many: int) -> list[dict[str, Any]]:
    def told(values: Sequence[float], *, signed: bool = False) -> str:
        return percent(interval(values), of=many, signed=signed)

    plain, rows = methods["outcome"], []
    for credit, pieces in methods.items():
        row: dict[str, Any] = {
            "credit": NAMES[credit], "after the warm start": told([one["before"] for one in pieces]),
            f"served at {trained}": told([one["after"] for one in pieces]),
        }  # fmt: skip
        for name in pieces[0]["served"]:
            row[f"served at {name}"] = told([one["served"][name]["after"] for one in pieces])
        row["against outcome only"] = told(
            [a["after"] - b["after"] for a, b in zip(pieces, plain, strict=True)], signed=True
        )  # fmt: skip
        row["CPU s"] = round(fmean(one["cpu_s"] for one in pieces))
        rows.append(row)
    return rows
