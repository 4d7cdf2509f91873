"""``dayjob lab suggest``: a completer that learns from accept, reject and silence, several versions a simulated day.

A *row* is one way in which people or operators are: two thresholds, people who let in what is harmless, who take pieces
more readily than the whole, who accept everything. A piece is one row on one seed, kept on disk when it is done.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from dayjob.endings import Invalid
from dayjob.gate.exam import Exam, harms
from dayjob.lab import figures
from dayjob.lab.suggest_editor import ANSWER, BASELINE, CONTEXT, POLICY, RECIPE, TENANT, Editor, Typed
from dayjob.lab.suggest_model import Shape, bring_up
from dayjob.lab.suggest_page import page, plot
from dayjob.lab.suggest_world import CROWDS, Kind, World
from dayjob.learn.language.recipes import RECIPES, NightRecipe

CODE = ("learn/language", "objectives/language", "policies", "journal", "gate", "lab")  # that decide about the figures
NEW_WORDS = {Kind.RIGHT: 2, Kind.HALF: 1}  # that an accepted suggestion saves; nothing else saves any


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """``games``: thresholds of versions that are learned at the end from the same journal, and examined at the row's
    own: what somebody makes who is after a high acceptance rate, or no rejection at all."""

    title: str
    crowd: str
    threshold: float
    short: bool = False  # one day, two versions
    games: tuple[float, ...] = ()


ROWS: Mapping[str, Row] = MappingProxyType({
    "quarter": Row(title="p* .25", crowd="mixed", threshold=0.25, games=(0.6, 0.99)),
    "half": Row(title="p* .5", crowd="mixed", threshold=0.5),
    "harmless": Row(title="what is harmless is accepted", crowd="harmless", threshold=0.25, short=True),
    "piecemeal": Row(title="pieces are accepted more readily", crowd="piecemeal", threshold=0.25, short=True),
    "acceptors": Row(title="everything is accepted", crowd="acceptors", threshold=0.25, short=True),
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be run, and where it is kept. ``each``: suggestions between two versions."""

    seeds: tuple[int, ...]
    rows: tuple[str, ...]
    folder: Path
    days: int = 3
    versions: int = 4
    each: int = 1500
    topics: int = 12
    shape: Shape = field(default_factory=lambda: Shape(steps=160))
    recipe: NightRecipe = field(default_factory=lambda: replace(
        RECIPES[RECIPE], answer_tokens=ANSWER, context_tokens=CONTEXT, lessons=64, microbatch=64, anchor_rows=32,
        self_written=0,
    ))  # fmt: skip

    @property
    def mark(self) -> str:
        """Of everything that decides about figures beside row, seed and code."""
        said = [self.days, self.versions, self.each, self.topics, asdict(self.shape), asdict(self.recipe)]
        return hashlib.blake2b(json.dumps(said).encode(), digest_size=4).hexdigest()

    def path(self, row: str, seed: int) -> Path:
        """Where a piece is kept."""
        return self.folder / f"{row}-{seed}-{self.mark}.json"


def run(seeds: range, rows: Sequence[str] | None, out_dir: Path, *, quick: bool) -> None:
    """Every piece that is missing, then the table of all there are."""
    for one in rows or ():
        if one not in ROWS:
            raise Invalid(f"there is no row {one!r}: use some of {', '.join(ROWS)}", param="rows")
    torch.set_num_threads(1)
    plan = Plan(seeds=tuple(seeds), rows=tuple(rows or ROWS), folder=out_dir / "suggest")
    if quick:
        rows = tuple(rows or ("quarter", "harmless"))
        plan = replace(plan, seeds=plan.seeds[:1], rows=rows, days=1, versions=2, each=500,
                       recipe=replace(plan.recipe, steps=50))  # fmt: skip
    for seed in plan.seeds:
        for row in plan.rows:
            if not plan.path(row, seed).exists():
                began = time.process_time()
                piece = live(plan, ROWS[row], seed=seed)
                piece |= {"row": row, "seed": seed, "cpu_s": round(time.process_time() - began, 1)}
                figures.keep(plan.path(row, seed), piece | {"code": figures.code_mark(*CODE)})
                print(f"seed {seed}: {row}: {piece['cpu_s']:.0f} s of CPU", file=sys.stderr, flush=True)
    result = assembled(plan, quick=quick)
    figures.write(out_dir, "suggest", result=result, page=page(result), code=CODE, plot=lambda path: plot(result, path))
    print("\n\n".join(page(result)))


def live(plan: Plan, row: Row, *, seed: int) -> dict[str, Any]:
    """One row on one seed: days of typing, learning and judging."""
    world = World(seed=seed, crowd=CROWDS[row.crowd], topics=plan.topics)
    recipe = replace(plan.recipe, accept_threshold=row.threshold)
    days, versions = (1, 2) if row.short else (plan.days, plan.versions)
    with tempfile.TemporaryDirectory(prefix="dayjob-suggest-") as place:
        base = Path(place) / "base"
        loss = bring_up(world, base, shape=plan.shape)
        editor = Editor(Path(place) / "data", base, world=world, recipes={RECIPE: recipe})
        try:
            told = []
            before = card(editor, BASELINE, threshold=row.threshold)
            for day in range(days):
                typed: list[Typed] = []
                for _ in range(versions):
                    typed += editor.type(plan.each)
                    editor.judge()
                    editor.learn()
                typed += editor.type(plan.each)
                editor.judge()
                told.append(_day(typed, threshold=row.threshold) | {"day": day + 1, "champion": _champion(editor)})
            served = card(editor, _champion(editor), threshold=row.threshold)
            return {
                "threshold": row.threshold, "loss": loss, "before": before, "days": told, "served": served,
                "versions": _versions(editor, threshold=row.threshold),
                "feedback": editor.state("report").get("feedback"),
                "games": [_game(editor, one, recipe=recipe, place=Path(place)) for one in row.games],
            }  # fmt: skip
        finally:
            editor.close()


