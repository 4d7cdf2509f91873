"""Exports, and what a person may see, silence and erase."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import islice

import orjson
from pydantic import TypeAdapter, ValidationError
from starlette.responses import Response, StreamingResponse

from dayjob.endings import Forbidden, Invalid, PolicyKind
from dayjob.journal.plain import decision_view, outcome_view, whole_decision_view
from dayjob.journal.readers import START
from dayjob.journal.steering import drop_tainted, taint
from dayjob.records import Json
from dayjob.serve.auth import Scope, speaks_for
from dayjob.serve.call import JSON, NDJSON, Call, answer
from dayjob.serve.fields import Name
from dayjob.serve.wire import UserPatch, parse

NAME: TypeAdapter[str] = TypeAdapter(Name)
AT_ONCE = 50  # records of a person in one piece of the answer
FORMATS = ("chat", "preference", "openai-dpo", "decisions")


async def export(call: Call) -> Response:
    """A policy's decisions with their outcomes as NDJSON, oldest first."""
    policy, wanted = call.query("policy"), call.query("format") or "decisions"
    if policy is None:
        raise Invalid("name the policy to export: ?policy=NAME", param="policy")
    kind = call.hub.declared(call.tenant, policy).kind
    if wanted not in FORMATS:
        raise Invalid(f"there is no format {wanted!r}: use one of {', '.join(FORMATS)}", param="format")
    if wanted != "decisions":
        why = f"{wanted!r} needs a language policy" if kind is PolicyKind.RANKER else f"{wanted!r} is not built yet"
        raise Invalid(f"export it as format=decisions: {why}", param="format")
    return StreamingResponse(_lines(call, policy), media_type=NDJSON)


async def _lines(call: Call, policy: str) -> AsyncIterator[bytes]:
    cursor, until = START, await asyncio.to_thread(call.hub.reader.last_seq)  # what is written meanwhile is left out
    while True:
        page, cursor = await asyncio.to_thread(call.hub.reader.decisions, call.tenant, policy, cursor=cursor)
        page = [stored for stored in page if stored.seq <= until]
        if not page:
            return
        outcomes = await asyncio.to_thread(call.hub.reader.outcomes, call.tenant, page)
        rows = (decision_view(stored, outcomes.get(stored.record.id, [])) for stored in page)
        yield b"".join(orjson.dumps(row) + b"\n" for row in rows)


def _person(call: Call) -> str:
    named = call.path("user")
    try:
        NAME.validate_python(named)
    except ValidationError:
        raise Invalid(
            "a person's name is 1 to 256 characters, none of them a control character", param="user"
        ) from None
    user = speaks_for(call.principal, named)
    assert user is not None, "the path always names one"
    return user


def _own(call: Call) -> str:
    """The person whose whole record is asked for or erased. Raises Forbidden unless the key is theirs or an admin's."""
    if call.principal.user is None and Scope.ADMIN not in call.principal.scopes:
        raise Forbidden(
            "this key speaks for anybody: to see or erase a person, use their own key or one of scope admin"
        )
    return _person(call)


async def get_user(call: Call) -> Response:
    """All that is held about a person, and what learned from them."""
    user = _own(call)
    return StreamingResponse(_held(call, user), media_type=JSON)


async def _held(call: Call, user: str) -> AsyncIterator[bytes]:
    """The answer piece by piece, so that no record is too long for memory."""
    hub, head = call.hub, await asyncio.to_thread(_head, call, user)
    dims = {policy.name: int(policy.spec.get("context_dim", 0)) for policy in hub.control.policies(call.tenant)}
    decisions, outcomes = hub.reader.of_user(call.tenant, user)
    seen = {"decisions": 0, "outcomes": 0}
    parts: tuple[tuple[str, Iterator[Json]], ...] = (
        ("decisions", (whole_decision_view(one, dims[one.record.policy]) for one in decisions)),
        ("outcomes", (outcome_view(one.record) for one in outcomes)),
    )
    yield orjson.dumps(head)[:-1] + b',"held":{'
    for name, views in parts:
        yield (b"," if name == "outcomes" else b"") + f'"{name}":['.encode()
        while some := await asyncio.to_thread(_some, views):
            yield (b"," if seen[name] else b"") + orjson.dumps(some)[1:-1]
            seen[name] += len(some)
        yield b"]"
    yield b"}," + orjson.dumps(seen)[1:]


def _some(views: Iterator[Json]) -> list[Json]:
    return list(islice(views, AT_ONCE))


def _head(call: Call, user: str) -> Json:
    control = call.hub.control
    taught = [f"{policy}/{version}" for policy, version in _taught(call, user)]
    return {"user": user, "learn": control.learns(call.tenant, user), "versions": taught}


def _taught(call: Call, user: str) -> list[tuple[str, str]]:
    control = call.hub.control
    return control.taught_by(call.tenant, control.mark_of(call.tenant, user))


async def patch_user(call: Call) -> Response:
    """``learn: false``: served, but never learned from."""
    user = _person(call)
    wish = parse(UserPatch, call.body)
    await asyncio.to_thread(call.hub.control.set_learns, call.tenant, user, wish.learn)
    await asyncio.to_thread(call.hub.refresh)
    return answer({"user": user, "learn": wish.learn})


async def delete_user(call: Call) -> Response:
    """Erase a person: rows at once, and every version that learned from them by the next night."""
    user, hub = _own(call), call.hub
    # Tainted before the rows go: killed in between, a version that learned from the person is out all the same.
    taught = await asyncio.to_thread(_taught, call, user)
    before = [hub.control.pointers(call.tenant, policy) for policy in sorted({policy for policy, _ in taught})]
    await asyncio.to_thread(taint, hub.control, call.tenant, taught)
    counts = await asyncio.wrap_future(hub.store.erase_user(call.tenant, user))
    late = sorted({*await asyncio.to_thread(_taught, call, user)} - {*taught})  # a night may have ended in between
    await asyncio.to_thread(taint, hub.control, call.tenant, late)
    taught = sorted([*taught, *late])
    await asyncio.wrap_future(hub.store.scrub())
    await asyncio.to_thread(drop_tainted, hub.control)
    await asyncio.to_thread(hub.control.forget, call.tenant, user)
    await asyncio.to_thread(hub.refresh)
    return answer(
        {
            "user": user,
            "decisions": counts["decisions"],
            "outcomes": counts["outcomes"] + counts["held"],
            "versions_tainted": [f"{policy}/{version}" for policy, version in taught],
            "trials_ended": [f"{at.policy}/{at.challenger}" for at in before if (at.policy, at.challenger) in taught],
            "rebuilding": [at.policy for at in before if (at.policy, at.champion) in taught],
            "learn": hub.control.learns(call.tenant, user),
        }
    )
