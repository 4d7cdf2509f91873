"""Which command is in which file. A file is read when its command is asked for: a server needs nothing of the lab."""

from collections.abc import Mapping
from importlib import import_module

import typer
from typer.core import TyperGroup
from typer.main import get_command

# In the order of `dayjob --help`: the command, and the function or group of commands that it is.
COMMANDS: Mapping[str, str] = {
    "serve": "serve:serve",
    "learn": "processes:learn",
    "gate": "processes:gate",
    "practice": "practice:practice",
    "dream": "dream:dream",
    "audit": "audit:audit",
    "versions": "steer:versions",
    "rollback": "steer:rollback",
    "freeze": "steer:freeze",
    "backup": "backup:backup",
    "export": "transfer:export",
    "doctor": "doctor:doctor",
    "import": "datasets:import_app",  # which adds its own to those of transfer
    "run": "run:run_app",
    "lab": "lab:lab_app",
}
Context = typer.Context
Command = typer.core.TyperCommand | TyperGroup


class Commands(TyperGroup):
    """The commands of `COMMANDS`, each made when it is asked for."""

    def list_commands(self, ctx: Context) -> list[str]:  # type: ignore[override]  # noqa: ARG002
        """Every name, in the order they are shown."""
        return list(COMMANDS)

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:  # type: ignore[override]  # noqa: ARG002
        """The command of this name, None where there is none."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        found = getattr(import_module(f"dayjob.cli.{module}"), name)
        if not isinstance(found, typer.Typer):
            alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            alone.command(cmd_name)(found)
            found = alone
        command: Command = get_command(found)  # type: ignore[assignment]
        command.name = cmd_name
        return command
