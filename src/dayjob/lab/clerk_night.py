"""``dayjob lab night``: one night without a server. Every method learns from the same week in the same office.

A week is played once a seed with the base model and its notes; what staff said is the night's material. A piece is one
method on one seed, kept on disk when it is done.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import clerk
from clerk.office import Office, Size
from clerk.staff import Load, asks_of, office

from dayjob.endings import Invalid
from dayjob.lab import figures
from dayjob.lab.clerk_board import FRESH, Board
from dayjob.lab.clerk_desk import Desk, Diary, chat, new_board, play_day, work_probe
from dayjob.lab.clerk_exam import FOLLOWING, TAUGHT, WITH_NOTES, check_apart, exam, fold, self_written
from dayjob.lab.clerk_material import material
from dayjob.lab.clerk_methods import METHODS, Tuning, answered_by_teacher
from dayjob.lab.clerk_night_page import page, plot
from dayjob.learn.language.lessons import Material
from dayjob.learn.language.night import Night, learn_night
from dayjob.learn.language.table import Question
from dayjob.learn.language.writing import BASE
from dayjob.policies.adapters import Adapter
from dayjob.policies.model_folder import check_model
from dayjob.tables import bases_of

CODE = ("learn/language", "objectives/language", "memory", "policies", "lab", "apps/clerk")  # decide about the figures
WORK = Path("runs/night")  # what a killed run goes on from
NIGHT = "night"  # the version that a night makes
BEFORE, MEMORY = "before", "memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be run, and where it is kept. ``each``: test questions of a convention."""

    seeds: tuple[int, ...]
    methods: tuple[str, ...]
    model: Path
    folder: Path
    size: Size = field(default_factory=Size)
    everyday: int = 6
    about: int = 6
    each: int = 4
    tuning: Tuning = field(default_factory=Tuning)
    named: Path | None = None  # the model, where --model named one

    @property
    def load(self) -> Load:
        """A person's day."""
        return Load(everyday=self.everyday, about=self.about, work=work_probe)

    @property
    def mark(self) -> str:
        """Of everything that decides about figures beside method, seed and code."""
        weights = figures.weights_mark(self.model)
        said = json.dumps([weights, asdict(self.size), self.everyday, self.about, self.each, asdict(self.tuning)])
        return hashlib.blake2b(said.encode(), digest_size=4).hexdigest()

    def path(self, method: str, seed: int) -> Path:
        """Where a piece is kept."""
        return self.folder / f"{method}-{seed}-{self.mark}.json"


QUICK_SIZE = Size(answer=2, rule=1, hint=1, late=1, personal=1, days=2)


def run(seeds: range, methods: Sequence[str] | None, model: Path | None, out_dir: Path, *, quick: bool) -> None:
    """Every piece that is missing, then the table of all there are."""
    plan = Plan(
        seeds=tuple(seeds), methods=tuple(chosen(methods)), model=model_folder(model), named=model,
        folder=out_dir / "night",
    )  # fmt: skip
    if quick:
        plan = replace(plan, size=QUICK_SIZE, everyday=2, about=2, each=1, tuning=Tuning.quick())
    desk = Desk(plan.model)
    for seed in plan.seeds:
        missing = [one for one in plan.methods if not plan.path(one, seed).exists()]
        if missing:
            _seed(plan, desk, seed=seed, methods=missing)
    result = assembled(plan, quick=quick)
    figures.write(out_dir, "night", result=result, page=page(result), code=CODE, plot=lambda path: plot(result, path))
    print("\n\n".join(page(result)))


def chosen(methods: Sequence[str] | None) -> list[str]:
    """The methods asked for, all by default. Raises Invalid for one that there is not."""
    every = (BEFORE, MEMORY, *METHODS)
    for one in methods or ():
        if one not in every:
            raise Invalid(f"there is no method {one!r}: use some of {', '.join(every)}", param="methods")
    return list(methods or every)


def model_folder(given: Path | None) -> Path:
    """The folder of the model that ships, or of the one given: a folder, whole or in shards, else OWNER/NAME of one on
    the Hugging Face hub. Raises Invalid where there is none, or none that can be opened."""
    from dayjob.cli import bases

    folder = given or Path(clerk.__file__).parent / "model"
    if given is None and not folder.is_dir():
        raise Invalid(
            f"{folder} holds no model: make one with `dayjob lab clerk-pretrain`, or name another with --model",
            param="model",
        )
    (base,) = bases_of({"model": {"path": str(folder)}}, Path.cwd())
    folder = bases.model_folder(base.path)
    check_model(folder)
    return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Week:
    """What all methods of one seed share."""

    here: Office
    board: Board
    diary: Diary
    material: Material
    suites: Mapping[str, Sequence[Question]]


def play_week(plan: Plan, desk: Desk, *, seed: int) -> Week:
    """The week of a seed, what a night would learn from it, and the exam."""
    here, board, diary = office(seed, plan.size), new_board(desk), Diary()
    for day in range(plan.size.days):
        play_day(desk, here, board=board, diary=diary, asks=asks_of(here, day, load=plan.load))
    own_words = self_written(plan.model, METHODS["consolidate"].recipe(plan.tuning), seed=seed)
    forbidden = own_words | {fold(one.ask.probe.question) for one in diary.answered}
    suites = exam(here, day=plan.size.days - 1, forbidden=frozenset(forbidden), each=plan.each)
    check_apart(suites, frozenset(forbidden))
    return Week(
        here=here, board=board, diary=diary, material=material(desk, diary, board=board), suites=suites
    )  # fmt: skip


