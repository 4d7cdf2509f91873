"""The page and the plot of ``dayjob lab practice``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from dayjob.lab import practice_states
from dayjob.lab.figures import interval, markdown, percent

Row = dict[str, Any]
_HEADS = {
    "lift": "## What practice lifts",
    "zero": "## Out of zero",
    "nines": "## From nearly all towards all",
    "warm": "## A warm start",
}
_WORDS = {
    "lift": "Of each family the first task that begins between {low:.0%} and {high:.0%} is practised; where all begin"
    " stands below. Of a family that begins nowhere the easiest follows a warm start, and `before` is after that.",
    "zero": "A task of which the clerk solves nothing at first, twice as many steps: attempts at the task alone never"
    " earn anything, so nothing is learned; the curriculum finds easier neighbours. `privileged self-teacher`: where"
    " all attempts at a task failed, the model learns from itself told the solution, if that makes the first thing to"
    " say likelier; `told, nats` is by how much, a token. `teacher's share`: of all tokens that were read to learn,"
    " those that the teacher was asked about.",
    "nines": "Failures in a thousand are what is left to win. Of tasks of its own, practised and looked at with a"
    " temperature of {temperature:g}, this part takes the one that begins highest, from {nearly:.0%} on; {judge} tasks"
    " a seed judge, {tries} sampled attempts at each. `failures mined`: seeds that failed come again, and mutated,"
    " mixed with replay. `solved groups too`: attempts of groups that are all right get a small advantage.",
    "warm": "Supervised steps on the turns of reference solutions come first, and `before` is after them. An episode is"
    " several turns, so here {judge} tasks a seed judge, with {tries} sampled attempt(s) at each.",
}
# Of a task that nobody could have begun to practise.
_CURATED = (
    "**`{task}` begins at {start:.1%}: attempts alone would have earned next to nothing. It was practised only after a"
    " warm start of {steps} supervised steps on {solutions} curated solutions.**"
)


def page(result: Row) -> list[str]:
    """The page below its head."""
    out = [
        "Pass rates of attempts at held-out tasks, sampled as they are practised and as a policy serves by default"
        f" (temperature 1), {result['tries']} a task, in per cent: means and 95 % intervals over seeds (Student's t);"
        f" `greedy`: of the most probable answers. {result['judge']} tasks a seed judge; others choose which weights of"
        " a course are kept; none"
        f" of them is practised. {result['steps']} steps of {result['groups']} tasks with {result['attempts']} attempts"
        " each, from the shipped clerk, an adapter of rank 16 held to the base by the anchor."
    ]
    for part, head in _HEADS.items():
        if part not in result:
            continue
        low, high = result["range"]
        out += [head, _WORDS[part].format(**{"low": low, "high": high} | result[part])]
        rows = [_row(name, pieces, result, part=part) for name, pieces in result[part]["rows"].items()]
        out.append(markdown(rows) if rows else "No task begins where this part needs it.")
        out += [_CURATED.format(task=task, **one) for task, one in result[part].get("curated", {}).items()]
        starts = [{"task": name, "begins at, %": round(100 * rate, 1)} for name, rate in result[part]["starts"].items()]
        if starts:
            out += ["All that was tried:", markdown(starts)]
    return out + practice_states.told(result["codes"])


def _row(name: str, pieces: Sequence[Row], result: Row, *, part: str) -> Row:
    many = len(result["seeds"])

    def told(values: Sequence[float], *, signed: bool = False) -> str:
        return percent(interval(values), of=many, signed=signed)

    row: Row = {
        "task": name, "before": told([one["before"] for one in pieces]),
        "after": told([one["after"] for one in pieces]),
        "gain": told([one["after"] - one["before"] for one in pieces], signed=True),
        "after the last step": told([one["last"] for one in pieces]),
        "greedy, before": told([one["greedy"][0] for one in pieces]),
        "greedy, after": told([one["greedy"][1] for one in pieces]),
    }  # fmt: skip
    if part == "nines":
        row["failures in 1,000, before"] = round(1000 * fmean(1 - one["before"] for one in pieces), 1)
        row["after "] = round(1000 * fmean(1 - one["after"] for one in pieces), 1)
    if part == "zero":
        row |= _teacher([one["curve"] for one in pieces])
    kl = [one["curve"]["anchor/kl"][-1] or 0.0 for one in pieces]
    row["KL to the base"] = f"{fmean(kl):.3f}"
    row["bits an episode"] = f"{fmean(fmean(one['curve']['bits']) for one in pieces):.2f}"
    row["CPU s"] = round(fmean(one["cpu_s"] for one in pieces))
    return row


def _teacher(curves: Sequence[Row]) -> Row:
    """What telling the solution is worth, and what asking costs."""
    gains, asked, learned = [], 0.0, 0.0
    for curve in curves:
        tokens = [one or 0.0 for one in curve.get("teacher_tokens", [])]
        gains += [gain for gain, many in zip(curve.get("teacher_gain", []), tokens, strict=True) if many]
        asked += sum(tokens)
        learned += sum(one or 0.0 for one in curve.get("tokens", []))
    return {
        "told, nats": f"{fmean(gains):+.2f}" if gains else "-",
        "teacher's share": f"{asked / (asked + learned):.0%}" if asked else "-",
    }


def plot(result: Row, path: Path) -> None:
    """Held-out pass rate by step: a line a task with its 95 % interval over seeds, and thin ones a seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    parts = [part for part in _HEADS if result.get(part, {}).get("rows")] or ["lift"]
    figure, axes = pyplot.subplots(1, len(parts), figsize=(5 * len(parts), 4.2), squeeze=False, sharey=True)
    for axis, part in zip(axes[0], parts, strict=True):
        for name, pieces in result.get(part, {}).get("rows", {}).items():
            steps = [one["step"] for one in pieces[0]["looks"]]
            rates = np.array([[look["judge"] for look in one["looks"]] for one in pieces])
            (line,) = axis.plot(steps, rates.mean(axis=0), marker="o", markersize=3, label=name)
            axis.plot(steps, rates.T, linewidth=0.6, alpha=0.5, color=line.get_color())
            found = [interval(column.tolist()) for column in rates.T]
            axis.fill_between(steps, *band(found), color=line.get_color(), alpha=0.15, linewidth=0)
        axis.set(xlabel="step", title=_HEADS[part].removeprefix("## "), ylim=(-0.02, 1.02))
        axis.legend(fontsize=7)
    axes[0][0].set(ylabel="held-out tasks solved")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def band(found: Sequence[Mapping[str, float]]) -> tuple[list[float], list[float]]:
    """Lower and upper ends of intervals, for a plot; of one seed, which has none, its value twice.

    >>> band([{"mean": 0.5, "half": 0.25, "seeds": 3}, interval([1.0])])
    ([0.25, 1.0], [0.75, 1.0])
    """
    half = [0.0 if math.isnan(one["half"]) else one["half"] for one in found]
    low = [one["mean"] - each for one, each in zip(found, half, strict=True)]
    return low, [one["mean"] + each for one, each in zip(found, half, strict=True)]
