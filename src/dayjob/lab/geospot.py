"""The table of learners on Geospot: what was published, what is possible, and ours as it was served over HTTP.

Offline rows (`geospot_offline`) and plays over HTTP (`geospot_served`) of a seed come from one world, the same photos
and the same people, and are judged on the same photos that nobody played with. Both are kept in pieces
(`geospot_pieces`); the table is made of whatever pieces there are. The published failure is kept step by step for the
dashboard's replay page.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from geospot.users import Population
from rich.console import Console

from dayjob.endings import Invalid
from dayjob.lab import geospot_offline as offline
from dayjob.lab.figures import interval, machine, markdown, percent, write
from dayjob.lab.gate import print_rows
from dayjob.lab.geospot_pieces import NOBODY, SERVING, Plan, kept_offline, kept_served, run_offline, run_served
from dayjob.lab.geospot_plot import plot
from dayjob.lab.geospot_served import Served, worse_than_baseline
from dayjob.lab.parts import Part
from dayjob.lab.published import write_replay

REPLAY_COMMAND = "dayjob lab geospot --part replay"
ROUNDS, QUICK_ROUNDS, QUICK_HELD_OUT = 20_000, 3_000, 1_000  # quick: one night of learning over HTTP
SERVED = "ours, as served over HTTP"
TOLERANCE = 0.01  # a champion worse than the baseline by more than this share should never have been promoted
USERS = {
    Population.GEOSPOT: "65 % click the first place unseen, the rest the closest",
    Population.TRUST: "trust bias: position moves both what is seen and what is believed",
    Population.HONEST: "everybody looks and clicks the closest",
    Population.MIXED: "400 people who come back, 65 % unseen on average, some better informed than others",
    Population.POSITION_ONLY: "everybody clicks the first place unseen",
}


def run(
    seeds: Sequence[int], *, users: Sequence[str] | None, parts: Sequence[Part], out_dir: Path, cache: Path,
    jobs: int, quick: bool,
) -> dict[str, Any]:  # fmt: skip
    """Run the missing pieces of ``parts``, then write geospot.json, .md and .png from all pieces there are; the replay
    alone needs none and leaves the table as it is."""
    plan = Plan(
        seeds=tuple(seeds),
        populations=tuple(_population(name) for name in users) if users else tuple(Population),
        rounds=QUICK_ROUNDS if quick else ROUNDS,
        held_out=QUICK_HELD_OUT if quick else offline.HELD_OUT,
        folder=out_dir / "geospot",
        cache=cache,
    )
    if Part.OFFLINE in parts:
        run_offline(plan, jobs=jobs)
    if Part.REPLAY in parts:
        write_replay(cache, seed=0, command=REPLAY_COMMAND)
    if Part.SERVED in parts:
        run_served(plan)
    if set(parts) == {Part.REPLAY}:
        return {"command": REPLAY_COMMAND, "machine": machine()}
    result = assembled(plan) | {"quick": quick, "command": _command(plan, parts, quick=quick), "machine": machine()}
    for title, rows in tables(result).items():
        print_rows(Console(width=200), [dict(row) for row in rows], title=title)
    write(out_dir, "geospot", result=result, page=page(result), code=SERVING, plot=lambda path: plot(result, path))
    return result


def _population(name: str) -> Population:
    try:
        return Population(name)
    except ValueError:
        raise Invalid(f"there are no users {name!r}: use some of {', '.join(Population)}") from None


def _command(plan: Plan, parts: Sequence[Part], *, quick: bool) -> str:
    words = ["dayjob lab geospot", f"--seeds {len(plan.seeds)}"]
    words += [f"--first-seed {plan.seeds[0]}"] if plan.seeds[0] else []
    words += [] if len(plan.populations) == len(Population) else [f"--users {p.value}" for p in plan.populations]
    words += [] if set(parts) >= set(Part) - {Part.PAGE} else [f"--part {part.value}" for part in parts]
    return " ".join(words + (["--quick"] if quick else []))


def assembled(plan: Plan) -> dict[str, Any]:
    """The table's numbers from the pieces on disk: plain values only."""
    pieces, served = kept_offline(plan), kept_served(plan)
    if not pieces and not served:
        raise Invalid(f"there is no piece in {plan.folder} yet: run with --part offline or --part served first")
    seeds = sorted({piece["seed"] for piece in pieces} | {one.seed for one in served})
    fixed: dict[str, list[float]] = {}
    for piece in pieces:
        for name, change in piece.get("fixed", {}).items():
            fixed.setdefault(name, []).append(change)
    rows = []
    for users in dict.fromkeys(piece["users"] for piece in pieces):
        mine = [piece["learners"] for piece in pieces if piece["users"] == users]
        for name in dict.fromkeys(name for learners in mine for name in learners):
            curves = [learners[name]["scores"] for learners in mine if name in learners]
            rows.append(_row(name, users, curves, marks=plan.marks))
    for users in dict.fromkeys(one.population for one in served):
        rows.append(_row(SERVED, users, [_curve(one) for one in served if one.population == users], marks=plan.marks))
    return {
        "seeds": seeds, "marks": list(plan.marks), "held_out": plan.held_out,
        "baseline_km": interval(_of_nobody(pieces, "baseline_km")) if pieces else None,
        "best_of_ten_km": interval(_of_nobody(pieces, "best_of_ten_km")) if pieces else None,
        "fixed": {name: interval(values) for name, values in fixed.items()},
        "rows": rows,
        "served": [one.to_json() for one in served],
        "champions_worse": [list(one) for one in worse_than_baseline(served, tolerance=TOLERANCE)],
        "champions": sum(len(one.champions) - 1 for one in served),
        "codes": sorted({part["code"] for piece in pieces for part in piece["learners"].values()}),
        "served_codes": sorted({one.code for one in served}),
    }  # fmt: skip


