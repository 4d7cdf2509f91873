"""The curves that the dashboard draws, thinned to what a plot has room for, and their numbers in words. Pure."""

import functools
import math
from collections.abc import Sequence

from dayjob.records import Json

SERIES = ("versions", "position", "trial", "feedback", "learning")
BIAS = ("alpha", "alpha_low", "alpha_high", "beta", "beta_low", "beta_high")
POINTS = 240  # of one curve: more than a plot has room for
LEAST_DECISIONS = 25  # behind one point of a curve of rewards: fewer are noise
CURVE_POINTS = 60
LATELY = 5  # points of a curve that "lately" means


def thin(points: Sequence[Json], *, name: str) -> list[Json]:
    """A curve with no more points than a plot has room for. Rewards are merged by their counts, other points picked.

    The last point of each trial stays: it holds the verdict.
    """
    if name == "versions":
        return _merged(points)
    if name == "trial":
        points = _paired(points)
    step, last = max(1, math.ceil(len(points) / POINTS)), len(points) - 1
    return [
        point
        for at, point in enumerate(points)
        if at == last
        or point.get("challenger") != points[at + 1].get("challenger")
        or (at % step == step - 1 and point["seq"] != points[at + 1]["seq"])
    ]


def _paired(points: Sequence[Json]) -> list[Json]:
    """Every point with its pair: one without a challenger was written as its trial ended, and belongs to that."""
    out: list[Json] = []
    for point in points:
        if point.get("challenger") is not None:
            out.append(point)
        elif out:
            out.append(point | {"challenger": out[-1]["challenger"], "champion": out[-1]["champion"]})
    return out


def _merged(points: Sequence[Json]) -> list[Json]:
    total = sum(one["n"] for point in points for one in point["versions"].values())
    enough = max(LEAST_DECISIONS, total / CURVE_POINTS)
    out: list[Json] = []
    rest: dict[str, Json] = {}  # what is seldom served waits until enough decisions are behind its point
    told: dict[str, dict[str, Json]] = {}  # the newest point that each version is on
    for point in points:
        for version, one in point["versions"].items():
            rest[version] = _joined(rest.get(version), one)
        ready = [name for name, one in rest.items() if one["n"] >= LEAST_DECISIONS]
        if not ready or sum(one["n"] for one in rest.values()) < enough:
            continue
        earned_now = {name: rest.pop(name) for name in ready}
        out.append({"seq": point["seq"], "versions": earned_now})
        told.update((name, earned_now) for name in ready)
    if rest and not out:
        return [{"seq": points[-1]["seq"], "versions": rest}]
    for name, one in rest.items():
        last: Json = told[name] if name in told else out[-1]["versions"]
        last[name] = _joined(last.get(name), one)
    return out


def _joined(old: Json | None, new: Json) -> Json:
    """Two means as one; ``error`` (mean distance from the truth) where both know it."""
    if old is None:
        return dict(new)
    n = old["n"] + new["n"]
    means = ("reward", "error") if "error" in old and "error" in new else ("reward",)
    return {"n": n} | {mean: (old["n"] * old[mean] + new["n"] * new[mean]) / n for mean in means}


def earned(points: Sequence[Json]) -> list[Json]:
    """What each version earned over a thinned curve, and lately: the plot's numbers, in the order of first service."""
    found: dict[str, list[Json]] = {}
    for point in points:
        for version, one in point["versions"].items():
            found.setdefault(version, []).append(one)
    return [
        {
            "version": version,
            "all": functools.reduce(_joined, each),
            "lately": functools.reduce(_joined, each[-LATELY:]),
        }
        for version, each in found.items()
    ]


def changes(points: Sequence[Json], *, name: str) -> list[Json]:
    """The points at which a named value became another."""
    known = [point for point in points if point.get(name) is not None]
    return [point for at, point in enumerate(known) if at == 0 or point[name] != known[at - 1][name]]


def positions(report: Json) -> list[Json]:
    """Each position's share of the clicks and what the click model says of it; None where it says nothing."""
    columns = {"share": report["feedback"].get("share_at") or []}
    columns |= {name: (report.get("bias") or {}).get(name) or [] for name in BIAS}
    width = max(len(values) for values in columns.values())
    return [
        {"position": at + 1} | {name: values[at] if at < len(values) else None for name, values in columns.items()}
        for at in range(width)
    ]
