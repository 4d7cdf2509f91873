"""Courses of practice as pieces of a long run: kept on disk when they are done, gone on from when they are killed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import resource
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from dayjob.lab import figures, practice_states
from dayjob.lab.clerk_night import model_folder
from dayjob.lab.practice_ground import PracticeGround, Tasks, open_ground, passed
from dayjob.learn.language.lessons import Material
from dayjob.learn.practice.course import Course, Practised, mark_of
from dayjob.learn.practice.job import parts_beside
from dayjob.learn.practice.local import LocalEngine
from dayjob.learn.practice.recipe import PracticeRecipe
from dayjob.learn.practice.student import Student
from dayjob.learn.stages import Stages
from dayjob.records import Json

WORK = Path("runs/practice")  # what a killed run goes on from
NAME = "practice"
CODE = ("learn/practice", "learn/language", "objectives/language", "memory", "policies", "practice/**", "lab")
TOLD = (
    "reward", "pass", "turns", "kl_behaviour", "lag", "sample_size", "brake", "bits", "groups_kept", "groups_solved",
    "practice/dropped", "practice/capped", "anchor/kl", "gradient", "update", "tokens", "teacher_tokens",
    "teacher_groups", "teacher_unhelped", "teacher_gain", "teacher/loss",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One course with one seed. ``served``: further specs that the best weights are looked at on, by name."""

    name: str
    spec: Json
    recipe: PracticeRecipe
    tasks: Tasks
    seed: int
    served: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where pieces run and are kept. ``codes``: marks of the code that made those that were handed out."""

    model: Path
    folder: Path
    codes: set[str] = field(default_factory=set, compare=False)

    @staticmethod
    def of(model: Path | None, out_dir: Path, *, name: str) -> Bench:
        """``model`` None: the clerk that ships. Raises Invalid where there is none."""
        practice_states.mark(*CODE)
        return Bench(model=model_folder(model), folder=out_dir / name)

    def path(self, piece: Piece) -> Path:
        """Where a piece is kept; its name holds a mark of everything that decides about figures beside the code."""
        weights = figures.weights_mark(self.model)
        said = json.dumps([weights, asdict(piece)], sort_keys=True, default=str)
        mark = hashlib.blake2b(said.encode(), digest_size=4).hexdigest()
        slug = re.sub("[^a-z0-9]+", "-", piece.name.lower())
        return self.folder / f"{slug}-{piece.seed}-{mark}.json"

    def done(self, piece: Piece) -> dict[str, Any] | None:
        """A piece's figures; None where it was not run yet."""
        path = self.path(piece)
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def run(self, piece: Piece, *, alone: bool = False) -> dict[str, Any]:
        """The figures of a piece, run now unless they are on disk. ``alone``: in a process of its own, so that its
        memory can be told."""
        kept = self.done(piece)
        if kept is not None:
            self.codes.update(practice_states.states([kept]))
            return kept
        if alone:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                found = pool.submit(_figures, self, piece).result()
        else:
            found = _figures(self, piece)
        figures.keep(self.path(piece), found)
        self.codes.update(practice_states.states([found]))
        rates = f"{found['before']:.3f} -> {found['after']:.3f}"
        tell(f"{piece.name}, seed {piece.seed}: {rates}, {found['cpu_s']:.0f} s of CPU")
        return found

    def start(self, piece: Piece) -> float:
        """The pass rate of the model as it is on the tasks that judge; kept as a piece is."""
        bare = replace(piece, name=f"start-{piece.name}", recipe=replace(piece.recipe, steps=1), served={})
        kept = self.done(bare)
        if kept is None:
            student, ground = _opened(self, piece)
            look = asyncio.run(ground.look(LocalEngine(student, name=NAME), NAME))
            kept = {
                "name": bare.name, "seed": piece.seed, "before": look.rates["judge"],
                "code": practice_states.mark(*CODE),
            }  # fmt: skip
            figures.keep(self.path(bare), kept)
            tell(f"{piece.name}, seed {piece.seed}: begins at {kept['before']:.3f}")
        self.codes.update(practice_states.states([kept]))
        return float(kept["before"])


def _opened(bench: Bench, piece: Piece) -> tuple[Student, PracticeGround]:
    student = Student(bench.model, piece.recipe, seed=piece.seed)
    recipe = replace(piece.recipe, context_tokens=student.writer.context_tokens)
    opening = open_ground(piece.spec, student.tokens, recipe=recipe, tasks=piece.tasks, seed=piece.seed)
    return student, asyncio.run(opening)


def _figures(bench: Bench, piece: Piece) -> dict[str, Any]:
    began = time.process_time()
    student, ground = _opened(bench, piece)
    parts = []
    if piece.recipe.anchor:
        parts = parts_beside(student, Material(lessons=()), recipe=piece.recipe.night(), seed=piece.seed)
    checkpoint = WORK / bench.path(piece).with_suffix(".checkpoint").name
    stages = Stages(path=checkpoint, mark=mark_of(bench.model, ground, recipe=piece.recipe, seed=piece.seed))
    course = Course(student, ground, recipe=piece.recipe, seed=piece.seed, parts=parts, stages=stages)
    practised = course.run()
    return _told(piece, practised) | {
        "served": _served(student, ground, piece, practised),
        "curriculum": None if ground.curriculum is None else ground.curriculum.report(),
        "cpu_s": round(time.process_time() - began, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "code": practice_states.mark(*CODE),
    }


def _told(piece: Piece, practised: Practised) -> dict[str, Any]:
    """Pass rates on the tasks that judge: ``before`` the first step (a warm start comes before that), ``after`` with
    the best weights (those of the model as it is where nothing did better), ``last`` with those of the last step."""
    before = [one for one in practised.looks if not one["step"]][-1]
    return {
        "name": piece.name, "seed": piece.seed, "spec": piece.spec, "before": before["judge"],
        "after": practised.looks[practised.best_look]["judge"], "last": practised.looks[-1]["judge"],
        "greedy": [before["greedy"], practised.looks[practised.best_look]["greedy"]],
        "best_step": practised.best_step, "looks": [dict(one) for one in practised.looks],
        "corrections": _counted([one["correction"] for one in practised.curve]),
        "curve": {name: [one.get(name) for one in practised.curve] for name in TOLD},
    }  # fmt: skip


def _served(
    student: Student, ground: PracticeGround, piece: Piece, practised: Practised
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Pass rates on other environments, before and after: what was learned here, asked elsewhere."""
    found: dict[str, dict[str, float]] = {}
    engine = LocalEngine(student, name=NAME)
    seeds = range(max(8, piece.tasks.judge // 4))
    for name, spec in piece.served.items():
        rates = []
        for weights in (None, practised.best):
            if weights is not None:
                student.weights.restore(weights)
                rates.append(passed(asyncio.run(ground.rewards(engine, NAME, seeds=seeds, spec=spec))))
            else:
                with student.weights.off():
                    rates.append(passed(asyncio.run(ground.rewards(engine, NAME, seeds=seeds, spec=spec))))
        found[name] = {"before": rates[0], "after": rates[1]}
    return found


def _counted(names: list[str]) -> dict[str, int]:
    return {name: names.count(name) for name in sorted(set(names))}


def seeds_of(seeds: range, *, quick: bool) -> range:
    """Where it is only to be seen that it runs, one is enough."""
    return seeds[:1] if quick else seeds


def tell(line: str) -> None:
    """Progress goes to standard error."""
    print(line, file=sys.stderr, flush=True)
