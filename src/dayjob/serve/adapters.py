"""Whose layer of a language policy a request is about, and how a person's stands."""

from pydantic import TypeAdapter, ValidationError

from dayjob.endings import Invalid, JobState, NotFound, PolicyKind, VersionStatus
from dayjob.journal.jobs import unfinished
from dayjob.journal.layers import address_of
from dayjob.records import Json
from dayjob.serve.auth import speaks_for
from dayjob.serve.call import Call
from dayjob.serve.fields import Name
from dayjob.serve.views import verdict_view

NAME: TypeAdapter[str] = TypeAdapter(Name)


def person(call: Call, named: str) -> str:
    """The person that a path or a query names. Raises Invalid for what is no name, Forbidden where the key may not
    speak for them."""
    try:
        NAME.validate_python(named)
    except ValidationError:
        raise Invalid(
            "a person's name is 1 to 256 characters, none of them a control character", param="user"
        ) from None
    user = speaks_for(call.principal, named)
    assert user is not None, "somebody was named"
    return user


def language_only(call: Call, policy: str) -> None:
    """Raises NotFound where there is no such policy, Invalid where it is a ranker."""
    if call.hub.declared(call.tenant, policy).kind is not PolicyKind.LANGUAGE:
        raise Invalid(f"policy {policy!r} is a ranker: this is for language policies", param="policy")


def asked_user(call: Call) -> str | None:
    """The person in the query, else the key's own, if any. Raises as `person` does."""
    named = call.query("user")
    return person(call, named) if named else call.principal.user


def asked_limit(call: Call, *, most: int, usual: int) -> int:
    """How many are asked for in the query. Raises Invalid."""
    text = call.query("limit")
    if not text:
        return usual
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most):
        raise Invalid(f"limit is a whole number from 1 to {most}", param="limit")
    return int(text)


def persons_layer(call: Call, policy: str, user: str) -> str:
    """The address of a person's layer. Raises NotFound where they have none, Invalid for a ranker."""
    language_only(call, policy)
    address = address_of(call.hub.control, call.tenant, policy, user)
    try:
        call.hub.control.pointers(call.tenant, address)
    except NotFound:
        raise NotFound(
            f"this person has no adapter of policy {policy!r}: POST /v1/policies/{policy}/learn with their name as "
            "user begins one"
        ) from None
    return address


def adapter_view(call: Call, policy: str, user: str) -> Json | None:
    """A person's layer as it stands; None where they have none."""
    control = call.hub.control
    address = address_of(control, call.tenant, policy, user)
    try:
        pointers = control.pointers(call.tenant, address)
    except NotFound:
        return None
    versions = [version for version in control.versions(call.tenant, address) if version.number > 0]
    verdicts = control.verdicts(call.tenant, address, limit=1)
    waiting = [version.name for version in versions if version.status is VersionStatus.WAITING]
    jobs = [job for job in unfinished(control) if (job.tenant, job.policy) == (call.tenant, address)]
    jobs.sort(key=lambda job: job.state is not JobState.RUNNING)  # the oldest of those at work, else of those queued
    return {
        "user": user,
        "champion": pointers.champion,
        "previous": pointers.previous,
        "challenger": pointers.challenger or (waiting[-1] if waiting else None),
        "baseline": pointers.baseline,
        "newest": versions[-1].name if versions else None,
        "status": (versions[-1].status if versions else VersionStatus.BASELINE).value,
        "last_verdict": verdict_view(verdicts[-1]) if verdicts else None,
        "job": jobs[0].id if jobs else None,
    }


def serving(call: Call, policy: str, user: str | None) -> str:
    """The version that answers a person now (without one: those who have nothing of their own), if it loads."""
    spoken = call.hub.spoken[call.tenant, policy]
    if spoken.frozen == "baseline":
        return spoken.pointers.baseline
    if user is not None:
        try:
            own = call.hub.control.pointers(call.tenant, address_of(call.hub.control, call.tenant, policy, user))
        except NotFound:
            return spoken.pointers.champion
        if own.champion != own.baseline and own.frozen != "baseline":
            return own.champion
    return spoken.pointers.champion
