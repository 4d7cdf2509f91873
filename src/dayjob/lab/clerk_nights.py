"""``dayjob lab nights``: twenty days and nights. Every day something new is taught and something old reversed, two
people teach opposites, and once there is a quiet time, with a night of its own, in which nobody speaks of any of it.

Every night begins at the base model and learns what stands then. What is made serves the next day without a trial: this
compares methods; the gate has tables of its own. A piece is one method on one seed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from clerk.office import HOWS, Size
from clerk.staff import Load, office

from dayjob.endings import Invalid
from dayjob.lab import figures
from dayjob.lab.clerk_board import FRESH
from dayjob.lab.clerk_desk import Desk, play_day, work_probe
from dayjob.lab.clerk_exam import TAUGHT, check_apart, exam, fold, gone, own, self_written
from dayjob.lab.clerk_life import TENANTS, Calendar, Life, Turn, resume, save
from dayjob.lab.clerk_material import RECENT, material
from dayjob.lab.clerk_methods import METHODS, Tuning, answered_by_teacher
from dayjob.lab.clerk_night import (
    CODE,
    MEMORY,
    QUICK_SIZE,
    chosen_by,
    corrections_used,
    model_folder,
    noted,
    retired,
    tell,
)
from dayjob.lab.clerk_night_page import weighed
from dayjob.lab.clerk_nights_page import KEPT, page, plot
from dayjob.learn.language.night import learn_night

DEFAULT = ("consolidate", "sft-answers", "published-sft", "published-grpo", MEMORY)
SIZE = Size(answer=4, rule=3, hint=2, late=2, personal=2, days=20, new=(1, 0, 0, 1), reversals=1)
WORK = Path("runs/nights")
GONE_TODAY, GONE_BEFORE = "reversed today", "reversed before"  # suites


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be run. ``personal_every``: nights between two of the personal layers; the last night has one."""

    seeds: tuple[int, ...]
    methods: tuple[str, ...]
    model: Path
    folder: Path
    work: Path = WORK
    size: Size = SIZE
    calendar: Calendar = field(default_factory=lambda: Calendar(load=Load(everyday=4, about=4, work=work_probe)))
    personal_every: int = 5
    each: int = 2
    tuning: Tuning = field(default_factory=Tuning)
    named: Path | None = None  # the model, where --model named one

    @property
    def mark(self) -> str:
        """Of everything that decides about figures beside method, seed and code."""
        weights = figures.weights_mark(self.model)
        load, calendar = self.calendar.load, replace(self.calendar, load=Load())
        numbers = [load.everyday, load.about, calendar.quiet_before, calendar.quiet_days, calendar.days]
        said = json.dumps(
            [weights, asdict(self.size), numbers, self.personal_every, self.each, asdict(self.tuning)]
        )  # fmt: skip
        return hashlib.blake2b(said.encode(), digest_size=4).hexdigest()

    def path(self, method: str, seed: int) -> Path:
        """Where a piece is kept."""
        return self.folder / f"{method}-{seed}-{self.mark}.json"


def run(
    seeds: range, methods: Sequence[str] | None, model: Path | None, out_dir: Path, *, nights: int, quick: bool
) -> None:
    """Every piece that is missing, then the table of all there are."""
    plan = Plan(
        seeds=tuple(seeds), methods=tuple(_chosen(methods)), model=model_folder(model), named=model,
        folder=out_dir / "nights",
    )  # fmt: skip
    plan = replace(plan, size=replace(plan.size, days=nights), calendar=replace(plan.calendar, days=nights))
    if quick:
        small = replace(QUICK_SIZE, days=nights, new=(1, 0, 0, 0), reversals=1)
        calendar = replace(plan.calendar, quiet_before=2, load=Load(everyday=2, about=2, work=work_probe))
        plan = replace(plan, size=small, calendar=calendar, personal_every=2, each=1, tuning=Tuning.quick())
    desk = Desk(plan.model)
    for seed in plan.seeds:
        for method in plan.methods:
            if not plan.path(method, seed).exists():
                live(plan, desk, method=method, seed=seed)
    result = assembled(plan, quick=quick)
    figures.write(out_dir, "nights", result=result, page=page(result), code=CODE, plot=lambda path: plot(result, path))
    print("\n\n".join(page(result)))


