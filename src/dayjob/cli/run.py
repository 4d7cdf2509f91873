"""dayjob run: simulated people at a real server, end to end."""

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from dayjob.endings import Invalid

run_app = typer.Typer(help="A job end to end: simulated people at a real server.", no_args_is_help=True)


@run_app.callback()
def jobs() -> None:
    """A job end to end: simulated people at a real server."""


@run_app.command()
def clerk(
    days: Annotated[int, typer.Option(help="Days of work, a night after each.", min=1)] = 4,
    seed: Annotated[int, typer.Option(help="The seed of the office.")] = 0,
    data: Annotated[Path, typer.Option(help="The data directory; an earlier run's is replaced.")] = Path(
        "runs/clerk-day"
    ),
    model: Annotated[
        Path | None, typer.Option(help="The base model: a folder, or OWNER/NAME on the hub; else the clerk.")
    ] = None,
    stay: Annotated[bool, typer.Option(help="Leave the pages open at the end.")] = True,
    quick: Annotated[bool, typer.Option("--quick", help="A small office: to see that it runs.")] = False,
) -> None:
    """The clerk's office: staff chat and correct over HTTP, the clerk learns at night, the gate decides."""
    if importlib.util.find_spec("openai") is None:
        raise Invalid("the staff talk through OpenAI's client, which is not installed: pip install 'dayjob[lab]'")
    from dayjob.lab.clerk_served import run

    run(days=days, seed=seed, data=data, model=model, stay=stay, quick=quick)
