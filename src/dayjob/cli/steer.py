"""dayjob versions, rollback, freeze: steering a data directory by hand, with or without a server."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dayjob.cli.layers import UserOption, everyones, layer_of
from dayjob.cli.output import (  # fmt: skip
    DataOption,
    JsonOption,
    PolicyArgument,
    TenantOption,
    again,
    data_of,
    existing,
    print_json,
)
from dayjob.endings import Invalid, NotFound
from dayjob.journal.control import Control
from dayjob.journal.layers import frozen_of
from dayjob.journal.steering import roll_back
from dayjob.records import Json, Pointers, Version


def open_control(data: Path | None) -> Control:
    """The control store of an existing data directory. Raises Invalid when there is none."""
    return Control(existing(data_of(data)))


def versions(
    policy: PolicyArgument, data: DataOption = None, tenant: TenantOption = "default", user: UserOption = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """List a policy's versions with their lineage."""
    control = open_control(data)
    layer = layer_of(control, tenant, policy, user=user)
    rows, pointers = control.versions(tenant, layer), control.pointers(tenant, layer)
    frozen = frozen_of(control, tenant, layer)
    answers = everyones(control, tenant, layer)
    now = serves(pointers, frozen=frozen) if answers is None else ""
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
    said = "* serves now" if answers is None else f"the tenant's {answers} answers this person"
    console.print(said + (" (frozen)" if frozen else ""), highlight=False)


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
    user: UserOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put an earlier version back. Works with the server running, or dead, and on a full disk."""
    control = open_control(data)
    layer = layer_of(control, tenant, policy, user=user)
    pointers = control.pointers(tenant, layer)
    known = [version.name for version in control.versions(tenant, layer)]
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
    now = _answering(control, tenant, layer) or f"{target} serves"
    console.print(f"{_whose(policy, user)}: {pointers.champion} is withdrawn, {now}", highlight=False, markup=False)
    if untold is not None:
        console.print(untold, highlight=False, markup=False)


def freeze(
    policy: PolicyArgument,
    data: DataOption = None,
    tenant: TenantOption = "default",
    serve: Annotated[str, typer.Option(help="What serves while frozen: champion or baseline.")] = "champion",
    off: Annotated[bool, typer.Option("--off", help="Learn again.")] = False,
    user: UserOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stop learning and trials of a policy, or start them again; with a person, of their adapter alone: the baseline is
    then what answers everybody."""
    if serve not in ("champion", "baseline"):
        raise Invalid(f"--serve takes champion or baseline, not {serve!r}")
    control = open_control(data)
    layer = layer_of(control, tenant, policy, user=user)
    control.move(tenant, layer, change={"frozen": "" if off else serve})
    frozen = frozen_of(control, tenant, layer)
    if as_json:
        told = {} if user is None else {"user": user}
        print_json({"policy": policy, **told, "frozen": bool(frozen), "serves": frozen or "champion"})
        return
    console, whose = Console(soft_wrap=True), _whose(policy, user)
    if off and frozen:
        path = control.root / "freeze"
        whole = again(f"freeze {policy} --off", control.root, tenant=tenant)
        by = f"the file {path}: remove it" if control.freeze_file() else f"the policy's own freeze: {whole}"
        console.print(f"{whose}: still frozen, by {by} to learn again", highlight=False, markup=False)
        return
    now = _answering(control, tenant, layer) or f"the {serve} serves"
    console.print(f"{whose}: " + ("learns again" if off else f"frozen, {now}"), highlight=False, markup=False)


def _whose(policy: str, user: str | None) -> str:
    return policy if user is None else f"{policy}, adapter of {user}"


def _answering(control: Control, tenant: str, layer: str) -> str:
    """Who answers a person whose layer has nothing that serves; "" where something of its own does."""
    answers = everyones(control, tenant, layer)
    return "" if answers is None else f"the tenant's {answers} answers this person"
