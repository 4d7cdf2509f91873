"""``dayjob lab dream``: the clerk meets an application that it knows from a short day's record alone. Does a night with
dreaming do more with it than one without?

Part ``compute``: one day, and everything that may be made of it: nothing, the night, the night for sixteen times as
long, dreams at four budgets, and a dream in whatever the authors wrote, proved or not. Part ``days``: days of several
lengths, with a dream and without, for how many interactions each needs to come to the same success. Every way has the
very same interactions. A piece is one way on one day of one seed, kept on disk when it is done.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dayjob.dream.prove import Demands
from dayjob.endings import Invalid
from dayjob.lab import dream_depot, figures, practice_states
from dayjob.lab.clerk_night import model_folder
from dayjob.lab.dream_depot import Depot, requests
from dayjob.lab.dream_page import COMPUTE, DAYS, PARTS, page, plot
from dayjob.lab.dream_rows import Day, Piece, Way, row
from dayjob.lab.practice_pieces import seeds_of, tell
from dayjob.learn.language.recipes import RECIPES, NightRecipe
from dayjob.practice.sandbox import available

WORK = Path("runs/dream")  # what a killed run goes on from
CODE = (
    "dream", "practice/**", "learn/practice", "learn/language", "objectives/language", "memory", "policies", "lab",
    "cli",
)  # fmt: skip
JUDGED_FROM = 1 << 40  # seeds of requests from here on judge; those of days are below
BUDGETS = (1, 4, 16, 64)
MIDDLE = 16  # the budget of dreams without a proof, and of days of other lengths
# Short, so that sixty-four times of it is minutes; without a dream it teaches two thirds of the longest day's requests.
NIGHT = replace(
    RECIPES["sft-answers"], steps=50, lessons=16, anchor_rows=8, microbatch=64, self_written=64, answer_tokens=24,
    question_tokens=32, context_tokens=320, save_every=1000,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much of everything. ``day``: interactions of the day of part ``compute``; ``days``: of those of part
    ``days``; ``pool``: of a depot's requests the first so many are for days, and none of them judges."""

    day: int = 96
    days: tuple[int, ...] = (32, 64, 96)
    pool: int = 192
    judged: int = 200
    kept: int = 12
    items: int = 120
    budgets: tuple[int, ...] = BUDGETS
    middle: int = MIDDLE
    night: NightRecipe = NIGHT


QUICK = Sizes(
    day=24, days=(24,), pool=24, judged=8, kept=1, budgets=(1,), middle=1,
    night=replace(NIGHT, steps=2, lessons=4, anchor_rows=2, self_written=4),
)  # fmt: skip


