"""The table of learners on Geospot: what was published, what is possible, and ours as it was really served over HTTP.

Offline rows (`geospot_offline`) and served rows (`geospot_served`) come from one world in one run. The published
failure is kept step by step for the dashboard's replay page.
"""

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from geospot.users import Population
from rich.console import Console
from rich.progress import Progress

from dayjob.endings import Invalid
from dayjob.lab import geospot_offline
from dayjob.lab.gate import print_rows
from dayjob.lab.geospot_journal import load_world
from dayjob.lab.geospot_served import Served, serve_and_play, worse_than_baseline
from dayjob.lab.published import small_field, write_replay

HELD_OUT = 10_000
QUICK_ROUNDS = 2_000


def run(
    seeds: Sequence[int], *, rounds: int, users: Sequence[str] | None, out_dir: Path, cache: Path, quick: bool
) -> dict[str, Any]:
    """The whole table: printed, and written to ``out_dir``/geospot.json with a plot. ``quick``: to see that it runs."""
    populations = [_population(name) for name in users] if users else list(Population)
    offline = geospot_offline.run(seeds, out_dir, cache_dir=cache, populations=populations, quick=quick)
    write_replay(small_field(cache), seed=0, command="dayjob lab geospot")
    played = QUICK_ROUNDS if quick else rounds
    served = run_served(seeds, rounds=played, populations=populations, out_dir=out_dir, cache=cache)
    return {"offline": offline, "served": [one.to_json() for one in served]}


def _population(name: str) -> Population:
    try:
        return Population(name)
    except ValueError:
        raise Invalid(f"there are no users {name!r}: use some of {', '.join(Population)}") from None


def run_served(
    seeds: Sequence[int], *, rounds: int, populations: Sequence[Population], out_dir: Path, cache: Path
) -> list[Served]:
    """Every population and seed over HTTP; finished plays are kept in ``out_dir``, so that a stopped run goes on."""
    world = load_world(cache)
    held_out = world.photos(HELD_OUT, seed=999_983)
    out: list[Served] = []
    with Progress() as progress:
        for population in populations:
            for seed in seeds:
                kept = out_dir / "served" / f"{population.value}-{seed}-{rounds}.json"
                if not kept.exists():
                    data = Path(tempfile.mkdtemp(prefix="dayjob-lab-")) / "data"
                    one = serve_and_play(
                        world, population, seed=seed, rounds=rounds, held_out=held_out, data=data, progress=progress
                    )
                    shutil.rmtree(data.parent)
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    kept.write_text(json.dumps(one.to_json(), indent=1), encoding="utf-8")
                out.append(Served.from_json(json.loads(kept.read_text(encoding="utf-8"))))
    print_served(out)
    (out_dir / "geospot_served.json").write_text(json.dumps([one.to_json() for one in out], indent=1), encoding="utf-8")
    return out


def print_served(results: Sequence[Served]) -> None:
    """A row a population: greedy gain by checkpoint with its interval over seeds, and what the gate did."""
    console = Console(width=200)
    rows = []
    for population in sorted({one.population for one in results}):
        mine = [one for one in results if one.population == population]
        row: dict[str, Any] = {"users": population, "seeds": len(mine)}
        for n in mine[0].greedy_km:
            row[f"greedy {n:,}"] = _spread([one.greedy_km[n] / one.held_out_baseline_km - 1.0 for one in mine])
            row[f"as shown {n:,}"] = _spread([-one.sampled_gain[n] for one in mine])
        row["promotions"] = sum(v["kind"] == "promote" for one in mine for v in one.promotions) / len(mine)
        row["cost of exploring"] = _spread([one.exploration_cost for one in mine])
        row["clicks"] = ", ".join(sorted({one.feedback_state for one in mine}))
        rows.append(row)
    print_rows(console, rows, title="Ours, as served over HTTP after the gate's own promotions: change in km")
    bad = worse_than_baseline(results)
    console.print(f"champions truly worse than the baseline by over 1 %: {len(bad)} {bad or ''}")


def _spread(values: Sequence[float]) -> str:
    """Mean and 95 % interval over seeds, in per cent."""
    array = np.array(values)
    if len(array) < 2:
        return f"{array.mean():+.1%}"
    wide = 1.96 * array.std(ddof=1) / np.sqrt(len(array))
    return f"{array.mean():+.1%} ± {wide:.1%}"