def _chosen(methods: Sequence[str] | None) -> list[str]:
    for one in methods or ():
        if one not in (MEMORY, *METHODS):
            raise Invalid(
                f"there is no method {one!r}: use some of {', '.join((MEMORY, *METHODS))}", param="methods"
            )  # fmt: skip
    return list(methods or DEFAULT)


def live(plan: Plan, desk: Desk, *, method: str, seed: int) -> None:
    """All nights of one method on one seed, from wherever they were stopped, and the piece."""
    here = office(seed, plan.size)
    folder = plan.work / f"{method}-{seed}-{plan.mark}"
    folder.mkdir(parents=True, exist_ok=True)
    life = resume(desk, here, calendar=plan.calendar, folder=folder)
    anchored = method != MEMORY and METHODS[method].recipe(plan.tuning)
    written = self_written(plan.model, anchored, seed=seed) if anchored else frozenset()
    for turn in plan.calendar.turns[len(life.rows) :]:
        began = time.process_time()
        first = len(life.diary.answered)
        asks = plan.calendar.asks(here, turn)
        play_day(desk, here, board=life.board, diary=life.diary, asks=asks, serving=life.serving(desk, folder))
        today = life.diary.answered[first:]
        row: dict[str, Any] = {
            "day": turn.day + 1, "quiet": turn.quiet, "questions": len(today),
            "served": fmean(one.right for one in today), "corrections": life.diary.corrections,
        }  # fmt: skip
        if method != MEMORY:
            row["nights"] = _learn(plan, desk, life=life, turn=turn, method=method, folder=folder)
        row |= _examine(plan, desk, life=life, turn=turn, written=written, memory=method == MEMORY, folder=folder)
        life.rows.append(row | {"cpu_s": round(time.process_time() - began, 1)})
        save(life, folder)
        when = f"{'the quiet time after ' if turn.quiet else ''}day {turn.day + 1}"
        tell(f"{method}, seed {seed}, {when}: {row['current']:.3f} of what holds, {row['kept']:.3f} kept")
    piece = {"method": method, "seed": seed, "nights": life.rows, "code": figures.code_mark(*CODE)}
    figures.keep(plan.path(method, seed), piece)
    shutil.rmtree(folder)


def _learn(plan: Plan, desk: Desk, *, life: Life, turn: Turn, method: str, folder: Path) -> dict[str, Any]:
    """A night of each layer whose turn it is. After a quiet time only that time's questions are rehearsed, and nobody's
    own layer is made."""
    day, how = turn.day, METHODS[method]
    last = day + 1 == plan.calendar.days
    layers: list[str | None] = [None]
    if ((day + 1) % plan.personal_every == 0 or last) and not turn.quiet:
        layers += [name for name in life.here.staff if life.here.standing(day, whose=name)]
    recent = len(plan.calendar.asks(life.here, turn)) if turn.quiet else RECENT
    found: dict[str, Any] = {}
    for user in layers:
        given = material(desk, life.diary, board=life.board, user=user, recent=recent)
        given = answered_by_teacher(desk, given) if how.teacher_answers else given
        layer = user or TENANTS
        night = learn_night(
            plan.model, given, recipe=how.recipe(plan.tuning), seed=life.here.seed,
            checkpoint=folder / f"{layer}.checkpoint",
        )  # fmt: skip
        life.take(layer, night, folder=folder, retired=retired(night, life.board))
        found[layer] = {
            "lessons": sum(not one.left_out for one in night.lessons),
            "corrections_used": corrections_used(night, life.diary),
            "why": night.why, "kl": night.stats.get("anchor/kl"),
        }  # fmt: skip
    return found


