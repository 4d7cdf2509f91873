"""``dayjob lab world``: how right is a model of the application, and what are rehearsing and planning in it worth?

A policy is shown a few days of the office, works through some real ones, and these are all that anybody learns from. A
world model learns them; its error is measured by step on real episodes that it did not learn. Then, at equal real
interactions: the policy alone, more practice in the real office for the price of the recording, rehearsal in the
imagined office at growing budgets, and planning with k candidates and depth d. Judged on real tasks alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console

from dayjob.dream.plan import Plan
from dayjob.dream.world import Accuracy, EngineResponder, Episode
from dayjob.lab import world_rows as rows
from dayjob.lab.clerk_night import model_folder
from dayjob.lab.figures import interval, keep, machine, markdown, percent, surely, weights_mark, write
from dayjob.lab.gate import print_rows
from dayjob.learn.language.recipes import RECIPES
from dayjob.learn.practice.recipe import PracticeRecipe
from dayjob.learn.practice.world import WORLD
from dayjob.practice.environments.office import Office
from dayjob.practice.environments.world import answering
from dayjob.signals.intervals import wilson

Piece = dict[str, Any]
WORK = Path("runs/world")  # adapters and recordings: what a killed run goes on from
TOLERANCE = 0.2  # of the share of imagined answers that are wrong, by which the horizon is set
ALONE, GREEDY, REAL = "the policy alone", "the policy alone, most probable answers", "as much real practice again"
OFFICE = Office(turns=4, kinds=("order", "count", "enter", "move", "tell"), inbox=False, manual=False)
WARM = replace(RECIPES["published-sft"], learning_rates=(2e-3,), steps=120, warmup=10, stop_every=20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much of everything."""

    shown: int = 120  # days of demonstrations
    recorded: int = 256  # real episodes, whatever they are used for
    judged: int = 200  # real tasks
    depth: int = 4
    warm_steps: int = 120
    world_steps: int = 400
    groups: int = 4
    attempts: int = 8
    budgets: tuple[int, ...] = (1, 4, 16)  # imagined episodes for each recorded one
    plans: tuple[tuple[int, int], ...] = ((4, 0), (4, 1), (4, 2), (4, 4), (2, 2), (8, 2))  # (k, d)


QUICK = Sizes(
    shown=10, recorded=12, judged=4, depth=2, warm_steps=4, world_steps=4, groups=1, attempts=2, budgets=(1,),
    plans=((2, 0), (2, 1)),
)  # fmt: skip


def setting_of(seed: int, *, sizes: Sizes, model: Path) -> rows.Setting:
    """What one seed is run with; another plan or model works in another folder."""
    told = json.dumps([asdict(sizes), OFFICE.spec, weights_mark(model)], sort_keys=True)
    mark = hashlib.sha256(told.encode()).hexdigest()[:12]
    return rows.Setting(
        seed=seed, model=model, work=WORK / mark / f"seed-{seed}", office=OFFICE, shown=sizes.shown,
        recorded=sizes.recorded, judged=sizes.judged, depth=sizes.depth,
        warm=replace(WARM, steps=sizes.warm_steps), world=replace(WORLD, steps=sizes.world_steps),
        practice=PracticeRecipe(
            groups=sizes.groups, attempts=sizes.attempts, learning_rate=5e-4, anchor=0.0, anchor_rows=0, self_written=0,
            look_every=0, warm_steps=0,
        ),
    )  # fmt: skip