def ways(sizes: Sizes) -> list[Way]:
    """What part ``compute`` compares."""
    middle = sizes.middle
    return [
        Way(name="before", learns=False),
        Way(name="night"),
        Way(name=f"night-{middle}", longer=middle),
        *(Way(name=f"dream-{budget}", budget=budget) for budget in sizes.budgets),
        Way(name=f"unproved-{middle}", budget=middle, proved=False),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is run, and where it is kept."""

    seeds: tuple[int, ...]
    parts: tuple[str, ...]
    model: Path
    folder: Path
    sizes: Sizes

    @property
    def mark(self) -> str:
        """Of everything that decides about figures beside the piece's own name (way and day) and the code."""
        application = Path(dream_depot.__file__).read_text(encoding="utf-8")
        sizes = asdict(self.sizes) | {"budgets": (), "middle": 0, "day": 0, "days": ()}
        said = json.dumps([figures.weights_mark(self.model), application, sizes], sort_keys=True)
        return hashlib.blake2b(said.encode(), digest_size=4).hexdigest()

    def path(self, way: Way, interactions: int, *, seed: int) -> Path:
        """Where a piece is kept."""
        return self.folder / f"{way.name}-{interactions}-{seed}-{self.mark}.json"

    def wanted(self) -> list[tuple[Way, int]]:
        """(way, interactions) of the parts that are asked for, the cheap ones first."""
        sizes = self.sizes
        found = [(way, sizes.day) for way in ways(sizes)] if COMPUTE in self.parts else []
        if DAYS in self.parts:
            both = (Way(name="night"), Way(name=f"dream-{sizes.middle}", budget=sizes.middle))
            found += [(way, count) for count in sizes.days for way in both if (way, count) not in found]
        return sorted(found, key=lambda one: (one[0].budget or one[0].longer - 1) * one[1])

    def day(self, interactions: int, *, seed: int) -> Day:
        """The day of a seed: of two lengths the shorter is the beginning of the longer."""
        depot = Depot(depot=seed, items=self.sizes.items)
        whole = [one for _, one in requests(depot, self.sizes.pool, first=0)]
        judged = requests(depot, self.sizes.judged, first=JUDGED_FROM, apart_from=[one.text for one in whole])
        return Day(
            model=self.model, depot=depot, asked=whole[:interactions], judged=[one for one, _ in judged],
            night=self.sizes.night, kept=self.sizes.kept, seed=seed,
        )  # fmt: skip


def run(seeds: range, parts: Sequence[str] | None, model: Path | None, out_dir: Path, *, quick: bool) -> None:
    """Every piece that is missing, then the page of all there are. Raises Invalid for a part that there is not, and
    where the sandbox is missing."""
    chosen = tuple(parts or PARTS)
    unknown = sorted(set(chosen) - set(PARTS))
    if unknown:
        raise Invalid(f"there is no part {unknown[0]!r}: use some of {', '.join(PARTS)}", param="parts")
    missing = available()
    if missing is not None:
        raise Invalid(f"a dream runs programs in the sandbox only, and {missing}")
    practice_states.mark(*CODE)
    plan = Plan(
        seeds=tuple(seeds_of(seeds, quick=quick)), parts=chosen, folder=out_dir / "dream",
        model=model_folder(model), sizes=QUICK if quick else Sizes(),
    )  # fmt: skip
    torch.set_num_threads(1)  # a day is small, and threads that wait for each other cost more than they help
    for seed in plan.seeds:
        for way, interactions in plan.wanted():
            make(plan, way, interactions=interactions, seed=seed)
    result = assembled(plan, quick=quick)
    figures.write(out_dir, "dream", result=result, page=page(result), code=CODE, plot=lambda path: plot(result, path))
    print("\n\n".join(page(result)))


def make(plan: Plan, way: Way, *, interactions: int, seed: int) -> Piece:
    """A piece, made now unless it is on disk."""
    path = plan.path(way, interactions, seed=seed)
    if not path.exists():
        found = row(plan.day(interactions, seed=seed), way, work=WORK / path.stem)
        figures.keep(path, found | {"code": practice_states.mark(*CODE)})
        said = f"seed {seed}, {interactions} interactions: {way.name}: {found['success']:.3f}"
        tell(f"{said}, {found['cpu_s']:.0f} s of CPU")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def assembled(plan: Plan, *, quick: bool) -> dict[str, Any]:
    """The page's numbers from the pieces on disk, of both parts whichever were asked for."""
    everything = replace(plan, parts=PARTS)
    paths = [everything.path(way, count, seed=seed) for way, count in everything.wanted() for seed in plan.seeds]
    pieces = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
    if not pieces:
        raise Invalid(f"there is no piece of this plan in {plan.folder} yet: run it first")
    words = ["dayjob lab dream", f"--seeds {len(plan.seeds)}"]
    words += [f"--first-seed {plan.seeds[0]}"] if plan.seeds[0] else []
    words += [f"--parts {one}" for one in plan.parts] if plan.parts != PARTS else []
    return {
        "command": " ".join(words + (["--quick"] if quick else [])), "machine": figures.machine(),
        "seeds": list(plan.seeds), "quick": quick, "sizes": asdict(plan.sizes), "claims": Demands().claims,
        "pieces": pieces, "codes": practice_states.states(pieces),
    }  # fmt: skip
