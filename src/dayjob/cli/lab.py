"""dayjob lab: reproducible benchmarks, one command each. Results as a table, JSON and a plot."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from dayjob.lab.parts import Part

lab_app = typer.Typer(help="Reproducible benchmarks: one command each.", no_args_is_help=True)

OutOption = Annotated[
    Path | None, typer.Option(help="Where tables, JSON and plots go; docs/lab, with --quick runs/lab.")
]
SeedsOption = Annotated[int, typer.Option(help="How many seeds, counted from 0.", min=1)]
QuickOption = Annotated[bool, typer.Option("--quick", help="Small sizes: to see that it runs, not to be quoted.")]
ModelOption = Annotated[
    Path | None, typer.Option(help="The base model: a folder, or OWNER/NAME on the hub; else the clerk.")
]
CacheOption = Annotated[Path | None, typer.Option(help="Where gallery embeddings are kept.")]


def out_dir(given: Path | None, *, quick: bool) -> Path:
    """Quick figures are not to be quoted, so they never replace those in docs/lab unless somebody asks for it."""
    return given or Path("runs/lab" if quick else "docs/lab")


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
    pin: Annotated[
        float, typer.Option(help="Share of rounds after which people mark the true place.", min=0, max=1)
    ] = 0.05,
    clerk: Annotated[bool, typer.Option(help="Then office staff talk to the clerk: a day and a night.")] = True,
) -> None:
    """The main job: users play a live Geospot, the system learns and promotes, the table is printed."""
    from dayjob.lab.clerk_night import model_folder
    from dayjob.lab.day import run

    folder = model_folder(None) if clerk else None
    run(rounds=rounds, seed=seed, pin=pin, data=data, cache=cache_dir(cache), stay=stay, clerk=folder)


@lab_app.command()
def geospot(
    seeds: SeedsOption = 5,
    first_seed: Annotated[int, typer.Option(help="The first seed.", min=0)] = 0,
    users: Annotated[list[str] | None, typer.Option(help="A kind of users, again for more; else all five.")] = None,
    part: Annotated[list[Part] | None, typer.Option(help="A part to run, again for more; else all.")] = None,
    jobs: Annotated[int, typer.Option(help="Offline pieces at once, a process each.", min=1)] = 1,
    out: OutOption = None,
    cache: CacheOption = None,
    quick: QuickOption = False,
) -> None:
    """Published learners, ours as served over HTTP, and what was possible: the table. Goes on where it was stopped."""
    from dayjob.lab.geospot import run

    run(
        range(first_seed, first_seed + seeds), users=users, parts=part or list(Part),
        out_dir=out_dir(out, quick=quick), cache=cache_dir(cache), jobs=jobs, quick=quick,
    )  # fmt: skip


@lab_app.command()
def gate(
    seeds: SeedsOption = 1,
    runs: Annotated[int, typer.Option(help="Simulated trials a seed.", min=10)] = 1_000,
    out: OutOption = None,
    quick: QuickOption = False,
) -> None:
    """False promotions and power of the gate, with bias unknown, peeking, and 50 challengers in a row."""
    from dayjob.lab.gate import run

    run(range(seeds), runs, out_dir(out, quick=quick), quick=quick)


@lab_app.command()
def bias(seeds: SeedsOption = 10, out: OutOption = None, quick: QuickOption = False) -> None:
    """Recovery of position and trust bias, and how often the detector says what."""
    from dayjob.lab.bias import run

    run(range(seeds), out_dir(out, quick=quick), quick=quick)


@lab_app.command()
def attacks(
    seeds: SeedsOption = 5, out: OutOption = None, cache: CacheOption = None, quick: QuickOption = False
) -> None:
    """Position-1 and random clickers, heavy accounts, sock puppets: what is still learned, what is promoted."""
    from dayjob.lab.attacks import run

    run(range(seeds), out_dir(out, quick=quick), cache=cache_dir(cache), quick=quick)


@lab_app.command()
def ope(
    folder: Annotated[Path, typer.Argument(help="The Open Bandit sample's folder: obd of st-tech/zr-obp.")],
    seeds: SeedsOption = 5,
    out: OutOption = None,
    quick: QuickOption = False,
) -> None:
    """Off-policy estimators on real clicks with true propensities, and "cannot tell" where 40 clicks cannot tell."""
    from dayjob.lab.ope import run

    run(range(seeds), folder, out_dir(out, quick=quick), quick=quick)


@lab_app.command()
def clerk_pretrain(
    steps: Annotated[int, typer.Option(help="Steps of 128 conversations, of the first schooling.", min=1)] = 2000,
    seed: Annotated[int, typer.Option(help="The seed of weights and text.")] = 0,
    folder: Annotated[Path, typer.Option(help="Where checkpoints are; a run goes on from its last one.")] = Path(
        "runs/clerk"
    ),
    model: Annotated[
        Path | None, typer.Option(help="Where the model goes; apps/clerk/model, or with --quick runs.")
    ] = None,
    threads: Annotated[int, typer.Option(help="Processor threads; equal weights need an equal number.", min=1)] = 2,
    minutes: Annotated[float | None, typer.Option(help="Stop after so long, to go on later.", min=0)] = None,
    out: OutOption = None,
    quick: QuickOption = False,
) -> None:
    """A small language model from nothing, that knows, calculates and follows notes. Goes on where it was stopped."""
    from dayjob.lab.clerk_pretrain import QUICK, run
    from dayjob.lab.clerk_train import Plan

    folder = folder / "quick" if quick else folder
    run(
        replace(QUICK, seed=seed) if quick else Plan(seed=seed, steps=steps), folder=folder,
        model_folder=model or (folder / "model" if quick else Path("apps/clerk/model")),
        out_dir=out_dir(out, quick=quick), threads=threads, minutes=minutes, quick=quick,
    )  # fmt: skip


@lab_app.command()
def night(
    seeds: SeedsOption = 5,
    first_seed: Annotated[int, typer.Option(help="The first seed.", min=0)] = 0,
    methods: Annotated[list[str] | None, typer.Option(help="A method, again for more; else all.")] = None,
    model: ModelOption = None,
    out: OutOption = None,
    quick: QuickOption = False,
) -> None:
    """One night in the clerk's office: every method on the same week. Goes on where it was stopped."""
    from dayjob.lab.clerk_night import run

    run(range(first_seed, first_seed + seeds), methods, model, out_dir(out, quick=quick), quick=quick)


