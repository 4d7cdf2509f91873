"""A person's layer of a language policy, for commands that can speak of one: ``--user NAME``.

Who owns a layer is told to nobody who does not name them: in a finding about all layers each has the first letters of
its mark.
"""

from collections.abc import Iterator
from typing import Annotated

import typer

from dayjob.cli.output import again, find_policy
from dayjob.endings import Invalid, NotFound, PolicyKind, VersionStatus
from dayjob.journal.control import Control
from dayjob.journal.layers import address_of, is_personal, layers, policy_of

UserOption = Annotated[str | None, typer.Option(help="Of this person's own adapter of a language policy.")]
MARK_CHARS = 8


def layer_of(control: Control, tenant: str, policy: str, *, user: str | None) -> str:
    """The address of a policy, or of a person's layer of it. Raises NotFound where there is none, Invalid for a
    ranker."""
    found = find_policy(control, tenant, policy)
    if user is None:
        return policy
    if found.kind is not PolicyKind.LANGUAGE:
        raise Invalid(f"policy {policy!r} is a ranker, which everybody shares: leave out --user")
    address = address_of(control, tenant, policy, user)
    if address not in layers(control, tenant, policy):
        begin = again(f"learn --policy {policy} --user NAME", control.root, tenant=tenant)
        raise NotFound(f"this person has no adapter of policy {policy!r}: {begin} begins one")
    return address


def everyones(control: Control, tenant: str, address: str) -> str | None:
    """The tenant's version that answers the owner of a layer, where nothing of their own does; else None."""
    if not is_personal(address):
        return None
    pointers = control.pointers(tenant, address)
    has_own = pointers.champion != pointers.baseline and pointers.frozen != "baseline"
    return None if has_own else control.pointers(tenant, policy_of(address)).champion


def title(address: str) -> str:
    """What to call a layer without its owner's name."""
    policy, _, mark = address.partition("/")
    return f"{policy} (a person's layer, {mark[:MARK_CHARS]})" if mark else policy


def adapters(control: Control, user: str) -> Iterator[tuple[str, str]]:
    """(policy, how a person's adapter of it stands) of every language policy."""
    for policy in control.policies():
        if policy.kind is not PolicyKind.LANGUAGE:
            continue
        tenant, address = policy.tenant, address_of(control, policy.tenant, policy.name, user)
        if address not in layers(control, tenant, policy.name):
            yield policy.name, "none: the tenant's versions answer"
            continue
        pointers = control.pointers(tenant, address)
        versions = [one for one in control.versions(tenant, address) if one.number]
        waiting = sum(one.status is VersionStatus.WAITING for one in versions)
        answers = everyones(control, tenant, address)
        who = f"{pointers.champion} answers" if answers is None else f"the tenant's {answers} answers"
        frozen = f", frozen ({pointers.frozen})" if pointers.frozen else ""
        yield policy.name, f"{who}, {len(versions)} versions, {waiting} waiting{frozen}"
