"""What commands share: their common options, JSON on standard output, and finding what they were told to work on."""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from dayjob.config import load_config
from dayjob.endings import Invalid, NotFound
from dayjob.journal.control import Control
from dayjob.records import Policy

DataOption = Annotated[Path | None, typer.Option(help="The data directory.")]
PolicyArgument = Annotated[str, typer.Argument(help="The policy.")]
TenantOption = Annotated[str, typer.Option(help="The tenant.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n")
    sys.stdout.flush()


def data_of(flag: Path | None) -> Path:
    """The data directory that flag, environment and file name together; it may not exist yet."""
    return load_config(flags={"data": flag}, environ=os.environ, directory=Path.cwd()).config.data


def again(command: str, data: Path, *, tenant: str = "default") -> str:
    """A command to be run on the same data directory and tenant, as it can be typed."""
    whose = "" if tenant == "default" else f" --tenant {shlex.quote(tenant)}"
    return f"dayjob {command} --data {shlex.quote(str(data))}{whose}"


def existing(data: Path) -> Path:
    """The same directory where it holds something of dayjob's. Raises Invalid when there is nothing."""
    if not data.exists():
        raise Invalid(f"there is no {data}: name the data directory with --data (the one that `dayjob serve` uses)")
    if not (data / "control.db").exists():
        raise Invalid(f"{data} is no data directory of dayjob's: name the one that `dayjob serve` uses with --data")
    return data


def find_policy(control: Control, tenant: str, name: str) -> Policy:
    """One policy. Raises NotFound, naming those that there are."""
    known = control.policies()
    for policy in known:
        if (policy.tenant, policy.name) == (tenant, name):
            return policy
    own = sorted(policy.name for policy in known if policy.tenant == tenant)
    if own:
        raise NotFound(f"there is no policy {name!r}: there is {', '.join(own)}")
    tenants = sorted({policy.tenant for policy in known})
    if tenants:
        raise NotFound(f"tenant {tenant!r} has no policy: name one of {', '.join(tenants)} with --tenant")
    raise NotFound(f"there is no policy {name!r}, nor any other: declare it with PUT /v1/policies/{name}")
