"""The tables, the plot and the sentences of ``dayjob lab dream``, from its pieces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from dayjob.config import Config
from dayjob.lab import practice_states
from dayjob.lab.figures import interval, markdown, percent, surely

Piece = dict[str, Any]
Row = dict[str, Any]
COMPUTE, DAYS = "compute", "days"
PARTS = (COMPUTE, DAYS)
NIGHT, BEFORE = "night", "before"
# Of what the longest day reaches without a dream: the success that part ``days`` counts interactions to. The first one
# was the question; the others show where a dream can be proved at all.
SHARES = (0.5, 0.75, 1.0)


def page(result: Row) -> list[str]:
    """The page below its head."""
    sizes, pieces = result["sizes"], result["pieces"]
    out = [
        f"The clerk meets a depot that it never heard of: {sizes['items']} things, six calls, 24 wordings. A day"
        " is so many requests: the clerk answers, the person shows the right call, the application runs it. All of it"
        " is in a real journal. Then comes the learner's own job, and the version that it makes is asked"
        f" {sizes['judged']} other requests in the real depot, most probable answers. *Solved*: what was asked for has"
        " changed and nothing else. Means and 95 % intervals over seeds (Student's t); differences are paired by seed."
        " Every way of a seed has the same interactions. What chooses between weights in a dream are the dream's own"
        " tasks; no request that judges is in any day.",
    ]
    compute = {name: found for name, found in by_way(pieces, sizes["day"]).items() if name in _order(result)}
    if len(compute) > 1:
        out += [f"## One day of {sizes['day']} interactions", verdict(result), markdown(_rows(result)), _about(result)]
        environments = _environments(compute)
        if environments:
            out += ["What the authors wrote, and what became of it:", markdown(environments)]
    days = _days(result)
    if days:
        out += ["## Days of other lengths", markdown(days), _proof_needs(result), markdown(needed_rows(result))]
    return out + practice_states.told(result["codes"])


# ---- part compute


def by_way(pieces: Sequence[Piece], interactions: int) -> dict[str, dict[int, Piece]]:
    """The pieces on days of this length, by way and seed."""
    found: dict[str, dict[int, Piece]] = {}
    for one in pieces:
        if one["interactions"] == interactions:
            found.setdefault(one["way"], {})[one["seed"]] = one
    return found


def _order(result: Row) -> dict[str, str]:
    """The ways of part compute with their names in words."""
    sizes = result["sizes"]
    middle = sizes["middle"]
    return {
        BEFORE: "before: the clerk as it is", NIGHT: "the night without dreaming",
        f"night-{middle}": f"the night without dreaming, {middle} times as many steps",
        **{f"dream-{one}": f"dreaming, ×{one}" for one in sizes["budgets"]},
        f"unproved-{middle}": f"dreaming, ×{middle}, environments not proved",
    }  # fmt: skip


def gain(of: Mapping[int, Piece], over: Mapping[int, Piece]) -> dict[str, float] | None:
    """The interval of the paired differences in success; None where no seed has both."""
    both = sorted(set(of) & set(over))
    return interval([of[seed]["success"] - over[seed]["success"] for seed in both]) if both else None


def _rows(result: Row) -> list[Row]:
    found, many = by_way(result["pieces"], result["sizes"]["day"]), len(result["seeds"])
    rows = []
    for way, words in _order(result).items():
        pieces = list(found.get(way, {}).values())
        if not pieces:
            continue
        against = None if way in (BEFORE, NIGHT) else gain(found[way], found.get(NIGHT, {}))
        rows.append({
            "after the day": words,
            "solved, %": percent(interval([one["success"] for one in pieces]), of=many, signed=False),
            "against the night without dreaming, points": "" if against is None else percent(against, of=many),
            "sure": "" if against is None else ("no", "yes, better", "yes, worse")[surely(against)],
            "skills and facts kept, %": percent(interval([_kept(one) for one in pieces]), of=many, signed=False),
            "KL to the base": f"{fmean(one['kl'] for one in pieces):.3f}",
            "attempts": _mean(pieces, lambda one: one["job"]["dream"]["episodes"]),
            "steps kept": _mean(pieces, lambda one: one["job"]["dream"]["steps"]),
            "CPU s": round(fmean(one["cpu_s"] for one in pieces)),
        })  # fmt: skip
    return rows


def _kept(piece: Piece) -> float:
    return fmean(piece["kept"].values())


def _mean(pieces: Sequence[Piece], of: Callable[[Piece], float]) -> str:
    """Of what only dreams have; "" for the others."""
    found = [of(one) for one in pieces if "dream" in one["job"]]
    return f"{fmean(found):.0f}" if found else ""


def verdict(result: Row) -> str:
    """Whether dreaming may be on by default, from the numbers: at the budget that is the default the interval must lie
    above zero."""
    found, default = by_way(result["pieces"], result["sizes"]["day"]), Config().dream_budget
    told, signs = [], {}
    for budget in result["sizes"]["budgets"]:
        against = gain(found.get(f"dream-{budget}", {}), found.get(NIGHT, {}))
        if against is not None:
            signs[float(budget)] = surely(against)
            says = ("does not exclude zero", "lies above zero", "lies below zero")[signs[float(budget)]]
            told.append(f"×{budget} {percent(against, of=0)} points ({says})")
    if not told:
        return "No dream was compared with the night without one."
    unsure = " One seed has no interval: nothing is sure." if len(result["seeds"]) == 1 else ""
    may = signs.get(default, 0) > 0
    stands = (
        f"At its default budget, ×{default:g}, dreaming is surely better: it may be on by default."
        if may
        else f"**Dreaming stays off by default**: at its default budget, ×{default:g}, it is not surely better."
    )
    return f"Against the night without dreaming, 95 % intervals: {'; '.join(told)}.{unsure} {stands}"


def _about(result: Row) -> str:
    middle, night = result["sizes"]["middle"], result["sizes"]["night"]
    return (
        f"The night: {night['steps']} steps of {night['lessons']} lessons and {night['anchor_rows']} rows of the"
        " anchor. *×n*: tokens that are read in the rehearsal, times those that the night may read; every step of a"
        " rehearsal learns the night's lessons and its anchor, too, so the night with"
        f" {middle} times as many steps says what further steps alone bring. *Not proved*: two authors write in every"
        " dream, the offline one and a careless one, whose environments expect shifted numbers or pay for any words;"
        " there everything is admitted without a look at the record. *Kept*: facts, not knowing, following notes and"
        " skills of the clerk's own exam, exact answers. *Steps kept*: after which the rehearsal's weights were best in"
        " the dream; 0: the night's own stayed."
    )


def _environments(compute: Mapping[str, Mapping[int, Piece]]) -> list[Row]:
    """A row an environment and way of dealing with it: how often it was admitted, why it was not, its pass rates."""
    told: dict[tuple[str, str], list[Row]] = {}
    for way, pieces in compute.items():
        how = "no proof" if way.startswith("unproved") else "proved"
        for piece in pieces.values():
            for one in piece["job"].get("environments", ()):
                kind = f"{one['author']}: {str(one['name']).rpartition(': ')[2]}"
                told.setdefault((kind, how), []).append(one)
    rows = []
    for (name, how), found in told.items():
        admitted = [one for one in found if one["admitted"]]
        rates = [(one["before"], one["after"]) for one in admitted if one["after"] is not None]
        reasons = sorted({str(one["reason"]).partition(":")[0] for one in found if not one["admitted"]})
        rows.append({
            "environment": name, "": how, "admitted": f"{len(admitted)} of {len(found)}",
            "rejected by": ", ".join(reasons),
            "solved in the dream, before, %": f"{100 * fmean(a for a, _ in rates):.0f}" if rates else "",
            "after, %": f"{100 * fmean(b for _, b in rates):.0f}" if rates else "",
        })  # fmt: skip
    return rows


# ---- part days


def curves(result: Row) -> dict[str, dict[int, dict[int, float]]]:
    """Success by way, seed and interactions, of the night and of the dream that part days compares."""
    ways = {NIGHT: "without", f"dream-{result['sizes']['middle']}": "with"}
    found: dict[str, dict[int, dict[int, float]]] = {"without": {}, "with": {}}
    for one in result["pieces"]:
        if one["way"] in ways and one["interactions"] in result["sizes"]["days"]:
            found[ways[one["way"]]].setdefault(one["seed"], {})[one["interactions"]] = one["success"]
    return found


def needed(points: Mapping[int, float], target: float) -> float | None:
    """Interactions after which a success is first reached, in straight lines between the days there are, from nothing
    after none; None where it never is.

    >>> needed({10: 0.2, 30: 0.6}, 0.4)
    20.0
    """
    before, below = 0, 0.0
    for count, value in sorted(points.items()):
        if value >= target:
            return before + (count - before) * (target - below) / (value - below) if value > below else float(before)
        before, below = count, value
    return None


def _days(result: Row) -> list[Row]:
    found, many, middle = curves(result), len(result["seeds"]), result["sizes"]["middle"]
    rows = []
    for count in result["sizes"]["days"]:
        values = {how: [one[count] for one in seeds.values() if count in one] for how, seeds in found.items()}
        both = [
            seed for seed in found["with"] if count in found["with"][seed] and count in found["without"].get(seed, {})
        ]
        if not both:
            continue
        paired = interval([found["with"][seed][count] - found["without"][seed][count] for seed in both])
        rows.append({
            "interactions": count,
            "without dreaming, solved, %": percent(interval(values["without"]), of=many, signed=False),
            f"dreaming, ×{middle}, solved, %": percent(interval(values["with"]), of=many, signed=False),
            "difference, points": percent(paired, of=many),
            "dreams with an admitted environment": f"{_admitted(result, count)} of {len(both)}",
        })  # fmt: skip
    return rows


def _proof_needs(result: Row) -> str:
    return (
        f"A proof needs {result['claims']} answers of the real application that its author never read and that the"
        " environment claims to know. The exam and early stopping keep some conversations, the proof three tenths of"
        " the others: a short day leaves too few, nothing is admitted, and the night stays as it was."
    )


def _admitted(result: Row, interactions: int) -> int:
    pieces = by_way(result["pieces"], interactions).get(f"dream-{result['sizes']['middle']}", {})
    return sum(any(each["admitted"] for each in one["job"]["environments"]) for one in pieces.values())


def needed_rows(result: Row) -> list[Row]:
    """How many interactions each way needs for a success that is a share of the longest day's without a dream."""
    found, longest = curves(result), max(result["sizes"]["days"])
    rows = []
    for share in SHARES:
        pairs = [
            (needed(points, share * points[longest]), needed(found["with"][seed], share * points[longest]))
            for seed, points in found["without"].items()
            if points.get(longest) and seed in found["with"]
        ]
        both = [(a, b) for a, b in pairs if a is not None and b is not None]
        if not both:
            continue
        saved = interval([a - b for a, b in both])
        rows.append({
            f"success, of what {longest} interactions reach without dreaming": f"{share:.0%}",
            "interactions needed without": f"{fmean(a for a, _ in both):.0f}",
            f"with dreaming, ×{result['sizes']['middle']}": f"{fmean(b for _, b in both):.0f}",
            "saved": f"{saved['mean']:+.1f}" + (f" ±{saved['half']:.1f}" if len(both) > 1 else ""),
            "sure": ("no", "yes, fewer", "yes, more")[surely(saved)],
            "seeds that never reach it with dreaming": f"{len(pairs) - len(both)} of {len(pairs)}",
        })  # fmt: skip
    return rows


