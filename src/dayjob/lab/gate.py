"""``dayjob lab gate``: does the gate promote what is not better, and does it see what is?

A thousand trials at once run through the code that judges, each looked at after every decision. People are simulated
(``gate_worlds``); nothing about them is told to the gate.

Metric definitions. *Judged decision*: champion and challenger choose different first places; at a share of .5 that is
every second decision. *False promotion*: promotion of a challenger whose true effect is not above 0. *Points*: how much
more often the challenger's first choice is clicked at position 1, over all people, per judged decision.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from dayjob.gate.control import Floats
from dayjob.gate.elond import Elond, gamma
from dayjob.lab.figures import machine, markdown, write
from dayjob.lab.gate_rollback import ROLLBACKS, rollback_rows
from dayjob.lab.gate_worlds import Outcome, World, judge

CODE = ("gate", "lab")  # folders whose code decides about the figures
ALPHA = 0.05
DIFFERING = 0.5
WIDTH = 150
CHALLENGERS = 50
PEOPLE_BLIND = World(name="65 % click position 1, named")

NULLS = (
    replace(PEOPLE_BLIND, name="equal, 65 % click position 1, named"),
    replace(PEOPLE_BLIND, name="equal, the same without names", named=False),
    World(name="equal, honest people", blind=0.0),
    World(
        name="equal, trust bias (.35 g + .65, .53 g + .26)", blind=0.0, alpha=(0.35, 0.53), beta=(0.65, 0.26), both=True
    ),
    World(name="equal, everybody by position, 60/20", blind=1.0, blind_at=(0.6, 0.2)),
    World(name="equal, pull of position 1 drifts by 60 points", blind=0.2, swing=0.6),
    World(name="equal on average, far apart on each decision", blind=0.0, spread=1.0),
    replace(PEOPLE_BLIND, name="1 % worse, 65 % click position 1", gap=-0.01 * 0.35 * 0.3),
    World(name="1 % worse, honest people", blind=0.0, gap=-0.01 * 0.3),
)
POWERS = tuple(
    replace(PEOPLE_BLIND, name=f"{points} points better, {label}", gap=points / 100, named=named, people=people)
    for points in (1, 2, 5, 8)
    for label, named, people in (("without names", False, 300), ("300 people", True, 300), ("3,000 people", True, 3000))
)
# Among 300 people a heavy account adds at most 1 % of the weight; fresh ones add their share of the traffic.
ATTACKS = (
    *(
        replace(PEOPLE_BLIND, name=f"{accounts} heavy accounts, 10 %", gap=-0.02, puppets=0.1, puppet_accounts=accounts)
        for accounts in (1, 2, 4)
    ),
    replace(PEOPLE_BLIND, name="1 heavy account, 10 %, equal rankers", puppets=0.1, puppet_accounts=1),
    replace(
        PEOPLE_BLIND, name="1 heavy account, 10 %, 40 people", gap=-0.02, puppets=0.1, puppet_accounts=1, people=40
    ),
    *(
        replace(PEOPLE_BLIND, name=f"fresh accounts, {share:.1%}", gap=-0.02, puppets=share)
        for share in (0.01, 0.02, 0.03)
    ),
)
TABLES = {  # of a result: title, and what it shows
    "false_promotions": (
        "False promotions at alpha .05",
        "10,000 judged decisions, bias unknown to the gate. A judged decision is one in which first choices differ.",
    ),
    "attacks": (
        "Accounts that always click a challenger 2 points worse",
        "Puppets whose share of the traffic is above about the challenger's effect can promote it, and so can a few "
        "heavy accounts among few people. That is a limit, not a fault: to the record they are people. Truth, where it "
        "exists, is the remedy.",
    ),
    "in_a_row": (
        f"{CHALLENGERS} challengers in a row, e-LOND at alpha .05",
        "One after the other, 1,000 judged decisions each.",
    ),
    "power": (
        "Power",
        "Share promoted within so many judged decisions, at the first level of e-LOND, 65 % of users blind. Naming "
        "users nearly halves the noise: the pull of each is learned and removed.",
    ),
    "rollback": (
        "After a promotion",
        "A champion that is worse than what it replaced, or turns worse after 3,000 good decisions; a holdback of 3 %. "
        '"10 to 50 %" is how the judge sets the share of pairs by default, "2.5 to 50 %" where the budget has scaled '
        'the watch down; "pairs shown" is their mean share of the traffic until the rollback or the end.',
    ),
}
CHECKPOINTS = (1250, 2500, 5000, 10_000, 20_000)


def run(seeds: Sequence[int], runs: int, out_dir: Path, quick: bool = False) -> dict[str, Any]:
    """All tables, printed and written to ``out_dir`` as gate.json, .md and .png; ``runs`` trials for every seed.

    ``quick``: a twentieth of the length, to see that it runs; its numbers are not to be quoted.
    """
    shrink = 20 if quick else 1
    level = np.full(runs, ALPHA)
    first_level = np.full(runs, Elond(alpha=ALPHA).level)
    console = Console(width=WIDTH)
    if quick:
        console.print("quick: a twentieth of the length; see that it runs, do not quote it")
    result: dict[str, Any] = {
        "command": f"dayjob lab gate --seeds {len(seeds)} --runs {runs}{' --quick' if quick else ''}",
        "machine": machine(), "seeds": list(seeds), "alpha": ALPHA, "runs": runs, "quick": quick,
    }  # fmt: skip
    result["false_promotions"] = [
        _false_row(w, _over_seeds(w, seeds, steps=10_000 // shrink, level_R=level)) for w in NULLS
    ]
    _show(console, result, "false_promotions")
    result["attacks"] = [_false_row(w, _over_seeds(w, seeds, steps=10_000 // shrink, level_R=level)) for w in ATTACKS]
    _show(console, result, "attacks")
    result["in_a_row"] = [
        in_a_row(mix, seeds, runs=runs, steps=1000 // shrink) for mix in ("none better", "every fifth 8 points better")
    ]
    _show(console, result, "in_a_row")
    powers = [(w, _over_seeds(w, seeds, steps=20_000 // shrink, level_R=first_level)) for w in POWERS]
    result["power"] = [_power_row(world, outcome, shrink=shrink) for world, outcome in powers]
    _show(console, result, "power")
    result["rollback"] = rollback_rows(ROLLBACKS, seeds=seeds, runs=max(4, runs // (5 * shrink)), alpha=ALPHA)
    _show(console, result, "rollback")
    write(
        out_dir, "gate", result=result, page=page_of(result), code=CODE,
        plot=lambda path: _plot(powers, path, steps=20_000 // shrink),
    )  # fmt: skip
    return result


def page_of(result: dict[str, Any]) -> list[str]:
    """The tables of a result as a page, each with what it shows."""
    runs = f"{result['runs']:,} runs a row"
    told = f"Simulated trials through the very code that judges, a look after every decision; {runs}."
    parts = (part for key, (title, says) in TABLES.items() for part in (f"## {title}", says, markdown(result[key])))
    return [told, *parts]


def _show(console: Console, result: dict[str, Any], key: str) -> None:
    print_rows(console, result[key], title=TABLES[key][0])


def in_a_row(mix: str, seeds: Sequence[int], *, runs: int, steps: int) -> dict[str, Any]:
    """Fifty challengers, one after the other, ``steps`` judged decisions each at most: false discoveries of e-LOND."""
    false_share, any_false, better_found = [], [], []
    for seed in seeds:
        rng = np.random.default_rng([seed, 50])
        false_R, true_R = np.zeros(runs), np.zeros(runs)
        for trial in range(1, CHALLENGERS + 1):
            better = mix != "none better" and trial % 5 == 0
            level_R: Floats = ALPHA * gamma(trial) * (false_R + true_R + 1.0)
            world = replace(PEOPLE_BLIND, gap=0.08 if better else 0.0)
            outcome = judge(world, steps=steps, level_R=level_R, reject_level=ALPHA, rng=rng)
            won_R = outcome.promoted_R > 0
            true_R, false_R = true_R + (won_R & better), false_R + (won_R & (not better))
        false_share.append(false_R / np.maximum(1.0, false_R + true_R))
        any_false.append(false_R > 0)
        better_found.append(true_R / (CHALLENGERS // 5))
    rate = np.concatenate(false_share)
    row = {"challengers": mix, "false discovery rate": float(rate.mean()), "upper 97.5 %": _upper(rate)}
    row["runs with a false one"] = float(np.concatenate(any_false).mean())
    if mix != "none better":
        row["better ones promoted"] = float(np.concatenate(better_found).mean())
    return row


def _over_seeds(world: World, seeds: Sequence[int], *, steps: int, level_R: Floats) -> Outcome:
    parts = [
        judge(
            world, steps=steps, level_R=level_R, reject_level=ALPHA, rng=np.random.default_rng([seed, len(world.name)])
        )
        for seed in seeds
    ]
    return Outcome(
        promoted_R=np.concatenate([part.promoted_R for part in parts]),
        rejected_R=np.concatenate([part.rejected_R for part in parts]),
        effect_R=np.concatenate([part.effect_R for part in parts]),
        variance_R=np.concatenate([part.variance_R for part in parts]),
    )


def _false_row(world: World, outcome: Outcome) -> dict[str, Any]:
    promoted = (outcome.promoted_R > 0).astype(np.float64)
    return {
        "world": world.name,
        "promoted": float(promoted.mean()),
        "upper 97.5 %": _upper(promoted),
        "rejected": float((outcome.rejected_R > 0).mean()),
        "effect": float(outcome.effect_R.mean()),
        "variance": float(outcome.variance_R.mean()),
    }


def _power_row(world: World, outcome: Outcome, *, shrink: int) -> dict[str, Any]:
    row: dict[str, Any] = {"world": world.name, "effect": float(outcome.effect_R.mean())}
    row["variance"] = float(outcome.variance_R.mean())
    row |= {f"{judged:,}": outcome.promoted_by(judged // shrink) for judged in CHECKPOINTS}
    won = outcome.promoted_R[outcome.promoted_R > 0]
    # The median over all runs; runs that were never promoted count as never.
    half = won.size * 2 > outcome.promoted_R.size
    row["median decisions"] = _median_decisions(outcome.promoted_R) if half else "over the end"
    row["rejected"] = float((outcome.rejected_R > 0).mean())
    return row


def _median_decisions(promoted_R: npt.NDArray[np.int64]) -> int:
    times = np.where(promoted_R > 0, promoted_R, np.iinfo(np.int64).max)
    return int(np.sort(times)[times.size // 2] / DIFFERING)


def _upper(share_R: Floats) -> float:
    """97.5 % upper limit of a mean of numbers in [0, 1] (Agresti-Coull for shares: two hits and two misses added)."""
    mean = (float(share_R.sum()) + 2.0) / (share_R.size + 4.0)
    return mean + 1.96 * math.sqrt(mean * (1.0 - mean) / (share_R.size + 4.0))


def print_rows(console: Console, rows: list[dict[str, Any]], *, title: str) -> None:
    """One column a key, in the order in which the keys appear."""
    table = Table(title=title)
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        table.add_column(name, justify="left" if isinstance(rows[0].get(name), str) else "right")
    for row in rows:
        table.add_row(*(_cell(row.get(name, "")) for name in names))
    console.print(table)


def _cell(value: float | int | str) -> str:
    if isinstance(value, float):
        return f"{value:.4f}".rstrip("0").rstrip(".") if value else "0"
    return f"{value:,}" if isinstance(value, int) else value


def _plot(powers: list[tuple[World, Outcome]], path: Path, *, steps: int) -> None:
    """Share of runs promoted against judged decisions, one line a world."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    grid = np.unique(np.geomspace(10, steps, 80).astype(int))
    for world, outcome in powers:
        color = {0.01: "C0", 0.02: "C1", 0.05: "C2", 0.08: "C3"}[world.gap]
        shares = [outcome.promoted_by(int(judged)) for judged in grid]
        line = ":" if not world.named else "-" if world.people <= 300 else "--"
        axes.plot(grid, shares, line, color=color, label=world.name)
    axes.set(xscale="log", xlabel="judged decisions", ylabel="share of runs promoted", ylim=(0, 1))
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