@lab_app.command()
def nights(
    seeds: SeedsOption = 5,
    first_seed: Annotated[int, typer.Option(help="The first seed.", min=0)] = 0,
    methods: Annotated[list[str] | None, typer.Option(help="A method, again for more; else those of the page.")] = None,
    nights: Annotated[int, typer.Option(help="How many.", min=3)] = 20,
    model: ModelOption = None,
    out: OutOption = None,
    quick: QuickOption = False,
) -> None:
    """Twenty nights: new lessons and reversals each day, two people who teach opposites, a quiet time."""
    from dayjob.lab.clerk_nights import run

    run(
        range(first_seed, first_seed + seeds), methods, model, out_dir(out, quick=quick),
        nights=min(nights, 4) if quick else nights, quick=quick,
    )  # fmt: skip


@lab_app.command()
def suggest(
    seeds: SeedsOption = 5,
    first_seed: Annotated[int, typer.Option(help="The first seed.", min=0)] = 0,
    rows: Annotated[list[str] | None, typer.Option(help="A row of the table, again for more; else all.")] = None,
    out: OutOption = None,
    quick: QuickOption = False,
) -> None:
    """A completer that learns from accept, reject and silence, and what games its reward. Goes on where it stopped."""
    from dayjob.lab.suggest import run

    run(range(first_seed, first_seed + seeds), rows, out_dir(out, quick=quick), quick=quick)


@lab_app.command()
def sandbox(
    tasks: Annotated[int, typer.Option(help="Code tasks a round.", min=8)] = 200,
    rounds: Annotated[int, typer.Option(help="Rounds; medians are taken over them.", min=1)] = 5,
    out: OutOption = None,
    quick: QuickOption = False,
) -> None:
    """Sandboxed code tasks a second, by how many run at once, and what a box costs beside a bare process."""
    from dayjob.lab.sandbox_speed import run

    run(tasks, out_dir(out, quick=quick), rounds=rounds, quick=quick)


@lab_app.command()
def speed(
    seconds: Annotated[float, typer.Option(help="Length of each load.", min=1.0)] = 6.0,
    rounds: Annotated[int, typer.Option(help="How often everything is measured, in turn.", min=1)] = 5,
    decisions: Annotated[int, typer.Option(help="Length of the long journal.", min=10_000)] = 1_000_000,
    out: OutOption = None,
    quick: QuickOption = False,
) -> None:
    """The speed marks, side by side with an endpoint that stores nothing and with Vowpal Wabbit."""
    from dayjob.lab.speed import run

    run(seconds, out_dir(out, quick=quick), rounds=rounds, decisions=decisions, quick=quick)


