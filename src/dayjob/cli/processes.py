"""dayjob learn and dayjob gate: the two processes beside the server, or run by hand."""

import logging
import os
import signal
import sys
import threading
import uuid
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dayjob.cli.assemble import load_ranker
from dayjob.config import Config, load_config
from dayjob.endings import Invalid
from dayjob.gate.judge import Judge
from dayjob.journal.control import Control
from dayjob.journal.readers import Reader

DataOption = Annotated[Path | None, typer.Option(help="The data directory.")]
FollowOption = Annotated[bool, typer.Option("--follow", help="Go on until stopped.")]
ParentOption = Annotated[int | None, typer.Option("--parent", help="End when this process does.", hidden=True)]


def gate(data: DataOption = None, follow: FollowOption = False, parent: ParentOption = None) -> None:
    """Judge closed decisions: once, or for as long as it runs."""
    settings, stop = _prepare(data, parent)
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
    parent: ParentOption = None,
) -> None:
    """Turn the journal into new challengers: one policy now, or jobs as they come."""
    settings, stop = _prepare(data, parent)
    # torch is heavy, and only this process needs it.
    from dayjob.learn.loop import Learner

    learner = Learner(
        settings.data, Control(settings.data), Reader(settings.data), threads=settings.learner_threads,
        holder=f"learner-{uuid.uuid4()}",
    )  # fmt: skip
    if policy is not None:
        learner.ask(policy, recipe=recipe)
    elif not follow:
        raise Invalid("say what to learn: --policy NAME, or --follow to take jobs as they come")
    while not stop.is_set():
        done = learner.step(watch_counts=follow)
        if not done:
            if not follow:
                break
            stop.wait(settings.judge_every_s)


def _prepare(data: Path | None, parent: int | None) -> tuple[Config, threading.Event]:
    """The settings, and an event that SIGTERM sets, and the end of the server that started this process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr)
    settings = load_config(flags={"data": data}, environ=os.environ, directory=Path.cwd()).config
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
