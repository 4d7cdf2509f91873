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
from dayjob.lab import practice_states
from dayjob.lab import world_rows as rows
from dayjob.lab.clerk_night import chosen_by, model_folder
from dayjob.lab.figures import interval, keep, machine, markdown, percent, surely, weights_mark, write
from dayjob.lab.gate import print_rows
from dayjob.learn.language.recipes import RECIPES
from dayjob.learn.practice.recipe import PracticeRecipe
from dayjob.learn.practice.world import WORLD
from dayjob.practice.environments.office import Office
from dayjob.practice.environments.world import answering
from dayjob.signals.intervals import wilson

Piece = dict[str, Any]
# Folders whose code decides about the figures.
CODE = ("dream", "learn/language", "learn/practice", "objectives/language", "memory", "policies", "practice/**", "lab")
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
            keep(path, make() | {"code": practice_states.mark(*CODE)})
        return dict(json.loads(path.read_text(encoding="utf-8")))

    def all(self) -> Piece:
        """Every piece, in the order in which they need each other."""
        setting = self.setting
        shown, stop = rows.demonstrations(setting)
        self.warm = rows.learned(setting, "warm", rows=shown, stop=stop, recipe=setting.warm)
        self.episodes = self._episodes()
        self.world, self.measured = rows.world_model(setting, self.episodes)
        accuracy = self.piece("accuracy", self._accuracy)
        horizon = _accuracy_of(accuracy).horizon(TOLERANCE)
        found = {
            ALONE: self.piece("alone", lambda: self._judged(self.warm, temperature=1.0)),
            GREEDY: self.piece("greedy", lambda: self._judged(self.warm, temperature=0.0)),
            REAL: self.piece("real", self._real),
        }
        beyond, most = {}, setting.office.max_turns
        for budget in self.sizes.budgets:
            name = f"rehearsal, x{budget}"
            found[name] = self._rehearsal(budget, horizon) if horizon else found[ALONE] | {
                "practised_turns": 0, "believed": 0,
            }  # fmt: skip
            if most > horizon:
                beyond[name] = self._rehearsal(budget, most)
        for k, d in self.sizes.plans:
            name = f"planning, k {k}, d {d}"
            found[name] = self._plan(k, d, horizon)
            if d > horizon:
                beyond[name] = self._plan(k, d, d)
        return {"seed": setting.seed, "accuracy": accuracy, "horizon": horizon, "rows": found, "beyond": beyond}

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

    def _rehearsal(self, budget: int, horizon: int) -> Piece:
        """Kept by how far the model was believed; so is a plan."""
        name = f"rehearsal-{budget}-{horizon}"
        return self.piece(name, partial(self._rehearsed, budget, horizon, name=name)) | {"believed": horizon}

    def _plan(self, k: int, d: int, horizon: int) -> Piece:
        believed = min(d, horizon)  # plans that differ behind it alone are one
        return self.piece(f"plan-{k}-{believed}", partial(self._planned, k, d, horizon)) | {"believed": believed}

    def _rehearsed(self, budget: int, horizon: int, *, name: str) -> Piece:
        """The same steps in the imagined office, believed for ``horizon`` answers."""
        responder = self._responder()
        office = rows.imagined_office(self.setting, responder.digest, episodes=self.episodes, horizon=horizon)
        with answering(responder):
            folder, turns = rows.practised(
                self.setting, name, environment=office, warm=self.warm, steps=self._steps(budget)
            )
        return self._judged(folder, temperature=1.0) | {"practised_turns": turns}

    def _planned(self, k: int, d: int, horizon: int) -> Piece:
        writer = rows.Writer(self.setting, rows.state_of(self.warm), name=rows.POLICY)
        plan = Plan(candidates=k, depth=d)
        return rows.planned(self.setting, writer, responder=self._responder(), plan=plan, horizon=horizon)


def run(seeds: Sequence[int], model: Path | None, out_dir: Path, *, quick: bool = False) -> Piece:
    """Every piece that is missing, then the tables of all there are."""
    sizes, folder = QUICK if quick else Sizes(), model_folder(model)
    practice_states.mark(*CODE)
    found = []
    for seed in seeds:
        found.append(Seed(setting_of(seed, sizes=sizes, model=folder), sizes, out=out_dir / "world").all())
        print(f"seed {seed}: done", flush=True)
    errors, results, beyond = error_rows(found), result_rows(found), result_rows(found, part="beyond")
    codes = practice_states.states(
        piece for one in found for piece in (one["accuracy"], *one["rows"].values(), *one["beyond"].values())
    )
    print_rows(Console(width=150), errors, title="The world model's error by imagined step")
    print_rows(Console(width=150), results, title="Success on real tasks at equal real interactions")
    if beyond:
        print_rows(Console(width=150), beyond, title="Beyond the horizon, where nobody may believe the model")
    result: Piece = {
        "command": " ".join(["dayjob lab world", *chosen_by(seeds, model)] + ["--quick"] * quick), "machine": machine(),
        "seeds": list(seeds), "quick": quick, "sizes": asdict(sizes), "found": found,
        "weights": weights_mark(folder), "codes": codes,
    }  # fmt: skip
    page = [_introduction(sizes), markdown(errors), _horizons(found), markdown(results), _sentence(found)]
    if beyond:
        page += ["## Beyond the horizon", _BEYOND, markdown(beyond)]
    page += practice_states.told(codes)
    write(out_dir, "world", result=result, page=page, code=CODE)
    return result