@lab_app.command()
def world(
    seeds: SeedsOption = 3,
    first_seed: Annotated[int, typer.Option(help="The first seed.", min=0)] = 0,
    model: ModelOption = None,
    out: OutOption = None,
    quick: QuickOption = False,
) -> None:
    """A learned model of an application: its error by step, and what rehearsing and planning in it are worth."""
    from dayjob.lab.world import run

    run(range(first_seed, first_seed + seeds), model, out_dir(out, quick=quick), quick=quick)


@lab_app.command()
def rehearse(seeds: SeedsOption = 5, out: OutOption = None, quick: QuickOption = False) -> None:
    """Rankers: does learning from imagined users, too, help? Goes on where it was stopped."""
    from dayjob.lab.rehearse import run

    run(range(seeds), out_dir(out, quick=quick), quick=quick)


@lab_app.command()
def dream(
    seeds: SeedsOption = 3,
    first_seed: Annotated[int, typer.Option(help="The first seed.", min=0)] = 0,
    parts: Annotated[list[str] | None, typer.Option(help="compute, days: again for more; else both.")] = None,
    model: ModelOption = None,
    out: OutOption = None,
    quick: QuickOption = False,
) -> None:
    """A night with dreaming against one without, after a short day with a new application. Goes on where it stopped."""
    from dayjob.lab.dream_run import run

    run(range(first_seed, first_seed + seeds), parts, model, out_dir(out, quick=quick), quick=quick)


@lab_app.command()
def environments(
    rounds: Annotated[int, typer.Option(help="How often everything is measured, in turn.", min=1)] = 5,
    out: OutOption = None,
    quick: QuickOption = False,
) -> None:
    """Attempts per second of the built-in environments, and their growth with processes."""
    from dayjob.lab.practice_speed import run

    run(out_dir(out, quick=quick), rounds=rounds, quick=quick)


@lab_app.command()
def episode(
    rounds: Annotated[int, typer.Option(help="Days of the office, each measured at every length.", min=2)] = 4,
    model: ModelOption = None,
    out: OutOption = None,
    quick: QuickOption = False,
) -> None:
    """What an episode costs by its length in each part, carried on to a million tokens."""
    from dayjob.lab.practice_episode import run

    run(model, out_dir(out, quick=quick), rounds=rounds, quick=quick)


@lab_app.command()
def practice(
    seeds: SeedsOption = 3,
    first_seed: Annotated[int, typer.Option(help="The first seed.", min=0)] = 0,
    parts: Annotated[list[str] | None, typer.Option(help="lift, zero, nines, warm: again for more; else all.")] = None,
    steps: Annotated[int, typer.Option(help="Of every course; twice as many out of zero.", min=1)] = 100,
    model: ModelOption = None,
    out: OutOption = None,
    quick: QuickOption = False,
) -> None:
    """Reinforcement learning from the shipped clerk on checked tasks: held-out pass rates before and after."""
    from dayjob.lab.practice_run import run

    run(range(first_seed, first_seed + seeds), parts, model, out_dir(out, quick=quick), steps=steps, quick=quick)


@lab_app.command()
def stale(
    seeds: SeedsOption = 3,
    steps: Annotated[int, typer.Option(help="Of every course; more than the largest lag.", min=65)] = 128,
    rate: Annotated[float, typer.Option(help="The rate of learning.", min=0)] = 3e-3,
    family: Annotated[str, typer.Option(help="A family of reasoning-gym that the clerk knows.")] = "spell_backward",
    model: ModelOption = None,
    out: OutOption = None,
    quick: QuickOption = False,
) -> None:
    """Learning from attempts of 4, 16 and 64 updates ago, with every correction and with none."""
    from dayjob.lab.practice_stale import run

    run(range(seeds), model, out_dir(out, quick=quick), steps=steps, rate=rate, family=family, quick=quick)


@lab_app.command()
def credit(
    seeds: SeedsOption = 3,
    steps: Annotated[int, typer.Option(help="Of every course.", min=1)] = 60,
    trained: Annotated[list[int] | None, typer.Option(help="Turns to train at, again for more; else 5.")] = None,
    parts: Annotated[list[str] | None, typer.Option(help="courses, memory: again for more; else both.")] = None,
    model: ModelOption = None,
    out: OutOption = None,
    quick: QuickOption = False,
) -> None:
    """Credit by outcome, turn, learned value, process and hindsight on the tool task; memory at 5 and 100 turns."""
    from dayjob.lab.practice_credit import run

    run(range(seeds), model, out_dir(out, quick=quick), steps=steps, trained=trained or [5], quick=quick, parts=parts)
