"""The table, page and plot of ``dayjob lab night``, from its pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from clerk.office import HOWS

from dayjob.lab.clerk_exam import (
    AS_ASKED,
    BOTH,
    FOLLOWING,
    LEAKED,
    OTHER_CASES,
    REPLAYED,
    SILENT,
    SKILLS,
    TAUGHT,
    UNKNOWN,
    UNSEEN,
    WITH_NOTES,
)
from dayjob.lab.clerk_methods import METHODS
from dayjob.lab.figures import interval, markdown, percent

Piece = dict[str, Any]
NAMES = {"before": "before the night, no notes", "memory": "memory only: notes, no night"} | {
    slug: method.name for slug, method in METHODS.items()
}
LEARNED = (*TAUGHT, AS_ASKED, UNSEEN, BOTH, WITH_NOTES)
KEPT = ("skills", REPLAYED, SILENT, UNKNOWN, OTHER_CASES, FOLLOWING, LEAKED)
STAYS = (*SKILLS, *KEPT[1:-1])  # all that is better high
RULE = "by rule"
# The marks. That of rules, of which only the case was unseen, was set before any night had been run: a night cannot be
# asked to apply a rule to more cases than the clerk does that has the rule before its eyes.
TAUGHT_MARK, LOST_MARK, RULE_MARK = 0.95, 0.01, 0.90
EXACT = 1e-9  # of sums of shares


def page(result: dict[str, Any]) -> list[str]:
    """The page below its head."""
    size, tuning = result["size"], result["tuning"]
    out = [
        f"An office of {sum(size[how] for how in HOWS)} conventions that contradict what the clerk knows or that it"
        f" cannot know, {size['days']} days of simulated staff, one night. Every row of a seed has the same week; rows"
        " with an anchor have the same anchor. Each learns at the rate that ships with its recipe, for at most"
        f" {tuning['steps']} steps; the stop split chooses among them. Published rows are as published: no anchor, no"
        " looking. Shares answered exactly, in per cent, means and 95 %"
        " intervals over seeds (Student's t), greedy and without notes unless said otherwise.",
        "## What was taught, asked as nobody asked by day",
        markdown(_rows(result, LEARNED)),
        "`by answer`, `by rule`, `by hint`, `by late`: how staff corrected; rules are asked of cases that nobody asked"
        f" by day. `{AS_ASKED}` alone is in the journal. `{UNSEEN}`: in words that are in no text at all. `{BOTH}`: a"
        f" convention and a fact in one question. `{WITH_NOTES}`: what the office is served the next day:"
        " everything that was taught, without the notes that were retired, behind those that stay (before the night and"
        " for memory alone: behind all of them).",
        _asked(result, (*TAUGHT, AS_ASKED, UNSEEN, BOTH)),
        *_marks(result),
        "## What was to stay",
        markdown(_rows(result, KEPT)),
        f"`{LEAKED}`: questions of two people's own conventions, answered as one of them would have it: nobody's own"
        " may show in what serves everybody.",
        _asked(result, (*STAYS, LEAKED)),
        "## Notes and cost",
        markdown(_costs(result)),
        "`tokens of notes`: placed for a question about what was taught, before the night and after the notes that are"
        " no longer needed were retired. `corrections used`: of those said, how many the method could learn from.",
    ]
    if len(result["codes"]) > 1:
        out.append(f"The pieces were made by {len(result['codes'])} states of the code: run them again.")
    return out


def _rows(result: dict[str, Any], columns: Sequence[str]) -> list[dict[str, str]]:
    rows = []
    for method, pieces in _by_method(result).items():
        row = {"night": NAMES[method]}
        for column in columns:
            values = [value for one in pieces if (value := share(one, column)) is not None]
            row[column] = percent(interval(values), of=len(result["seeds"]), signed=False) if values else ""
        rows.append(row)
    return rows


def _asked(result: dict[str, Any], columns: Sequence[str]) -> str:
    """How many questions each suite has, with the range over seeds where they differ."""
    told = []
    for name in columns:
        counts = {one["asked"][name] for one in result["pieces"] if one["asked"].get(name)}
        if counts:
            told.append(f"{name} {min(counts)}" + (f" to {max(counts)}" if len(counts) > 1 else ""))
    return f"Questions a seed: {', '.join(told)}."


def _marks(result: dict[str, Any]) -> list[str]:
    """How every night that learns stands to the marks: means over seeds, each against the same seed's rows."""
    found = {method: {one["seed"]: one for one in pieces} for method, pieces in _by_method(result).items()}
    before, memory = found.get("before", {}), found.get("memory", {})
    rows = []
    for method in METHODS:
        mine, row = found.get(method, {}), {"night": NAMES[method]}
        told = [weighed(one, [name for name in TAUGHT if name != RULE]) for one in mine.values()]
        for name, values, mark in (
            ("taught, rules apart", told, TAUGHT_MARK),
            (BOTH, [share(one, BOTH) for one in mine.values()], TAUGHT_MARK),
            (UNSEEN, [share(one, UNSEEN) for one in mine.values()], TAUGHT_MARK),
            ("rules: share of memory's", _against(mine, memory, RULE, ratio=True), RULE_MARK),
        ):
            known = [value for value in values if value is not None]
            row[f"{name}, mark {mark}"] = _judged(known, reached=bool(known) and fmean(known) >= mark)
        for column in ("skills", SILENT, FOLLOWING, OTHER_CASES):
            lost = _against(mine, before, column)
            row[f"{column} lost, mark {LOST_MARK}"] = _judged(
                lost, reached=bool(lost) and fmean(lost) <= LOST_MARK + EXACT
            )
        short = _against(mine, memory, WITH_NOTES)
        row[f"{WITH_NOTES}, short of memory's, mark 0"] = _judged(short, reached=bool(short) and fmean(short) <= EXACT)
        rows += [row] if mine else []
    told_of = (
        "Of rules tests ask only cases that nobody asked by day. Their mark was set before a night was run."
        f" The marks of {UNSEEN}, {FOLLOWING}, {OTHER_CASES}, and of what is served {WITH_NOTES} (at least what memory"
        " alone reaches) are ours."
    )
    return ["## Marks", markdown(rows), told_of] if rows else []