def _champion(editor: Editor) -> str:
    return editor.control.pointers(TENANT, POLICY).champion


def _day(typed: Sequence[Typed], *, threshold: float) -> dict[str, float]:
    """What one day came to, as people had it. ``reward``: a context; silence earns 0."""
    shown = [one for one in typed if one.kind is not Kind.SILENT]
    accepted = [one for one in shown if one.verdict == "accept"]
    return {
        "shown": len(shown) / len(typed),
        "accepted": len(accepted) / max(1, len(shown)),
        "reward": (len(accepted) - threshold * len(shown)) / len(typed),
        "words": sum(NEW_WORDS.get(one.kind, 0) for one in accepted) / len(typed),
        "trivial": sum(one.kind is Kind.TRIVIAL for one in shown) / max(1, len(shown)),
    }


def card(editor: Editor, version: str, *, threshold: float) -> dict[str, float]:
    """A version by the world's truth: what it is worth to people, and where it acts rightly: suggests where the right
    words are accepted with more than p*, and nowhere else. Drawn as it is served, but for acting: that is greedy."""
    world = editor.world
    typed, others = world.contexts(typed=True), world.contexts(typed=False)
    drawn = list(zip(typed, editor.says(typed, version, greedy=False), strict=True))
    made = [(context, kind) for context, kind in drawn if kind is not Kind.SILENT]
    chances = [world.truth(context, kind) for context, kind in made]
    return {
        "shown": len(made) / len(typed),
        "accepted": sum(chances) / max(1, len(made)),
        "reward": (sum(chances) - threshold * len(made)) / len(typed),
        "words": sum(NEW_WORDS.get(kind, 0) * chance for (_, kind), chance in zip(made, chances, strict=True))
        / len(typed),
        "best": sum(max(0.0, world.truth(context) - threshold) for context in typed) / len(typed),
        "rightly": _rightly(editor, version, typed=True, threshold=threshold),
        "unseen": _rightly(editor, version, typed=False, threshold=threshold) if others else float("nan"),
        "other": editor.turns(version),
    }


def _rightly(editor: Editor, version: str, *, typed: bool, threshold: float) -> float:
    contexts = editor.world.contexts(typed=typed)
    said = editor.says(contexts, version, greedy=True)
    hits = ((kind is not Kind.SILENT) == (editor.world.truth(context) > threshold)
            for context, kind in zip(contexts, said, strict=True))  # fmt: skip
    return sum(hits) / len(contexts)


def _versions(editor: Editor, *, threshold: float) -> list[dict[str, Any]]:
    """Every version that was made, what the gate said of it, and what it is worth."""
    verdicts = {one.challenger: one for one in editor.control.verdicts(TENANT, POLICY)}
    return [
        {
            "name": one.name, "status": one.status.value,
            "verdict": verdicts[one.name].kind.value if one.name in verdicts else "none",
            "reason": verdicts[one.name].reason if one.name in verdicts else "",
            "suggestions": editor.state(f"exam/{one.name}").get("suggestions"),
        } | card(editor, one.name, threshold=threshold)
        for one in editor.control.versions(TENANT, POLICY)
        if one.number
    ]  # fmt: skip


def _game(editor: Editor, threshold: float, *, recipe: NightRecipe, place: Path) -> dict[str, Any]:
    """A version learned from the same journal at another threshold, examined at the row's own."""
    record = editor.examined(replace(recipe, accept_threshold=threshold), at=recipe, folder=place / f"game-{threshold}")
    found = harms(Exam.from_json(record)) if record else ()
    name = f"game-{threshold}"
    return {"threshold": threshold, "harms": list(found), "suggestions": record.get("suggestions")} | card(
        editor, name, threshold=recipe.accept_threshold
    )


def assembled(plan: Plan, *, quick: bool) -> dict[str, Any]:
    """The table's numbers from the pieces on disk."""
    pieces = [
        json.loads(plan.path(row, seed).read_text())
        for row in plan.rows
        for seed in plan.seeds
        if plan.path(row, seed).exists()
    ]
    if not pieces:
        raise Invalid(f"there is no piece of this plan in {plan.folder} yet: run it first")
    words = ["dayjob lab suggest", f"--seeds {len(plan.seeds)}"]
    words += [f"--first-seed {plan.seeds[0]}"] if plan.seeds[0] else []
    words += [f"--rows {one}" for one in plan.rows] if set(plan.rows) != set(ROWS) else []
    return {
        "command": " ".join(words + (["--quick"] if quick else [])), "machine": figures.machine(),
        "seeds": list(plan.seeds), "quick": quick, "titles": {name: row.title for name, row in ROWS.items()},
        "each": plan.each, "pieces": pieces, "codes": sorted({one["code"] for one in pieces}),
    }  # fmt: skip
