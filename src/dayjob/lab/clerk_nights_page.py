"""The table, page and plot of ``dayjob lab nights``, from its pieces."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from clerk.office import HOWS

from dayjob.lab.clerk_exam import FOLLOWING, OTHER_CASES, REPLAYED, SILENT, SKILLS, UNKNOWN
from dayjob.lab.clerk_methods import METHODS
from dayjob.lab.clerk_night_page import EXACT, LOST_MARK, TAUGHT_MARK
from dayjob.lab.figures import interval, markdown, percent

Piece = dict[str, Any]
Row = dict[str, Any]
KEPT = (*SKILLS, REPLAYED, SILENT, UNKNOWN, OTHER_CASES, FOLLOWING)
NAMES = {"memory": "memory only: notes, no nights"} | {slug: one.name for slug, one in METHODS.items()}
TENANTS = "office"
OLD_MARK = 0.05  # of what was reversed, or is another's: the counterpart of TAUGHT_MARK


def page(result: dict[str, Any]) -> list[str]:
    """The page below its head."""
    size, nights = result["size"], result["days"]
    new = sum(size["new"])
    out = [
        f"{nights} days and nights. An office begins with {sum(size[how] for how in HOWS)} conventions; each day brings"
        f" {new} more and, from the third on, the reversal of an older one; two people have {size['personal']} habits"
        f" each that contradict each other's. {_quiet_told(result)}Each night begins at the base model. What it makes"
        " serves the next day without a trial. Exact answers, greedy, without notes (memory: with them), to questions"
        " that nobody asked by day. Means and 95 % intervals over seeds (Student's t), in per cent.",
        "## Over all nights",
        markdown([_summary(method, pieces, result) for method, pieces in _by_method(result).items()]),
        "`taught and current`: of everything that holds for the office that evening; `worst night`: the lowest of a"
        " seed's nights. `reversed, still said`: questions of conventions that were reversed, answered in the old way."
        " `kept`: all questions of what is to stay, each of the same weight; `lost`: the first night's less the last's."
        " `own`: two people"
        " asked of their own habits, answered by their layers; `the other's`: answered there as the other has it;"
        f" `said to all`: answered so by the office's layer. Personal layers are made every {result['personal_every']}"
        " nights.",
        _asked(result),
        *_marks(result),
        "## Night by night",
        markdown(_nightly(result, _two_shares)),
        "Taught and current / kept.",
        "## Corrections used, night by night",
        markdown(_nightly(result, _corrections)),
        "Of the corrections and demonstrations said so far, those that the office's night learned from / all. Of what"
        " was said again or reversed the newest alone is learned from; memory alone uses none.",
    ]
    if len(result["codes"]) > 1:
        out.append(f"The pieces were made by {len(result['codes'])} states of the code: run them again.")
    return out


def _quiet_told(result: dict[str, Any]) -> str:
    quiet = [row for one in result["pieces"] for row in one["nights"] if row["quiet"]]
    if not quiet:
        return ""
    return (
        f"After day {quiet[0]['day']} a quiet time with a night of its own: as many everyday questions"
        f" as in {result['quiet_days']} days ({fmean(row['questions'] for row in quiet):.0f} a seed) stand for a month"
        " in which nobody asks or says anything of any convention. Its night rehearses these questions alone, and"
        " learns from what was said before. "
    )


def _asked(result: dict[str, Any]) -> str:
    """How many questions each suite has in a night, over all nights and seeds."""
    counts: dict[str, list[int]] = {}
    for one in result["pieces"]:
        for row in one["nights"]:
            for name, count in row["asked"].items():
                counts.setdefault(name, []).append(count)
    told = (f"{name} {_range(found)}" for name, found in counts.items())
    return f"Questions a night: {', '.join(told)}."


def _range(found: list[int]) -> str:
    return str(min(found)) if min(found) == max(found) else f"{min(found)} to {max(found)}"


def _summary(method: str, pieces: list[Piece], result: dict[str, Any]) -> dict[str, str]:
    columns: dict[str, Callable[[list[Row]], float | None]] = {
        "taught and current": lambda rows: fmean(one["current"] for one in rows),
        "worst night": lambda rows: min(one["current"] for one in rows),
        "reversed, still said": lambda rows: _mean([one["gone"] for one in rows]),
        "kept": lambda rows: fmean(one["kept"] for one in rows),
        "lost": _lost,
        "own": lambda rows: _mean([value for one in rows for value in _people(one, "own")]),
        "the other's": lambda rows: _mean([value for one in rows for value in _people(one, "other's")]),
        "said to all": lambda rows: _mean([one["apart"][TENANTS]["any"] for one in rows]),
        "right by day, with notes": lambda rows: fmean(one["served"] for one in rows if not one["quiet"]),
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


def _lost(rows: list[Row]) -> float:
    return float(rows[0]["kept"] - rows[-1]["kept"])


def _lost_in_silence(rows: list[Row]) -> float | None:
    """Of what holds, that was right in the night before the quiet time and is not after it."""
    found = [before["current"] - row["current"] for before, row in pairwise(rows) if row["quiet"]]
    return _mean(found)


def _marks(result: dict[str, Any]) -> list[str]:
    """How every method stands to the marks: one number a seed, its interval, and whether the mean reaches the mark."""
    at_least: dict[str, tuple[Callable[[list[Row]], float | None], float]] = {
        "taught and current, worst night": (lambda rows: min(one["current"] for one in rows), TAUGHT_MARK),
        "own": (lambda rows: _mean([value for one in rows for value in _people(one, "own")]), TAUGHT_MARK),
    }
    at_most: dict[str, tuple[Callable[[list[Row]], float | None], float]] = {
        "reversed today, still said": (lambda rows: _mean([one["gone_today"] for one in rows]), OLD_MARK),
        "the other's": (lambda rows: _mean([value for one in rows for value in _people(one, "other's")]), OLD_MARK),
        "said to all": (lambda rows: _mean([one["apart"][TENANTS]["any"] for one in rows]), OLD_MARK),
        "kept, lost from the first night to the last": (_lost, LOST_MARK),
        "taught, lost over the quiet time": (_lost_in_silence, LOST_MARK),
    }
    rows = []
    for method, pieces in _by_method(result).items():
        row = {"nights": NAMES[method]}
        for marks, sign, words in ((at_least, 1, "at least"), (at_most, -1, "at most")):
            for name, (value, mark) in marks.items():
                values = [found for one in pieces if (found := value(one["nights"])) is not None]
                over = sign * (fmean(values) - mark) if values else 0.0
                told = "reached" if over >= -EXACT else "missed"
                shown = percent(interval(values), of=len(result["seeds"]), signed=False) if values else ""
                row[f"{name}, {words} {100 * mark:g}"] = f"{shown}, {told}" if values else ""
        rows.append(row)
    return [
        "## Marks",
        markdown(rows),
        "In per cent; reached where the mean over seeds is. `worst night` asks it of every night of a seed."
        " `reversed today`: of what was reversed on a day, asked after that day's night. How much of the old, or of the"
        f" other's, may still be said ({100 * OLD_MARK:g}), and what the quiet time may cost ({100 * LOST_MARK:g}), are"
        " marks of ours. Of memory alone `kept` and `taught` are with its notes.",
    ]


def _people(row: Row, what: str) -> list[float]:
    return [found[what] for name, found in row["apart"].items() if name != TENANTS]


def _mean(values: list[float | None]) -> float | None:
    found = [one for one in values if one is not None]
    return fmean(found) if found else None


def _nightly(result: dict[str, Any], tell: Callable[[list[Row]], str]) -> list[dict[str, str]]:
    """A row a night; ``tell`` says a cell from a method's rows of that night."""
    rows = []
    for at, first in enumerate(result["pieces"][0]["nights"]):
        row = {"night": f"quiet, after {first['day']}" if first["quiet"] else str(first["day"])}
        for method, pieces in _by_method(result).items():
            row[NAMES[method]] = tell([one["nights"][at] for one in pieces])
        rows.append(row)
    return rows