def _examine(
    plan: Plan, desk: Desk, *, life: Life, turn: Turn, written: frozenset[str], memory: bool, folder: Path
) -> dict[str, Any]:
    """What the office's layer knows after a night, without notes (memory alone: with them), and two people's."""
    here, day, serving = life.here, turn.day, life.serving(desk, folder)
    forbidden = written | {fold(one.ask.probe.question) for one in life.diary.answered}
    suites = exam(here, day=day, forbidden=forbidden, each=plan.each)
    old = {
        name: gone(here, day=day, forbidden=forbidden, each=plan.each, today=today)
        for name, today in ((GONE_TODAY, True), (GONE_BEFORE, False))
    }
    check_apart({**suites, **old}, forbidden)
    asked = {name: suites[name] for name in (*TAUGHT, *KEPT) if name in suites}
    asked |= {name: questions for name, questions in old.items() if questions}
    if memory:
        asked = {
            name: [noted(one, life.board, version=FRESH) for one in questions] for name, questions in asked.items()
        }
    right = desk.right(asked, adapter=serving.adapter)
    texts = [str(one.messages[-1]["content"]) for name in TAUGHT for one in asked.get(name, ())]
    counts = {name: len(questions) for name, questions in asked.items()}
    whole = {"right": right, "asked": counts}
    return {
        "current": weighed(whole, TAUGHT),
        **{how: right[f"by {how}"] for how in HOWS if f"by {how}" in right},
        "gone": weighed(whole, (GONE_TODAY, GONE_BEFORE)),
        "gone_today": right.get(GONE_TODAY) if not turn.quiet else None,
        "kept": weighed(whole, KEPT),
        "suites": {name: right[name] for name in KEPT if name in right},
        "asked": counts,
        "apart": _apart(plan, desk, life=life, turn=turn, forbidden=forbidden, memory=memory, folder=folder),
        "notes": {"standing": life.board.alive(FRESH), "alive": life.board.alive(serving.version)},
        "tokens": fmean(life.board.place(one, user=None, version=serving.version).tokens for one in texts),
    }  # fmt: skip


def _apart(
    plan: Plan, desk: Desk, *, life: Life, turn: Turn, forbidden: frozenset[str], memory: bool, folder: Path
) -> dict[str, dict[str, float]]:
    """For each person with habits: how often their layer says what they have, and how often what the other has; the
    same of the office's layer, which should know neither."""
    here, day, serving = life.here, turn.day, life.serving(desk, folder)
    found: dict[str, dict[str, float]] = {}
    people = [name for name in here.staff if here.standing(day, whose=name)]
    habits = {name: own(here, name, day=day, forbidden=forbidden, each=plan.each) for name in people}
    for name in people:
        others = [one for other in people if other != name for one in habits[other]]
        asked = {"own": habits[name], "other's": others}
        if memory:
            asked = {
                suite: [noted(one, life.board, version=FRESH, user=name) for one in questions]
                for suite, questions in asked.items()
            }
        elif name not in serving.own:
            continue
        found[name] = desk.right(asked, adapter=serving.of(name)[0])
    every = [one for questions in habits.values() for one in questions]
    return found | {TENANTS: desk.right({"any": every}, adapter=serving.adapter)}


def assembled(plan: Plan, *, quick: bool) -> dict[str, Any]:
    """The table's numbers from the pieces on disk."""
    pieces = [
        json.loads(plan.path(method, seed).read_text())
        for method in plan.methods
        for seed in plan.seeds
        if plan.path(method, seed).exists()
    ]
    if not pieces:
        raise Invalid(f"there is no piece of this plan in {plan.folder} yet: run it first")
    words = ["dayjob lab nights", *chosen_by(plan.seeds, plan.named)]
    words += [] if plan.methods == DEFAULT else [f"--methods {one}" for one in plan.methods]
    words += [] if plan.calendar.days == Calendar().days else [f"--nights {plan.calendar.days}"]
    return {
        "command": " ".join(words + (["--quick"] if quick else [])),
        "machine": figures.machine(), "seeds": list(plan.seeds), "quick": quick, "days": plan.calendar.days,
        "quiet_before": plan.calendar.quiet_before, "quiet_days": plan.calendar.quiet_days,
        "tuning": asdict(plan.tuning), "size": asdict(plan.size),
        "personal_every": plan.personal_every, "pieces": pieces, "codes": sorted({one["code"] for one in pieces}),
    }  # fmt: skip
