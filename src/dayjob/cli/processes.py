"""dayjob learn and dayjob gate: the two processes beside the server, or run by hand."""

import logging
import os
import signal
import sys
import threading
import uuid
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from dayjob.cli.assemble import RECIPES, load_ranker
from dayjob.config import Config, load_config
from dayjob.endings import Conflict, Invalid, JobState
from dayjob.gate.judge import Judge
from dayjob.journal.control import Control
from dayjob.journal.jobs import get_job
from dayjob.journal.readers import Reader
from dayjob.records import Job

if TYPE_CHECKING:
    from dayjob.learn.loop import Learner

DataOption = Annotated[Path | None, typer.Option(help="The data directory.")]
FollowOption = Annotated[bool, typer.Option("--follow", help="Go on until stopped.")]
ConfigOption = Annotated[Path | None, typer.Option(help="A dayjob.toml.")]
ParentOption = Annotated[int | None, typer.Option("--parent", help="End when this process does.", hidden=True)]


def gate(
    data: DataOption = None, follow: FollowOption = False, config: ConfigOption = None, parent: ParentOption = None
) -> None:
    """Judge closed decisions: once, or for as long as it runs."""
    settings, stop = _prepare(data, config, parent=parent)
    judge = Judge(
        Control(settings.data), Reader(settings.data), load_ranker=partial(load_ranker, settings.data),
        holdback=settings.holdback, holder=f"judge-{uuid.uuid4()}",
    )  # fmt: skip
    while not stop.is_set():
        judged = judge.step()
        if not judged:
            if not follow:
                break
            stop.wait(settings.judge_every_s)
    if not follow:
        Console().print("judged everything that is closed")


def learn(
    data: DataOption = None,
    follow: FollowOption = False,
    policy: Annotated[str | None, typer.Option(help="Learn this policy now.")] = None,
    recipe: Annotated[str | None, typer.Option(help="With this recipe, not the policy's own.")] = None,
    config: ConfigOption = None,
    parent: ParentOption = None,
) -> None:
    """Turn the journal into new challengers: one policy now, or jobs as they come."""
    settings, stop = _prepare(data, config, parent=parent)
    # torch is heavy, and only this process needs it.
    from dayjob.learn.loop import Learner

    if policy is None and not follow:
        raise Invalid("say what to learn: --policy NAME, or --follow to take jobs as they come")
    with Progress(console=Console(stderr=True), disable=follow) as progress:
        bar = progress.add_task(f"learning {policy}", total=1.0)
        learner = Learner(
            settings.data, Control(settings.data), Reader(settings.data), threads=settings.learner_threads,
            holder=f"learner-{uuid.uuid4()}", told=lambda share: progress.update(bar, completed=share),
        )  # fmt: skip
        asked = None if policy is None else _ask(learner, policy, recipe)
        while not stop.is_set() and (follow or _waits(learner, asked)):
            if not learner.step(watch_counts=follow):
                stop.wait(settings.judge_every_s)
        progress.update(bar, completed=1.0)
    if asked is not None:
        _print_job(get_job(learner.control, asked.tenant, asked.id))


def _ask(learner: "Learner", policy: str, recipe: str | None) -> Job:
    if recipe is not None and recipe not in RECIPES:
        raise Invalid(f"there is no recipe {recipe!r}: use one of {', '.join(RECIPES)}")
    if learner.frozen("default", policy):
        raise Conflict(f"policy {policy!r} is frozen: dayjob freeze {policy} --off first")
    return learner.ask(policy, recipe=recipe)


def _waits(learner: "Learner", asked: Job | None) -> bool:
    """Whether the job is still to be done: by this learner, or by another that took it first."""
    if asked is None:
        return False
    return get_job(learner.control, asked.tenant, asked.id).state in (JobState.QUEUED, JobState.RUNNING)


def _print_job(job: Job) -> None:
    """What came of a job asked for by hand."""
    if job.state is JobState.FAILED:
        raise Invalid(str(job.error))
    result = job.result or {}
    if job.state is not JobState.SUCCEEDED:
        Console().print(f"job {job.id} is {job.state}: stopped before its end; a learner takes it up again")
    elif result.get("challenger"):
        Console().print(f"{result['challenger']} learned from {result['decisions']:,} decisions; its trial comes next")
    else:
        Console().print(f"no challenger: {result.get('reason')}")


def _prepare(data: Path | None, config: Path | None, *, parent: int | None) -> tuple[Config, threading.Event]:
    """The settings, and an event that SIGTERM sets, and the end of the server that started this process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr)
    settings = load_config(flags={"data": data, "config": config}, environ=os.environ, directory=Path.cwd()).config
    if not (settings.data / "control.db").exists():
        raise Invalid(f"{settings.data} holds no journal: start `dayjob serve --data {settings.data}` first")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if parent is not None:
        threading.Thread(target=_end_with_parent, args=(parent, stop), daemon=True).start()
    return settings, stop


def _end_with_parent(parent: int, stop: threading.Event) -> None:
    """A server that was killed, even while this process started, must not leave a judge that moves pointers unseen."""
    while os.getppid() == parent and not stop.wait(1.0):
        pass
    stop.set()
