"""/v1/policies/{name}/dream and /dreams: asking for a dream, and what became of those there were.

What is told of a dream holds names, digests, reasons and figures, and no word of anybody's.
"""

import asyncio

from starlette.responses import Response

from dayjob.endings import JobState, NotFound
from dayjob.journal.jobs import dream_recipe, get_job, request_job
from dayjob.journal.layers import address_of
from dayjob.journal.plain import iso
from dayjob.records import Json
from dayjob.serve.adapters import asked_limit, asked_user, language_only
from dayjob.serve.call import Call, answer
from dayjob.serve.policies import asked_for
from dayjob.serve.wire import DreamRequest, parse

MOST_DREAMS = 100
USUAL = 10
SERIES = "dreams"  # `cli.dreaming` appends to it


async def dream(call: Call) -> Response:
    """Ask for a rehearsal: of a ranker, of a language policy's layer (the tenant's, or a person's); the same job while
    one runs."""
    policy = call.hub.declared(call.tenant, call.path("name"))
    request = parse(DreamRequest, call.body)
    recipe = dream_recipe(request.budget or call.service.settings.dream_budget)
    return await asked_for(call, policy, request.user, recipe=recipe, of_all=request_job)


async def list_dreams(call: Call) -> Response:
    """The dreams of the tenant's layer, or of a person's, newest first."""
    policy, user = call.path("name"), asked_user(call)
    language_only(call, policy)
    limit = asked_limit(call, most=MOST_DREAMS, usual=USUAL)
    return await asyncio.to_thread(_dreams, call, policy, user, limit=limit)


def _dreams(call: Call, policy: str, user: str | None, *, limit: int) -> Response:
    control, tenant = call.hub.control, call.tenant
    address = address_of(control, tenant, policy, user)
    told: dict[str, Json] = {}
    for point in control.series(tenant, address, SERIES, limit=2 * MOST_DREAMS):
        told.pop(point["job"], None)  # one that was taken up again: what it said last counts, and its place
        told[point["job"]] = point
    newest = list(told.values())[::-1][:limit]
    return answer({"dreams": [_told(call, tenant, address, point) for point in newest]})


def _told(call: Call, tenant: str, address: str, point: Json) -> Json:
    """One dream, with what its job made of it."""
    control = call.hub.control
    try:
        job = get_job(control, tenant, point["job"])
    except NotFound:
        job = None
    result = (None if job is None else job.result) or {}
    version = result.get("challenger")
    exam = None if version is None else control.state(tenant, address, f"exam/{version}")
    failed = job is not None and job.state is JobState.FAILED
    return point | {
        "at": iso(point["at_ms"]),
        "version": version,
        "status": None if version is None else control.version(tenant, address, version).status.value,
        "reason": str(job.error) if failed and job else str(result.get("reason") or ""),
        "transferred": None if exam is None else _transferred(exam),
    }


def _transferred(exam: Json) -> Json:
    """Real questions that the gate alone reads: how many are right by what served, and by the dream's version."""
    questions = exam.get("questions", ())
    return {
        "questions": len(questions),
        "right_before": sum(bool(one["right_before"]) for one in questions),
        "right_after": sum(bool(one["right_after"]) for one in questions),
    }