def _seed(plan: Plan, desk: Desk, *, seed: int, methods: Sequence[str]) -> None:
    week = play_week(plan, desk, seed=seed)
    tell(f"seed {seed}: {len(week.diary.answered)} questions, {week.diary.corrections} corrections")
    for method in methods:
        began = time.process_time()
        if method in (BEFORE, MEMORY):
            piece = _piece(week, desk, adapter=BASE, retired=(), notes=method == MEMORY)
        else:
            piece = _night(plan, desk, week=week, method=method, seed=seed)
        piece |= {"method": method, "seed": seed, "cpu_s": round(time.process_time() - began, 1)}
        figures.keep(plan.path(method, seed), piece | {"code": figures.code_mark(*CODE)})
        taught = fmean(piece["right"][name] for name in TAUGHT if name in piece["right"])
        tell(f"seed {seed}: {method}: {taught:.3f} of what was taught, {piece['cpu_s']:.0f} s of CPU")


def _night(plan: Plan, desk: Desk, *, week: Week, method: str, seed: int) -> dict[str, Any]:
    how = METHODS[method]
    recipe = how.recipe(plan.tuning)
    given = answered_by_teacher(desk, week.material) if how.teacher_answers else week.material
    WORK.mkdir(parents=True, exist_ok=True)
    checkpoint = WORK / f"{method}-{seed}-{plan.mark}.checkpoint"
    night = learn_night(plan.model, given, recipe=recipe, seed=seed, checkpoint=checkpoint)
    adapter = adapter_of(desk, night, folder=WORK / f"{method}-{seed}-{plan.mark}")
    piece = _piece(week, desk, adapter=adapter, retired=retired(night, week.board), notes=False)
    left = sum(bool(one.left_out) for one in night.lessons)
    return piece | {
        "stats": dict(night.stats), "why": night.why, "lessons": len(night.lessons), "left_out": left,
        "corrections_used": corrections_used(night, week.diary), "looks": [asdict(one) for one in night.looks],
    }  # fmt: skip


def adapter_of(desk: Desk, night: Night, *, folder: Path) -> Adapter:
    """What a night made, as it is served; the base where it made nothing. The folder is removed again."""
    if not night.state:
        return BASE
    night.save(folder, base="clerk")
    try:
        return desk.read(folder)
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def retired(night: Night, board: Board) -> tuple[str, ...]:
    """The notes that the model no longer needs: it gives the wanted answer to each of their askings without them."""
    if not night.state:
        return ()
    known: defaultdict[str, bool] = defaultdict(lambda: True)
    for one in night.lessons:
        if not one.left_out:
            known[one.family] &= one.learned
    return tuple(kept.note.id for kept in board.notes.tenant if known.get(kept.note.id))


def corrections_used(night: Night, diary: Diary) -> int:
    """Of the corrections that were said, those whose asking the night learned from."""
    used = {one.id for one in night.lessons if not one.left_out}
    return sum(one.kind != "thumb" for id, words in diary.words.items() if id in used for one in words)


def _piece(week: Week, desk: Desk, *, adapter: Adapter, retired: Sequence[str], notes: bool) -> dict[str, Any]:
    """The figures of one model: without notes, or (``notes``) with all of them."""
    week.board.retire(NIGHT, retired)
    asked = {
        name: [noted(one, week.board, version=FRESH) for one in questions] if notes and name != FOLLOWING else questions
        for name, questions in week.suites.items()
    }
    taught = [one for name in TAUGHT for one in week.suites.get(name, ())]
    right = desk.right(
        {**asked, WITH_NOTES: [noted(one, week.board, version=NIGHT) for one in taught]}, adapter=adapter
    )
    tokens = {
        name: fmean(week.board.place(str(one.messages[-1]["content"]), user=None, version=version).tokens
                    for one in taught)
        for name, version in (("before", FRESH), ("after", NIGHT))
    }  # fmt: skip
    return {
        "right": right,
        "asked": {name: len(questions) for name, questions in asked.items()},
        "served": fmean(one.right for one in week.diary.answered),
        "corrections": week.diary.corrections,
        "notes": {"standing": week.board.alive(FRESH), "alive": week.board.alive(NIGHT)},
        "tokens": tokens,
    }


def noted(one: Question, board: Board, *, version: str, user: str | None = None) -> Question:
    """A question with the notes that are placed for a version before it; what has messages before it stays."""
    text = str(one.messages[-1]["content"])
    if len(one.messages) > 1:
        return one
    return replace(one, messages=chat(text, board.place(text, user=user, version=version).text))


def chosen_by(seeds: Sequence[int], model: Path | None) -> list[str]:
    """The part of a command that says which seeds, and which model where one was named."""
    words = [f"--seeds {len(seeds)}"]
    words += [f"--first-seed {seeds[0]}"] if seeds[0] else []
    return words + ([f"--model {model}"] if model is not None else [])


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
    words = ["dayjob lab night", *chosen_by(plan.seeds, plan.named)]
    words += [f"--methods {one}" for one in plan.methods] if len(plan.methods) < len(METHODS) + 2 else []
    return {
        "command": " ".join(words + (["--quick"] if quick else [])),
        "machine": figures.machine(), "seeds": list(plan.seeds), "quick": quick,
        "tuning": asdict(plan.tuning), "size": asdict(plan.size), "pieces": pieces,
        "codes": sorted({one["code"] for one in pieces}),
    }  # fmt: skip


def tell(line: str) -> None:
    """Progress goes to standard error."""
    print(line, file=sys.stderr, flush=True)
