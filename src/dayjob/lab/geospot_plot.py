"""The Geospot table as curves: change in km over interactions, a panel for each kind of users."""

from pathlib import Path
from typing import Any

import numpy as np
from geospot.users import Population

COLOURS = {
    "ours, as served over HTTP": "tab:red", "ours, fits without the gate": "tab:orange", "naive clicks": "tab:olive",
    "published REINFORCE": "tab:blue", "published DPO": "tab:cyan", "published network, true distances": "tab:green",
    "the same on the caller's score, true distances": "tab:purple",
}  # fmt: skip
LEVELS = ("best of ten", "random pick", "Bayes, least expected km over the ten", "Bayes, most probable of the ten")
TALLEST = 0.25  # the axis ends here: early published learners are far off, and would hide the rest
LOWEST = -0.2


def plot(result: dict[str, Any], path: Path) -> None:
    """Means with their 95 % bands; a learner with one seed has no band."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    kinds = [p.value for p in Population if any(row["users"] == p.value for row in result["rows"])]
    if not kinds:
        return
    figure, axes = pyplot.subplots(1, len(kinds), figsize=(4.6 * len(kinds), 5), sharey=True, squeeze=False)
    for axis, users in zip(axes[0], kinds, strict=True):
        for row in result["rows"]:
            if row["users"] not in (users, "nobody"):
                continue
            marks = np.array(result["marks"], float)
            found = [row["greedy"][str(mark)] for mark in result["marks"]]
            mean = 100 * np.array([one["mean"] for one in found])
            half = 100 * np.array([one["half"] for one in found])
            line = ":" if row["users"] == "nobody" else "-"
            known = COLOURS.get(row["learner"])
            (drawn,) = axis.plot(marks, mean, line, marker="o", markersize=3, color=known, label=row["learner"])
            axis.fill_between(marks, mean - half, mean + half, color=drawn.get_color(), alpha=0.15, linewidth=0)
        axis.axhline(0, color="black", linewidth=0.8)
        for name in LEVELS:
            level = result["fixed"].get(name)
            if level is not None and LOWEST <= level["mean"] <= TALLEST:
                axis.axhline(100 * level["mean"], color="grey", linewidth=0.8, linestyle="--")
                side = "top" if "least" in name else "bottom"  # two Bayes choices lie close together
                axis.annotate(name, (result["marks"][0], 100 * level["mean"]), fontsize=6, color="grey", va=side)
        axis.set(xscale="log", title=users, xlabel="interactions", ylim=(100 * LOWEST, 100 * TALLEST))
        axis.set_xticks(result["marks"], [f"{mark:,}" for mark in result["marks"]])
        axis.minorticks_off()
    axes[0][0].set_ylabel("change in km against the first guess, %")
    handles, labels = axes[0][-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncol=4, fontsize=8)
    figure.suptitle("Greedy choice by what was learned: simulated photos and users, 95 % intervals over seeds")
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
