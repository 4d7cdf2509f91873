"""The command line: one file a command family. This is where parts are handed to each other."""

import sys

import typer
from rich.console import Console

from dayjob.cli import audit, doctor, lab, processes, serve, steer, transfer
from dayjob.endings import DayjobError

app = typer.Typer(
    name="dayjob",
    help="A learning loop for deployed models: serve, remember, learn, and promote only what the record proves better.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serve.serve)
app.command()(processes.learn)
app.command()(processes.gate)
app.command()(audit.audit)
app.command()(steer.versions)
app.command()(steer.rollback)
app.command()(steer.freeze)
app.command()(transfer.export)
app.add_typer(transfer.import_app, name="import")
app.command()(doctor.doctor)
app.add_typer(lab.lab_app, name="lab")


def main() -> None:
    """Run a command; an error of ours is one line that says what to do, and exit code 2."""
    try:
        app()
    except DayjobError as error:
        Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] {error}", highlight=False)
        sys.exit(2)