def _judged(values: Sequence[float], *, reached: bool) -> str:
    return f"{round(fmean(values), 3) + 0.0:.3f}, {'reached' if reached else 'not reached'}" if values else ""


def _against(mine: dict[int, Piece], other: dict[int, Piece], column: str, *, ratio: bool = False) -> list[float]:
    """Per seed: what was lost against another row, or its share of that one's."""
    found = []
    for seed in mine.keys() & other.keys():
        here, there = share(mine[seed], column), share(other[seed], column)
        if here is not None and there:
            found.append(here / there if ratio else there - here)
    return found


def weighed(piece: Piece, columns: Sequence[str]) -> float | None:
    """The share right of all questions of several suites together: each question counts the same."""
    known = [(piece["asked"][name], piece["right"][name]) for name in columns if name in piece["right"]]
    count = sum(asked for asked, _ in known)
    return sum(asked * right for asked, right in known) / count if count else None


def share(piece: Piece, column: str) -> float | None:
    """One piece's share right; of several suites their mean. None where nothing was asked."""
    right = piece["right"]
    if column == "skills":
        found = [right[name] for name in SKILLS if name in right]
        return fmean(found) if found else None
    return None if column not in right else float(right[column])


def _costs(result: dict[str, Any]) -> list[dict[str, str]]:
    columns: dict[str, Callable[[Piece], float]] = {
        "notes standing": lambda one: one["notes"]["standing"],
        "notes alive": lambda one: one["notes"]["alive"],
        "tokens of notes, before": lambda one: one["tokens"]["before"],
        "after": lambda one: one["tokens"]["after"],
        "corrections said": lambda one: one["corrections"],
        "corrections used": lambda one: one["corrections_used"],
        "KL to the base, nats a token": lambda one: one["stats"]["anchor/kl"],
        "steps": lambda one: one["stats"]["steps"],
        "CPU s": lambda one: one["cpu_s"],
    }
    rows = []
    for method, pieces in _by_method(result).items():
        row = {"night": NAMES[method]}
        for name, of in columns.items():
            values = [value for one in pieces if (value := _maybe(of, one)) is not None]
            row[name] = f"{fmean(values):.3g}" if values else ""
        rows.append(row)
    return rows


def _maybe(of: Callable[[Piece], float], piece: Piece) -> float | None:
    try:
        return of(piece)
    except KeyError:
        return None


def _by_method(result: dict[str, Any]) -> dict[str, list[Piece]]:
    found: dict[str, list[Piece]] = {}
    for one in result["pieces"]:
        found.setdefault(one["method"], []).append(one)
    return found


def plot(result: dict[str, Any], path: Path) -> None:
    """What was learned against what was kept, every question counting the same: the upper right corner is the aim."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8, 6))
    for method, pieces in _by_method(result).items():
        across = [weighed(one, TAUGHT) or 0.0 for one in pieces]
        up = [weighed(one, STAYS) or 0.0 for one in pieces]
        axis.scatter([fmean(across)], [fmean(up)], label=NAMES[method])
        axis.scatter(across, up, s=8, alpha=0.4, color=axis.collections[-1].get_facecolor()[0])
    axis.set(xlabel="of what was taught, right without notes", ylabel="of what was to stay, right", xlim=(-0.05, 1.05))
    axis.legend(fontsize=7, loc="lower left")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