class Seed:
    """The pieces of one seed, each made once and kept."""

    def __init__(self, setting: rows.Setting, sizes: Sizes, *, out: Path) -> None:
        self.setting, self.sizes, self.out = setting, sizes, out
        self.mark = setting.work.parent.name

    def piece(self, name: str, make: Callable[[], Piece]) -> Piece:
        """A piece by its name."""
        path = self.out / f"{self.mark}-{self.setting.seed}-{name}.json"
        if not path.exists():
            keep(path, make())
        return dict(json.loads(path.read_text(encoding="utf-8")))

    def all(self) -> Piece:
        """Every piece, in the order in which they need each other."""
        setting = self.setting
        shown, stop = rows.demonstrations(setting)
        self.warm = rows.learned(setting, "warm", rows=shown, stop=stop, recipe=setting.warm)
        self.episodes = self._episodes()
        self.world, self.measured = rows.world_model(setting, self.episodes)
        accuracy = self.piece("accuracy", self._accuracy)
        found = {
            ALONE: self.piece("alone", lambda: self._judged(self.warm, temperature=1.0)),
            GREEDY: self.piece("greedy", lambda: self._judged(self.warm, temperature=0.0)),
            REAL: self.piece("real", self._real),
        }
        for budget in self.sizes.budgets:
            found[f"rehearsal, x{budget}"] = self.piece(f"rehearsal-{budget}", partial(self._rehearsed, budget))
        for k, d in self.sizes.plans:
            found[f"planning, k {k}, d {d}"] = self.piece(f"plan-{k}-{d}", partial(self._planned, k, d))
        return {"seed": setting.seed, "accuracy": accuracy, "rows": found}

    def _episodes(self) -> list[Episode]:
        """The recording."""
        path = self.setting.work / "recorded.json"
        if not path.exists():
            actor = rows.Writer(self.setting, rows.state_of(self.warm), name=rows.POLICY).actor()
            keep(path, {"episodes": [asdict(one) for one in asyncio.run(rows.record(self.setting, actor))]})
        kept = json.loads(path.read_text(encoding="utf-8"))["episodes"]
        return [Episode(**one | {"messages": tuple(one["messages"])}) for one in kept]

    def _responder(self) -> EngineResponder:
        writer = rows.Writer(self.setting, rows.state_of(self.world), name=rows.MODEL)
        return writer.responder(rows.digest_of(self.world))

    def _accuracy(self) -> Piece:
        return asdict(rows.accuracy(self.setting, self._responder(), episodes=self.measured)) | {
            "recorded": len(self.episodes), "solved": sum(bool(one.solved) for one in self.episodes),
        }  # fmt: skip

    def _judged(self, folder: Path, *, temperature: float) -> Piece:
        writer = rows.Writer(self.setting, rows.state_of(folder), name=rows.POLICY)
        return asyncio.run(rows.judged(self.setting, writer.actor(temperature=temperature)))

    def _steps(self, budget: int) -> int:
        """Steps of practice that take so many times the recorded episodes."""
        return max(1, budget * self.sizes.recorded // (self.sizes.groups * self.sizes.attempts))

    def _real(self) -> Piece:
        """No world model: the real episodes go into practice."""
        folder, turns = rows.practised(
            self.setting, "real", environment=self.setting.office, warm=self.warm, steps=self._steps(1)
        )
        return self._judged(folder, temperature=1.0) | {"practised_turns": turns}

    def _rehearsed(self, budget: int) -> Piece:
        """The same steps in the imagined office."""
        responder = self._responder()
        office = rows.imagined_office(
            self.setting, responder.digest, episodes=self.episodes, horizon=self.setting.office.max_turns
        )
        with answering(responder):
            folder, turns = rows.practised(
                self.setting, f"rehearsal-{budget}", environment=office, warm=self.warm, steps=self._steps(budget)
            )
        return self._judged(folder, temperature=1.0) | {"practised_turns": turns}

    def _planned(self, k: int, d: int) -> Piece:
        writer = rows.Writer(self.setting, rows.state_of(self.warm), name=rows.POLICY)
        return rows.planned(self.setting, writer, responder=self._responder(), plan=Plan(candidates=k, depth=d))


def run(seeds: Sequence[int], model: Path | None, out_dir: Path, *, quick: bool = False) -> Piece:
    """Every piece that is missing, then the tables of all there are."""
    sizes, folder = QUICK if quick else Sizes(), model_folder(model)
    found = []
    for seed in seeds:
        found.append(Seed(setting_of(seed, sizes=sizes, model=folder), sizes, out=out_dir / "world").all())
        print(f"seed {seed}: done", flush=True)
    errors, results = error_rows(found), result_rows(found)
    print_rows(Console(width=150), errors, title="The world model's error by imagined step")
    print_rows(Console(width=150), results, title="Success on real tasks at equal real interactions")
    result: Piece = {
        "command": f"dayjob lab world --seeds {len(seeds)}{' --quick' if quick else ''}", "machine": machine(),
        "seeds": list(seeds), "quick": quick, "sizes": asdict(sizes), "found": found,
    }  # fmt: skip
    page = [_introduction(sizes), markdown(errors), _horizons(found), markdown(results), _sentence(found)]
    write(out_dir, "world", result=result, page=page)
    return result


def error_rows(found: Sequence[Piece]) -> list[Piece]:
    """A row a step: wrong answers, and the interval of all seeds' conversations together."""
    table = []
    for step in range(max(len(one["accuracy"]["wrong_H"]) for one in found)):
        told = [one["accuracy"] for one in found if step < len(one["accuracy"]["wrong_H"])]
        counts = [one["count_H"][step] for one in told]
        wrong = sum(one["wrong_H"][step] * count for one, count in zip(told, counts, strict=True)) / sum(counts)
        low, high = wilson(wrong * sum(counts), sum(counts))
        table.append({"imagined step": step + 1, "wrong, %": f"{100 * wrong:.1f}",
                      "95 %": f"{100 * low:.1f} to {100 * high:.1f}", "conversations": sum(counts)})  # fmt: skip
    return table


def result_rows(found: Sequence[Piece]) -> list[Piece]:
    """A row a method: success, and its difference from the policy alone, task by task on the same seeds."""
    table = []
    for name in found[0]["rows"]:
        mine = [one["rows"][name] for one in found]
        rates, first = [_rate(one) for one in mine], mine[0]
        table.append({
            "method": name, "solved, %": percent(interval(rates), of=0, signed=False),
            "against the policy alone, points": "" if name == ALONE else percent(_gain(found, name), of=0),
            "imagined answers for each real step": _mean(mine, "imagined_per_real"),
            "looks at the value for each real step": _mean(mine, "valued_per_real"),
            "steps changed, %": "" if "changed" not in first else f"{100 * float(_mean(mine, 'changed')):.0f}",
            "turns practised": "" if "practised_turns" not in first else f"{float(_mean(mine, 'practised_turns')):.0f}",
        })  # fmt: skip
    return table


def _gain(found: Sequence[Piece], name: str) -> dict[str, float]:
    return interval([_rate(one["rows"][name]) - _rate(one["rows"][ALONE]) for one in found])


def _rate(piece: Piece) -> float:
    return fmean(float(value > 0.5) for value in piece["solved"])


def _mean(pieces: Sequence[Piece], key: str) -> str:
    return f"{sum(one[key] for one in pieces) / len(pieces):.2f}" if key in pieces[0] else ""


def _horizons(found: Sequence[Piece]) -> str:
    names = ("wrong_H", "count_H", "value_wrong", "value_count")
    told = [Accuracy(**{name: one["accuracy"][name] for name in names}) for one in found]
    wrong, count = sum(one.value_wrong for one in told), sum(one.value_count for one in told)
    low, high = wilson(wrong, count)
    return (
        f"Horizon at a tolerance of {TOLERANCE:.0%}, by seed: {', '.join(str(one.horizon(TOLERANCE)) for one in told)}."
        f" Of {count} episodes that had ended the model misjudged whether they ended well in {wrong}"
        f" ({100 * low:.0f} to {100 * high:.0f} %). Rows below go beyond the horizon too, to show what it is worth."
    )


def _sentence(found: Sequence[Piece]) -> str:
    better = [name for name in found[0]["rows"] if name != ALONE and surely(_gain(found, name)) > 0]
    return f"**Surely better than the policy alone (the interval excludes zero): {', '.join(better) or 'none'}.**"


def _introduction(sizes: Sizes) -> str:
    return (
        f"The office of `{json.dumps(OFFICE.spec)}`, a policy shown {sizes.shown} days, {sizes.recorded} real episodes"
        f" recorded, {sizes.judged} real tasks to judge. *Wrong*: imagined answers that differ from the real one, the"
        " recorded actions played on and each answer standing behind the model's own earlier ones; the stock is drawn"
        " anew each day, so what depends on it cannot be known. *Real practice*: as many episodes in the real office as"
        " were recorded, in place of a world model. *k*: actions drawn before each step; *d*: imagined answers behind"
        " each; d 0 ranks them by the model's word on success alone."
    )
