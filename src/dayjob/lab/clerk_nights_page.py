"""The table, page and plot of ``dayjob lab nights``, from its pieces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

from clerk.office import HOWS

from dayjob.lab.clerk_exam import FOLLOWING, OTHER_CASES, REPLAYED, SILENT, SKILLS, UNKNOWN
from dayjob.lab.clerk_methods import METHODS
from dayjob.lab.figures import interval, markdown, percent

Piece = dict[str, Any]
Row = dict[str, Any]
KEPT = (*SKILLS, REPLAYED, SILENT, UNKNOWN, OTHER_CASES, FOLLOWING)
NAMES = {"memory": "memory only: notes, no nights"} | {slug: one.name for slug, one in METHODS.items()}
TENANTS = "office"


def page(result: dict[str, Any]) -> list[str]:
    """The page below its head."""
    size, nights = result["size"], result["days"]
    new = sum(size["new"])
    out = [
        f"{nights} days and nights. An office begins with {sum(size[how] for how in HOWS)} conventions; each day brings"
        f" {new} more and, from the third on, the reversal of an older one; two people have {size['personal']} habits"
        f" each that contradict each other's; before day {result['quiet_before'] + 1} a month"
        " passes in which nobody speaks of any of it. Each night begins at the base model. What it makes serves the"
        " next day without a trial. Exact answers, greedy, without notes (memory: with them), to questions that nobody"
        " asked by day. Means and 95 % intervals over seeds (Student's t), in per cent.",
        "## Over all nights",
        markdown([_summary(method, pieces, result) for method, pieces in _by_method(result).items()]),
        "`taught and current`: of everything that holds for the office that evening; `worst night`: the lowest of a"
        " seed's nights. `reversed, still said`: questions of conventions that were reversed, answered in the old way."
        " `kept`: the mean of all suites that are to stay; `lost`: the first night's less the last's. `own`: two people"
        " asked of their own habits, answered by their layers; `the other's`: answered there as the other has it;"
        f" `said to all`: answered so by the office's layer. Personal layers are made every {result['personal_every']}"
        " nights.",
        "## Night by night",
        markdown(_nightly(result)),
        "Taught and current / kept.",
    ]
    if len(result["codes"]) > 1:
        out.append(f"The pieces were made by {len(result['codes'])} states of the code: run them again.")
    return out


def _summary(method: str, pieces: list[Piece], result: dict[str, Any]) -> dict[str, str]:
    columns: dict[str, Callable[[list[Row]], float | None]] = {
        "taught and current": lambda rows: fmean(one["current"] for one in rows),
        "worst night": lambda rows: min(one["current"] for one in rows),
        "reversed, still said": lambda rows: _mean([one["gone"] for one in rows]),
        "kept": lambda rows: fmean(one["kept"] for one in rows),
        "lost": lambda rows: rows[0]["kept"] - rows[-1]["kept"],
        "own": lambda rows: _mean([value for one in rows for value in _people(one, "own")]),
        "the other's": lambda rows: _mean([value for one in rows for value in _people(one, "other's")]),
        "said to all": lambda rows: _mean([one["apart"][TENANTS]["any"] for one in rows]),
        "right by day, with notes": lambda rows: fmean(one["served"] for one in rows),
    }
    of = len(result["seeds"])
    row = {"nights": NAMES[method]}
    for name, value in columns.items():
        values = [found for one in pieces if (found := value(one["nights"])) is not None]
        row[name] = percent(interval(values), of=of, signed=name == "lost") if values else ""
    last = [one["nights"][-1] for one in pieces]
    return row | {
        "corrections": f"{fmean(one['corrections'] for one in last):.0f}",
        "notes alive of standing": f"{fmean(one['notes']['alive'] for one in last):.0f} of"
        f" {fmean(one['notes']['standing'] for one in last):.0f}",
        "tokens of notes": f"{fmean(one['tokens'] for one in last):.0f}",
    }


def _people(row: Row, what: str) -> list[float]:
    return [found[what] for name, found in row["apart"].items() if name != TENANTS]


def _mean(values: list[float | None]) -> float | None:
    found = [one for one in values if one is not None]
    return fmean(found) if found else None


def _nightly(result: dict[str, Any]) -> list[dict[str, str]]:
    rows = []
    for night in range(result["days"]):
        row = {"night": str(night + 1)}
        for method, pieces in _by_method(result).items():
            here = [one["nights"][night] for one in pieces]
            current, kept = (fmean(one[name] for one in here) for name in ("current", "kept"))
            row[NAMES[method]] = f"{100 * current:.0f} / {100 * kept:.0f}"
        rows.append(row)
    return rows


def _by_method(result: dict[str, Any]) -> dict[str, list[Piece]]:
    found: dict[str, list[Piece]] = {}
    for one in result["pieces"]:
        found.setdefault(one["method"], []).append(one)
    return found


def plot(result: dict[str, Any], path: Path) -> None:
    """Night by night: what holds, what was reversed, what was kept."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4.5), sharex=True, sharey=True)
    panels = (("current", "taught and current"), ("gone", "reversed, still said"), ("kept", "kept"))
    nights = list(range(1, result["days"] + 1))
    for axis, (name, title) in zip(axes, panels, strict=True):
        for method, pieces in _by_method(result).items():
            curve = [_mean([one["nights"][night - 1][name] for one in pieces]) for night in nights]
            known = [(night, value) for night, value in zip(nights, curve, strict=True) if value is not None]
            axis.plot([night for night, _ in known], [value for _, value in known], marker="o", markersize=3,
                      label=NAMES[method])  # fmt: skip
        axis.set(title=title, xlabel="night", ylim=(-0.03, 1.03))
    axes[0].set_ylabel("share of questions")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncol=3, fontsize=8)
    figure.tight_layout(rect=(0, 0.12, 1, 1))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
