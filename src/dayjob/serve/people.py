"""Exports, and what a person may see, silence and erase."""

import asyncio
from collections.abc import AsyncIterator

import orjson
from pydantic import TypeAdapter, ValidationError
from starlette.responses import Response, StreamingResponse

from dayjob.endings import Invalid
from dayjob.journal.plain import decision_view, outcome_view
from dayjob.journal.readers import START
from dayjob.journal.steering import taint
from dayjob.serve.auth import speaks_for
from dayjob.serve.call import NDJSON, Call, answer
from dayjob.serve.fields import Name
from dayjob.serve.wire import UserPatch, parse

NAME: TypeAdapter[str] = TypeAdapter(Name)
FORMATS = ("chat", "preference", "openai-dpo", "decisions")


async def export(call: Call) -> Response:
    """A policy's decisions with their outcomes as NDJSON, oldest first."""
    policy, wanted = call.query("policy"), call.query("format") or "decisions"
    if policy is None:
        raise Invalid("name the policy to export: ?policy=NAME", param="policy")
    call.hub.of(call.tenant, policy)
    if wanted not in FORMATS:
        raise Invalid(f"there is no format {wanted!r}: use one of {', '.join(FORMATS)}", param="format")
    if wanted != "decisions":
        raise Invalid(f"a ranker exports as format=decisions; {wanted!r} needs a language policy", param="format")
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


async def get_user(call: Call) -> Response:
    """All that is held about a person, and what learned from them."""
    user = _person(call)
    taught = await _taught(call, user)
    return await asyncio.to_thread(_held, call, user, taught)


def _held(call: Call, user: str, taught: list[tuple[str, str]]) -> Response:
    decisions, outcomes = call.hub.reader.of_user(call.tenant, user)
    return answer(
        {
            "user": user,
            "learn": call.hub.control.learns(call.tenant, user),
            "decisions": len(decisions),
            "outcomes": len(outcomes),
            "versions": [f"{policy}/{version}" for policy, version in taught],
            "held": {
                "decisions": [decision_view(stored, []) for stored in decisions],
                "outcomes": [outcome_view(stored.record) for stored in outcomes],
            },
        }
    )


async def _taught(call: Call, user: str) -> list[tuple[str, str]]:
    mark = await call.hub.store.asubmit(lambda tx: tx.mark(call.tenant, "user", user))
    return call.hub.control.taught_by(call.tenant, mark)


async def patch_user(call: Call) -> Response:
    """``learn: false``: served, but never learned from."""
    user = _person(call)
    wish = parse(UserPatch, call.body)
    await asyncio.to_thread(call.hub.control.set_learns, call.tenant, user, wish.learn)
    await asyncio.to_thread(call.hub.refresh)
    return answer({"user": user, "learn": wish.learn})


async def delete_user(call: Call) -> Response:
    """Erase a person: rows at once, and every version that learned from them by the next night."""
    user, hub = _person(call), call.hub
    # Tainted before the rows go: killed in between, a version that learned from the person is out all the same.
    taught = await _taught(call, user)
    await asyncio.to_thread(taint, hub.control, call.tenant, taught)
    counts = await asyncio.wrap_future(hub.store.erase_user(call.tenant, user))
    late = sorted({*await _taught(call, user)} - {*taught})  # a night may have ended in between
    await asyncio.to_thread(taint, hub.control, call.tenant, late)
    taught = sorted([*taught, *late])
    await asyncio.wrap_future(hub.store.scrub())
    await asyncio.to_thread(hub.control.forget, call.tenant, user)
    await asyncio.to_thread(hub.refresh)
    return answer(
        {
            "user": user,
            "decisions": counts["decisions"],
            "outcomes": counts["outcomes"] + counts["held"],
            "versions_tainted": [f"{policy}/{version}" for policy, version in taught],
        }
    )
