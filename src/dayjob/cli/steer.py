"""dayjob versions, rollback, freeze: steering a data directory by hand, with or without a server."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dayjob.cli.output import (  # fmt: skip
    DataOption,
    JsonOption,
    PolicyArgument,
    TenantOption,
    data_of,
    existing,
    find_policy,
    print_json,
)
from dayjob.endings import Invalid, NotFound
from dayjob.journal.control import Control
from dayjob.journal.steering import roll_back
from dayjob.records import Json, Pointers, Version


def open_control(data: Path | None) -> Control:
    """The control store of an existing data directory. Raises Invalid when there is none."""
    return Control(existing(data_of(data)))


def versions(
    policy: PolicyArgument, data: DataOption = None, tenant: TenantOption = "default", as_json: JsonOption = False
) -> None:
    """List a policy's versions with their lineage."""
    control = open_control(data)
    find_policy(control, tenant, policy)
    rows, pointers = control.versions(tenant, policy), control.pointers(tenant, policy)
    now = serves(pointers, frozen=pointers.frozen or control.freeze_file())
    if as_json:
        print_json([version_view(version, now) for version in rows])
        return
    table = Table("version", "parent", "recipe", "status", "journal", "digest")
    for v in rows:
        mark = " *" if v.name == now else ""
        table.add_row(
            v.name + mark, v.parent or "", v.recipe, v.status.value, f"{v.from_seq}..{v.to_seq}", v.digest[:12]
        )
    console = Console()
    console.print(table)
    console.print("* serves now" + (" (frozen)" if pointers.frozen or control.freeze_file() else ""))


def serves(pointers: Pointers, *, frozen: str) -> str:
    """The version that answers now: a frozen policy may serve its baseline."""
    return pointers.baseline if frozen == "baseline" else pointers.champion


def version_view(version: Version, now: str) -> Json:
    """A version for people who read JSON."""
    return {
        "version": version.name, "parent": version.parent, "recipe": version.recipe, "status": version.status.value,
        "digest": version.digest, "journal_range": [version.from_seq, version.to_seq],
        "created_ms": version.created_ms, "serves": version.name == now,
    }  # fmt: skip


def rollback(
    policy: PolicyArgument,
    data: DataOption = None,
    tenant: TenantOption = "default",
    to: Annotated[str | None, typer.Option(help="The version to put back (else the previous champion).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Put an earlier version back. Works with the server running, or dead, and on a full disk."""
    control = open_control(data)
    find_policy(control, tenant, policy)
    pointers = control.pointers(tenant, policy)
    known = [version.name for version in control.versions(tenant, policy)]
    if to is not None and to not in known:
        raise NotFound(f"policy {policy!r} has no version {to!r}: there is {', '.join(known)}")
    target, untold = roll_back(control, pointers, to=to, evidence={"key_id": "command line"})
    moved = target != pointers.champion
    if as_json:
        print_json({"policy": policy, "champion": target, "withdrawn": pointers.champion if moved else None,
                    "warning": untold})  # fmt: skip
        return
    console = Console(soft_wrap=True)
    if not moved:
        console.print(f"{target} serves already")
        return
    console.print(f"{policy}: {pointers.champion} is withdrawn, {target} serves", highlight=False)
    if untold is not None:
        console.print(untold, highlight=False, markup=False)


def freeze(
    policy: PolicyArgument,
    data: DataOption = None,
    tenant: TenantOption = "default",
    serve: Annotated[str, typer.Option(help="What serves while frozen: champion or baseline.")] = "champion",
    off: Annotated[bool, typer.Option("--off", help="Learn again.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Stop learning and trials of a policy, or start them again."""
    if serve not in ("champion", "baseline"):
        raise Invalid(f"--serve takes champion or baseline, not {serve!r}")
    control = open_control(data)
    find_policy(control, tenant, policy)
    pointers = control.move(tenant, policy, change={"frozen": "" if off else serve})
    held = control.freeze_file() if off else ""
    frozen = pointers.frozen or held
    if as_json:
        print_json({"policy": policy, "frozen": bool(frozen), "serves": frozen or "champion"})
        return
    console = Console(soft_wrap=True)
    if held:
        console.print(f"{policy}: still frozen, by the file {control.root / 'freeze'}: remove it to learn again")
        return
    console.print(f"{policy}: " + ("learns again" if off else f"frozen, the {serve} serves"), highlight=False)