def _of_nobody(pieces: Sequence[dict[str, Any]], key: str) -> list[float]:
    """One value a seed: all files of a seed share it."""
    return list({piece["seed"]: piece[key] for piece in pieces}.values())


def _curve(one: Served) -> dict[str, dict[str, float]]:
    return {
        str(n): {"greedy": km / one.held_out_baseline_km - 1.0, "sampled": -one.sampled_gain[n]}
        for n, km in one.greedy_km.items()
    }


def _row(
    name: str, users: str, curves: Sequence[dict[str, dict[str, float]]], *, marks: Sequence[int]
) -> dict[str, Any]:
    row: dict[str, Any] = {"learner": name, "users": users}
    for how in ("greedy", "sampled"):
        row[how] = {str(mark): interval([curve[str(mark)][how] for curve in curves]) for mark in marks}
    return row


def tables(result: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Title -> rows as text: what is printed, and what the page shows."""
    most = len(result["seeds"])
    out: dict[str, list[dict[str, Any]]] = {}
    if result["fixed"]:
        out["Without learning"] = [
            {"choice": name, "change in km, %": percent(found, of=most)} for name, found in result["fixed"].items()
        ]
    oracles = [row for row in result["rows"] if row["users"] == NOBODY]
    for users in sorted({row["users"] for row in result["rows"]} - {NOBODY}, key=list(map(str, Population)).index):
        mine = [row for row in result["rows"] if row["users"] == users]
        out[f"{users}: {USERS[Population(users)]}"] = [_line(row, result) for row in (*mine, *oracles)]
    if result["served"]:
        out["What serving cost, and what the gate did"] = _gate_rows(result)
    return out


def _line(row: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """One learner on a line: greedy after each number of interactions, then the same as it was shown."""
    line = {"learner": row["learner"]}
    for how, head in (("greedy", ""), ("sampled", ", as shown")):
        for mark in result["marks"]:
            line[f"{mark:,}{head}"] = percent(row[how][str(mark)], of=len(result["seeds"]))
    return line


def _gate_rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    served, rows = [Served.from_json(one) for one in result["served"]], []
    for users in dict.fromkeys(one.population for one in served):
        mine = [one for one in served if one.population == users]
        won = [v for one in mine for v in one.promotions if v["kind"] == "promote"]
        firsts = [
            next((v["evidence"]["closed"] for v in one.promotions if v["kind"] == "promote"), None) for one in mine
        ]
        told = sorted(first for first in firsts if first is not None)
        took = sorted(min(one.champion_from[name] for name in one.champions if one.champion_from[name] > 1)
                      for one in mine if len(one.champions) > 1)  # fmt: skip
        rows.append(
            {
                "users": users,
                "seeds": len(mine),
                "exploring, trials and holdback, % of km": percent(interval([one.cost for one in mine]), of=0),
                "of it the holdback": percent(interval([one.costs["baseline"] for one in mine]), of=0),
                "promotions": len(won),
                "seeds without": sum(first is None for first in firsts),
                "closed decisions of the first trial": _range(told),
                "first new champion in round": _range(took),
                "clicks": ", ".join(sorted({one.feedback_state for one in mine})),
            }
        )
    return rows


def _range(values: Sequence[int]) -> str:
    """Median, and the extremes where there are several."""
    if not values:
        return "-"
    middle = f"{int(np.median(values)):,}"
    return middle if len(values) == 1 else f"{middle} ({values[0]:,} to {values[-1]:,})"


def page(result: dict[str, Any]) -> list[str]:
    """The page below its head."""
    out = [
        "Photos and users are simulated; everything that ranks, records, learns and judges is real"
        " ([Geospot](../geospot.md)). Change of the mean distance of the first place against GeoCLIP's first guess on"
        " the same photos, in per cent: less is better. Means and 95 % intervals over seeds (Student's t); a number in"
        f" parentheses is how many seeds a cell has where it is fewer than {len(result['seeds'])}. All rows of a seed"
        f" share world, photos and people; each seed is judged on {result['held_out']:,} photos of its own that nobody"
        " played with.",
    ]
    if result["baseline_km"]:
        out.append(
            f"The first guess is {result['baseline_km']['mean']:,.0f} km off, the best of ten"
            f" {result['best_of_ten_km']['mean']:,.0f} km. The Bayes choice over the gallery is computed on"
            f" {offline.POSTERIOR_PHOTOS:,} of the photos of a seed."
        )
    for title, rows in tables(result).items():
        out += [f"## {title}", markdown(rows)]
        if title.startswith("What serving"):
            bad = result["champions_worse"]
            out.append(
                f"**Champions truly worse than the baseline by over 1 %: {len(bad)} of {result['champions']}** that"
                f" were promoted, over all seeds and users.{' ' + str(bad) if bad else ''}"
            )
    out += ["## How to read it", *NOTES]
    for name, where in (("codes", "offline"), ("served_codes", "served")):
        if len(result[name]) > 1:
            out.append(f"The {where} pieces were made by {len(result[name])} states of the code: run them again.")
    return out


NOTES = (
    "- *Greedy* is the best order of what was learned by then. *As shown* is what users would have been shown first, or"
    " were: published policies draw their lists from their own scores, ours change 5 % of first places; for the served"
    " row it is the tenth of the rounds before.\n"
    "- *Ours, as served* went through everything: a fresh server a play, the gate's own promotions, bias estimated from"
    " the journal, nothing told. Players wait while a fit runs, so that a night takes no interactions however busy the"
    " machine is. Nobody marks the true place: all is learned from clicks.\n"
    "- *Ours, fits without the gate* learns from what the caller's order would have collected, and serves at once.\n"
    "- Ours is given how far places lie apart and orders by least expected distance; the published network is not, and"
    " does not. They are not like for like.\n"
    "- What serving cost is the distance of what was shown first less that of what the champion of that moment would"
    " have shown alone, as a share of the latter. A trial that shows a better challenger to half of the users costs"
    " less than nothing.",
    "Every piece is kept in [geospot](geospot): what is there is not run again, so a stopped run goes on; remove a file"
    " to run it again.",
)