# ---- the plot


def plot(result: Row, path: Path) -> None:
    """Success by compute, and by interactions; thin lines are seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), sharey=True)
    found = by_way(result["pieces"], result["sizes"]["day"])
    for seed in result["seeds"]:
        told = [(one, found.get(f"dream-{one}", {}).get(seed)) for one in result["sizes"]["budgets"]]
        known = [(budget, piece["success"]) for budget, piece in told if piece is not None]
        left.plot([one for one, _ in known], [one for _, one in known], marker="o", label=f"dreaming, seed {seed}")
        night = found.get(NIGHT, {}).get(seed)
        if night is not None:
            left.axhline(night["success"], linewidth=0.8, linestyle="--", color=left.lines[-1].get_color())
    left.set(xscale="log", xlabel="budget, times the night's compute (dashed: without)", ylabel="real requests solved")
    for (how, seeds), style in zip(curves(result).items(), ("--", "-"), strict=True):
        for seed, points in sorted(seeds.items()):
            counts, name = sorted(points), f"{how} dreaming, seed {seed}"
            right.plot(counts, [points[one] for one in counts], style, marker="o", color=f"C{seed % 10}", label=name)
    right.set(xlabel="real interactions", ylim=(-0.02, 1.02))
    for axis in (left, right):
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
