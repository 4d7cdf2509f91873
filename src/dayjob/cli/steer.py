"""dayjob versions, rollback, freeze: steering a data directory by hand, with or without a server."""

import os
import sys
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table

from dayjob.config import load_config
from dayjob.endings import Invalid
from dayjob.journal.control import Control
from dayjob.journal.steering import roll_back
from dayjob.records import Policy

DataOption = Annotated[Path | None, typer.Option(help="The data directory.")]
PolicyArgument = Annotated[str, typer.Argument(help="The policy.")]
TenantOption = Annotated[str, typer.Option(help="The tenant.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
console = Console()


def open_control(data: Path | None) -> Control:
    """The control store of an existing data directory. Raises Invalid when there is none."""
    settings = load_config(flags={"data": data}, environ=os.environ, directory=Path.cwd()).config
    if not (settings.data / "control.db").exists():
        raise Invalid(f"{settings.data} holds no policies: name the directory with --data")
    return Control(settings.data)


def versions(
    policy: PolicyArgument, data: DataOption = None, tenant: TenantOption = "default", as_json: JsonOption = False
) -> None:
    """List a policy's versions with their lineage."""
    control = open_control(data)
    _known(control, tenant, policy)
    rows = control.versions(tenant, policy)
    pointers = control.pointers(tenant, policy)
    if as_json:
        body = [
            {"version": v.name, "parent": v.parent, "recipe": v.recipe, "status": v.status.value, "digest": v.digest,
             "journal_range": [v.from_seq, v.to_seq], "created_ms": v.created_ms, "serves": v.name == pointers.champion}
            for v in rows
        ]  # fmt: skip
        sys.stdout.buffer.write(orjson.dumps(body, option=orjson.OPT_INDENT_2) + b"\n")
        return
    table = Table("version", "parent", "recipe", "status", "journal", "digest")
    for v in rows:
        mark = " *" if v.name == pointers.champion else ""
        table.add_row(
            v.name + mark, v.parent or "", v.recipe, v.status.value, f"{v.from_seq}..{v.to_seq}", v.digest[:12]
        )
    console.print(table)
    console.print("* serves now")


def rollback(
    policy: PolicyArgument,
    data: DataOption = None,
    tenant: TenantOption = "default",
    to: Annotated[str | None, typer.Option(help="The version to put back (else the previous champion).")] = None,
) -> None:
    """Put an earlier version back. Works with the server running, or dead, and on a full disk."""
    control = open_control(data)
    pointers = control.pointers(tenant, policy)
    target, untold = roll_back(control, pointers, to=to, evidence={"key_id": "command line"})
    if target == pointers.champion:
        console.print(f"{target} serves already")
        return
    console.print(f"{policy}: {pointers.champion} is withdrawn, {target} serves")
    if untold is not None:
        console.print(untold)


def freeze(
    policy: PolicyArgument,
    data: DataOption = None,
    tenant: TenantOption = "default",
    serve: Annotated[str, typer.Option(help="What serves while frozen: champion or baseline.")] = "champion",
    off: Annotated[bool, typer.Option("--off", help="Learn again.")] = False,
) -> None:
    """Stop learning and trials of a policy, or start them again."""
    if serve not in ("champion", "baseline"):
        raise Invalid("--serve takes champion or baseline")
    control = open_control(data)
    control.move(tenant, policy, change={"frozen": "" if off else serve})
    console.print(f"{policy}: " + ("learns again" if off else f"frozen, the {serve} serves"))


def _known(control: Control, tenant: str, policy: str) -> Policy:
    return control.policy(tenant, policy)
