"""dayjob backup: a consistent copy of a data directory, taken while a server runs. To restore is to serve the copy."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dayjob.cli.output import DataOption, JsonOption, data_of, existing, print_json
from dayjob.journal import backup as copies


def backup(
    target: Annotated[Path, typer.Argument(help="The directory to make; it must not exist.")],
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy journal, versions and pointers as they stand at one moment. `dayjob serve --data COPY` restores it.

    Exit code 1 when a version's files were damaged already: the copy is whole but for them.
    """
    root = existing(data_of(data))
    made = copies.backup(root, target)
    if as_json:
        print_json({"data": str(root), "target": str(target), **asdict(made)})
    else:
        say = Console(soft_wrap=True).print
        say(f"{target}: {made.size_bytes:,} bytes, the journal through {made.through:,}, {made.versions} versions",
            highlight=False)  # fmt: skip
        for name, why in made.damaged.items():
            say(f"left out {name}: {why}", highlight=False, markup=False)
    if made.damaged:
        raise typer.Exit(1)