def _two_shares(here: list[Row]) -> str:
    current, kept = (fmean(one[name] for one in here) for name in ("current", "kept"))
    return f"{100 * current:.0f} / {100 * kept:.0f}"


def _corrections(here: list[Row]) -> str:
    used = [one["nights"][TENANTS]["corrections_used"] for one in here if "nights" in one]
    return f"{fmean(used) if used else 0:.0f} / {fmean(one['corrections'] for one in here):.0f}"


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
    rows = result["pieces"][0]["nights"]
    nights = list(range(1, len(rows) + 1))
    silent = [night for night, row in zip(nights, rows, strict=True) if row["quiet"]]
    for axis, (name, title) in zip(axes, panels, strict=True):
        for method, pieces in _by_method(result).items():
            curve = [_mean([one["nights"][night - 1][name] for one in pieces]) for night in nights]
            known = [(night, value) for night, value in zip(nights, curve, strict=True) if value is not None]
            axis.plot([night for night, _ in known], [value for _, value in known], marker="o", markersize=3,
                      label=NAMES[method])  # fmt: skip
        for night in silent:
            axis.axvspan(night - 0.5, night + 0.5, color="0.9")
        axis.set(title=title, xlabel="night (grey: after the quiet time)", ylim=(-0.03, 1.03))
    axes[0].set_ylabel("share of questions")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncol=3, fontsize=8)
    figure.tight_layout(rect=(0, 0.12, 1, 1))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
