"""``dayjob lab stale``: what corrections are worth when attempts were made by weights of many updates ago.

Every attempt is written by the weights of exactly ``lag`` updates before, so all of a step is equally old. Nothing is
kept back: the rate of learning is the one at which no correction at all suffers. Thresholds of the default
(`learn.practice.staleness`) are to be read off the last table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from dayjob.lab import figures, practice_states
from dayjob.lab.clerk_gym import EASY
from dayjob.lab.figures import interval, markdown, percent
from dayjob.lab.practice_ground import Tasks
from dayjob.lab.practice_page import band
from dayjob.lab.practice_pieces import CODE, Bench, Piece, seeds_of
from dayjob.learn.practice.recipe import AUTO, PLAIN, PracticeRecipe
from dayjob.learn.practice.staleness import FRESH_KL, STALE_KL

LAGS = (0, 4, 16, 64)
METHODS = (PLAIN, "ppo_clip", "tis", "cispo", "icepop", "dppo_tv", AUTO)
NAMES = {PLAIN: "plain policy gradient", "ppo_clip": "PPO clip", "tis": "TIS", "cispo": "CISPO", "icepop": "IcePop",
         "dppo_tv": "DPPO-TV", AUTO: "chosen by measured staleness (the default)"}  # fmt: skip
TASKS = Tasks(stop=32, judge=200)
RECIPE = PracticeRecipe(
    groups=4, attempts=8, look_every=16, context_tokens=256, anchor=0.0, self_written=0, warm_steps=0
)  # fmt: skip


def run(
    seeds: range, model: Path | None, out_dir: Path, *, steps: int, rate: float, family: str, quick: bool
) -> None:  # fmt: skip
    """Every piece that is missing, then the page of all there are."""
    recipe, tasks = replace(RECIPE, steps=steps, learning_rate=rate), TASKS
    lags: tuple[int, ...] = LAGS
    methods: tuple[str, ...] = METHODS
    if quick:
        recipe = replace(recipe, steps=6, groups=2, attempts=4, look_every=3, context_tokens=128)
        tasks, lags, methods = Tasks(stop=4, judge=8), (0, 4), (PLAIN, "dppo_tv", AUTO)
    bench, seeds = Bench.of(model, out_dir, name="stale"), seeds_of(seeds, quick=quick)
    spec = {"env": "gym", "dataset": family, "config": dict(EASY[family])}
    rows: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for lag in lags:
        # Where nothing is stale every ratio is 1: one course stands for all.
        for method in methods if lag else (PLAIN,):
            made = replace(recipe, lag=lag, correction=method)
            piece = Piece(name=f"{method}-{lag}", spec=spec, recipe=made, tasks=tasks, seed=0)
            rows.setdefault(method, {})[lag] = [bench.run(replace(piece, seed=seed)) for seed in seeds]
    result = {
        "command": f"dayjob lab stale --seeds {len(seeds)} --steps {recipe.steps} --rate {rate:g} --family {family}"
        + " --quick" * quick,
        "machine": figures.machine(), "seeds": list(seeds), "quick": quick, "lags": list(lags), "family": family,
        "steps": recipe.steps, "rate": rate, "rows": rows, "thresholds": thresholds(rows), "codes": sorted(bench.codes),
    }  # fmt: skip
    figures.write(out_dir, "stale", result=result, page=page(result), code=CODE, plot=lambda path: plot(result, path))
    print("\n\n".join(page(result)))


def thresholds(rows: dict[str, dict[int, list[dict[str, Any]]]]) -> dict[str, Any]:
    """What the rule of `staleness.choose` is read off: by lag the KL that was measured where nothing corrects, what
    that loses against fresh attempts, and what the best correction loses, in shares."""
    fresh = fmean(one["last"] for one in rows[PLAIN][0])
    found = {}
    for lag, pieces in rows[PLAIN].items():
        others = {name: fmean(one["last"] for one in by_lag[lag]) for name, by_lag in rows.items()
                  if name not in (PLAIN, AUTO) and lag in by_lag}  # fmt: skip
        best = max(others, key=lambda name: others[name], default=PLAIN)
        found[str(lag)] = {
            "kl": _kl(pieces), "plain loses": fresh - fmean(one["last"] for one in pieces), "best": best,
            "best loses": fresh - others.get(best, fresh),
        }  # fmt: skip
    return found


def page(result: dict[str, Any]) -> list[str]:
    """The page below its head."""
    many, lags = len(result["seeds"]), result["lags"]
    fresh = result["rows"][PLAIN][0]

    def told(values: Sequence[float], *, signed: bool = False) -> str:
        return percent(interval(values), of=many, signed=signed)

    rewards, kls = [], []
    for method, by_lag in result["rows"].items():
        row: dict[str, Any] = {"correction": NAMES[method], "0": told([one["last"] for one in fresh])}
        far: dict[str, Any] = {"correction": NAMES[method]}
        for lag in lags[1:]:
            pieces = by_lag[lag]
            row[f"{lag}"] = told([one["last"] for one in pieces])
            far[f"{lag}: KL"] = f"{_kl(pieces):.3g}"
            far[f"{lag}: effective share"] = f"{fmean(fmean(one['curve']['sample_size']) for one in pieces):.2f}"
            far[f"{lag}: dropped"] = f"{fmean(_mean(one, 'practice/dropped') for one in pieces):.2f}"
        row["loss at the most"] = told(
            [a["last"] - b["last"] for a, b in zip(by_lag[lags[-1]], fresh, strict=True)], signed=True
        )  # fmt: skip
        rewards.append(row)
        kls.append(far)
    rule = [{"lag": lag} | {name: round(value, 4) if isinstance(value, float) else value for name, value in one.items()}
            for lag, one in result["thresholds"].items()]  # fmt: skip
    gain = told([one["last"] - one["before"] for one in fresh], signed=True)
    return [
        f"`{result['family']}` at its easy settings, {result['steps']} steps, learning rate {result['rate']:g}, no"
        " anchor. Held-out pass rate after the last step, in per cent, by the updates that every attempt is behind;"
        f" means and 95 % intervals over seeds. What fresh attempts gain over the clerk as it ships: {gain}.",
        "## Held-out pass rate by staleness",
        markdown(rewards),
        "## How far apart behaviour and learner are",
        "KL(behaviour ‖ learner) in nats a token, the effective share of the tokens ((sum rho)² / n sum rho²) and the"
        " share that a correction drops; means over all steps.",
        markdown(kls),
        "## What the default goes by",
        f"Plain up to {FRESH_KL:g} nats a token, CISPO up to {STALE_KL:g}, DPPO-TV beyond.",
        markdown(rule),
        *practice_states.told(result["codes"]),
    ]


def plot(result: dict[str, Any], path: Path) -> None:
    """Pass rate by lag, a line a correction with its 95 % interval over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7, 4.5))
    fresh = result["rows"][PLAIN][0]
    for method, by_lag in result["rows"].items():
        found = [interval([one["last"] for one in pieces])
                 for pieces in (fresh, *(by_lag[lag] for lag in result["lags"][1:]))]  # fmt: skip
        rates = [one["mean"] for one in found]
        (line,) = axis.plot(
            range(len(rates)), rates, marker="o", label=NAMES[method], linewidth=2.5 if method == AUTO else 1.2
        )
        axis.fill_between(range(len(rates)), *band(found), color=line.get_color(), alpha=0.12, linewidth=0)
    axis.set_xticks(range(len(result["lags"])), [str(lag) for lag in result["lags"]])
    axis.set(xlabel="updates between an attempt's weights and the learner's", ylabel="held-out tasks solved")
    axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _kl(pieces: Sequence[dict[str, Any]]) -> float:
    return fmean(fmean(one["curve"]["kl_behaviour"]) for one in pieces)


def _mean(piece: dict[str, Any], name: str) -> float:
    values = [one for one in piece["curve"][name] if one is not None]
    return fmean(values) if values else 0.0