def error_rows(found: Sequence[Piece]) -> list[Piece]:
    """A row a step: wrong answers, and the interval of all seeds' conversations together."""
    table = []
    for step in range(max(len(one["accuracy"]["wrong_H"]) for one in found)):
        known = [one["accuracy"] for one in found if step < len(one["accuracy"]["wrong_H"])]
        counts = [one["count_H"][step] for one in known]
        wrong = sum(one["wrong_H"][step] * count for one, count in zip(known, counts, strict=True)) / sum(counts)
        low, high = wilson(wrong * sum(counts), sum(counts))
        table.append({"imagined step": step + 1, "wrong, %": f"{100 * wrong:.1f}",
                      "95 %": f"{100 * low:.1f} to {100 * high:.1f}", "conversations": sum(counts)})  # fmt: skip
    return table


def result_rows(found: Sequence[Piece], *, part: str = "rows") -> list[Piece]:
    """A row a method: success, and its difference from the policy alone, task by task on the same seeds. ``part``:
    "rows" within the horizon, or "beyond" it, where a method may have fewer seeds."""
    table, many = [], len(found)
    for name in dict.fromkeys(name for one in found for name in one[part]):
        mine = [one[part][name] for one in found if name in one[part]]
        rates, first = [_rate(one) for one in mine], mine[0]
        table.append({
            "method": name, "solved, %": percent(interval(rates), of=many, signed=False),
            "against the policy alone, points": "" if name == ALONE else percent(_gain(found, name, part), of=many),
            "imagined answers believed, by seed": ", ".join(str(one["believed"]) for one in mine if "believed" in one),
            "imagined answers for each real step": _mean(mine, "imagined_per_real"),
            "looks at the value for each real step": _mean(mine, "valued_per_real"),
            "steps changed, %": "" if "changed" not in first else f"{100 * float(_mean(mine, 'changed')):.0f}",
            "turns practised": "" if "practised_turns" not in first else f"{float(_mean(mine, 'practised_turns')):.0f}",
        })  # fmt: skip
    return table


def _gain(found: Sequence[Piece], name: str, part: str = "rows") -> dict[str, float]:
    return interval([_rate(one[part][name]) - _rate(one["rows"][ALONE]) for one in found if name in one[part]])


def _rate(piece: Piece) -> float:
    return fmean(float(value > 0.5) for value in piece["solved"])


def _mean(pieces: Sequence[Piece], key: str) -> str:
    return f"{sum(one[key] for one in pieces) / len(pieces):.2f}" if key in pieces[0] else ""


def _accuracy_of(piece: Piece) -> Accuracy:
    """Of what was kept."""
    names = ("value_wrong", "value_count")
    return Accuracy(
        wrong_H=tuple(piece["wrong_H"]), count_H=tuple(piece["count_H"]), **{name: piece[name] for name in names}
    )


def _horizons(found: Sequence[Piece]) -> str:
    known = [_accuracy_of(one["accuracy"]) for one in found]
    wrong, count = sum(one.value_wrong for one in known), sum(one.value_count for one in known)
    low, high = wilson(wrong, count)
    return (
        f"Horizon at a tolerance of {TOLERANCE:.0%}, by seed:"
        f" {', '.join(str(one.horizon(TOLERANCE)) for one in known)}."
        f" Of {count} episodes that had ended the model misjudged whether they ended well in {wrong}"
        f" ({100 * low:.0f} to {100 * high:.0f} %). Behind the horizon nothing is imagined: a rehearsal's episode is"
        " cut there, and looks ahead end there. Where it is 0 there is no rehearsal, so the policy stays as it is, and"
        " a plan ranks what was drawn by the value alone."
    )


def _sentence(found: Sequence[Piece]) -> str:
    better = [name for name in found[0]["rows"] if name != ALONE and surely(_gain(found, name)) > 0]
    return f"**Surely better than the policy alone (the interval excludes zero): {', '.join(better) or 'none'}.**"


_BEYOND = (
    "The same methods with the model believed for as long as they ask, to show what the horizon is worth. Nobody may"
    " act on these rows: what was imagined there was measured to be wrong too often, or was not measured."
)


def _introduction(sizes: Sizes) -> str:
    return (
        f"The office of `{json.dumps(OFFICE.spec)}`, a policy shown {sizes.shown} days, {sizes.recorded} real episodes"
        f" recorded, {sizes.judged} real tasks to judge. *Wrong*: imagined answers that differ from the real one, the"
        " recorded actions played on and each answer standing behind the model's own earlier ones; the stock is drawn"
        " anew each day, so what depends on it cannot be known. *Real practice*: as many episodes in the real office as"
        " were recorded, in place of a world model. *k*: actions drawn before each step; *d*: imagined answers behind"
        " each; d 0 ranks them by the model's word on success alone."
    )
