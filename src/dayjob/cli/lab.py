"""dayjob lab: reproducible benchmarks, one command each. Results as a table, JSON and a plot."""

import os
from pathlib import Path
from typing import Annotated

import typer

lab_app = typer.Typer(help="Reproducible benchmarks: one command each.", no_args_is_help=True)

OutOption = Annotated[Path, typer.Option(help="Where tables, JSON and plots go.")]
SeedsOption = Annotated[int, typer.Option(help="How many seeds, counted from 0.", min=1)]
QuickOption = Annotated[bool, typer.Option("--quick", help="Small sizes: to see that it runs, not to be quoted.")]
CacheOption = Annotated[Path | None, typer.Option(help="Where gallery embeddings are kept.")]
OUT = Path("docs/lab")


def cache_dir(given: Path | None) -> Path:
    """Where GeoCLIP's gallery embeddings are cached: they take half a minute to make."""
    if given is not None:
        return given
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dayjob" / "geospot"


@lab_app.command()
def day(
    rounds: Annotated[int, typer.Option(help="Rounds that simulated users play.", min=200)] = 14_000,
    seed: Annotated[int, typer.Option(help="The seed of photos and users.")] = 0,
    data: Annotated[Path, typer.Option(help="The data directory; kept.")] = Path("runs/day"),
    cache: CacheOption = None,
    stay: Annotated[bool, typer.Option(help="Leave the pages open at the end.")] = True,
) -> None:
    """The main job: users play a live Geospot, the system learns and promotes, the table is printed."""
    from dayjob.lab.day import run

    run(rounds=rounds, seed=seed, data=data, cache=cache_dir(cache), stay=stay)


@lab_app.command()
def geospot(
    seeds: SeedsOption = 5,
    rounds: Annotated[int, typer.Option(help="Interactions each.")] = 20_000,
    users: Annotated[list[str] | None, typer.Option(help="Kinds of users; all five otherwise.")] = None,
    out: OutOption = OUT,
    cache: CacheOption = None,
    quick: QuickOption = False,
) -> None:
    """Published learners, ours as served over HTTP, and what was possible: the table."""
    from dayjob.lab.geospot import run

    run(range(seeds), rounds=rounds, users=users, out_dir=out, cache=cache_dir(cache), quick=quick)


@lab_app.command()
def gate(
    seeds: SeedsOption = 1,
    runs: Annotated[int, typer.Option(help="Simulated trials a seed.", min=10)] = 1_000,
    out: OutOption = OUT,
    quick: QuickOption = False,
) -> None:
    """False promotions and power of the gate, with bias unknown, peeking, and 50 challengers in a row."""
    from dayjob.lab.gate import run

    run(range(seeds), runs, out, quick=quick)


@lab_app.command()
def bias(seeds: SeedsOption = 10, out: OutOption = OUT, quick: QuickOption = False) -> None:
    """Recovery of position and trust bias, and how often the detector says what."""
    from dayjob.lab.bias import run

    run(range(seeds), out, quick=quick)


@lab_app.command()
def ope(
    folder: Annotated[Path, typer.Argument(help="The Open Bandit sample's folder.")] = Path("../shared/data/obd"),
    seeds: SeedsOption = 5,
    out: OutOption = OUT,
    quick: QuickOption = False,
) -> None:
    """Off-policy estimators on real clicks with true propensities, and "cannot tell" where 40 clicks cannot tell."""
    from dayjob.lab.ope import run

    run(range(seeds), folder, out, quick=quick)


@lab_app.command()
def speed(
    seconds: Annotated[float, typer.Option(help="Length of each measurement.")] = 10.0,
    out: OutOption = OUT,
    quick: QuickOption = False,
) -> None:
    """The speed marks, side by side with an endpoint that stores nothing and with Vowpal Wabbit."""
    from dayjob.lab.speed import run

    run(seconds, out, quick=quick)
