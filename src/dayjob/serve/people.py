"""What a person may see, silence and erase."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import suppress
from itertools import islice

import orjson
from starlette.responses import Response, StreamingResponse

from dayjob.endings import NotFound
from dayjob.journal.layers import policy_of, withdraw
from dayjob.journal.plain import outcome_view, whole_decision_view
from dayjob.journal.steering import drop_tainted, taint
from dayjob.records import Json, Pointers
from dayjob.serve.adapters import person
from dayjob.serve.call import JSON, Call, answer
from dayjob.serve.wire import UserPatch, parse

AT_ONCE = 50  # records of a person in one piece of the answer


async def get_user(call: Call) -> Response:
    """All that is held about a person, and what learned from them."""
    user = person(call, call.path("user"))
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
    return {"user": user, "learn": control.learns(call.tenant, user), "versions": _named(_taught(call, user))}


def _named(versions: Iterable[tuple[str, str]]) -> list[str]:
    """Versions, as (address, name), for people: by their policy, whosever layer it is."""
    return sorted({f"{policy_of(address)}/{name}" for address, name in versions})


def _taught(call: Call, user: str) -> list[tuple[str, str]]:
    control = call.hub.control
    return control.taught_by(call.tenant, control.mark_of(call.tenant, user))


async def patch_user(call: Call) -> Response:
    """``learn: false``: served, but never learned from."""
    user = person(call, call.path("user"))
    wish = parse(UserPatch, call.body)
    await asyncio.to_thread(call.hub.control.set_learns, call.tenant, user, wish.learn)
    await asyncio.to_thread(call.hub.refresh)
    return answer({"user": user, "learn": wish.learn})


async def delete_user(call: Call) -> Response:
    """Erase a person: rows and what is theirs alone at once, every other version that learned from them by the next
    night."""
    user, hub = person(call, call.path("user")), call.hub
    # Tainted before the rows go: killed in between, a version that learned from the person is out all the same.
    taught = await asyncio.to_thread(_taught, call, user)
    before = await asyncio.to_thread(_pointers, call, {address for address, _ in taught})
    gone = await asyncio.to_thread(withdraw, hub.control, hub.root, call.tenant, user)
    await asyncio.to_thread(taint, hub.control, call.tenant, taught)
    counts = await asyncio.wrap_future(hub.store.erase_user(call.tenant, user))
    # A night may have ended, or begun, in between.
    gone += await asyncio.to_thread(withdraw, hub.control, hub.root, call.tenant, user)
    late = sorted({*await asyncio.to_thread(_taught, call, user)} - {*taught})
    await asyncio.to_thread(taint, hub.control, call.tenant, late)
    await call.service.voices.forget(call.tenant, user, gone)
    others = {*taught, *late} - {*gone}
    await asyncio.wrap_future(hub.store.scrub())
    await asyncio.to_thread(drop_tainted, hub.control)
    await asyncio.to_thread(hub.control.forget, call.tenant, user)
    await asyncio.to_thread(hub.refresh)
    return answer(
        {
            "user": user,
            "decisions": counts["decisions"],
            "outcomes": counts["outcomes"] + counts["held"],
            "adapters_withdrawn": _named(gone),
            "versions_tainted": _named(others),
            "trials_ended": _named(
                (at.policy, str(at.challenger)) for at in before if (at.policy, at.challenger) in others
            ),
            "rebuilding": sorted({policy_of(at.policy) for at in before if (at.policy, at.champion) in others}),
            "learn": hub.control.learns(call.tenant, user),
        }
    )


def _pointers(call: Call, addresses: Iterable[str]) -> list[Pointers]:
    found = []
    for address in sorted(addresses):
        with suppress(NotFound):  # a layer that was withdrawn just now
            found.append(call.hub.control.pointers(call.tenant, address))
    return found
