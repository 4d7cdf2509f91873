"""The pages of language policies: Talk, the mornings after its nights, its conversations, and the policy itself.

What these pages show of people comes from the routes of the wire contract, asked by the page's own scripts with the
login's key: a page shows nobody what the key may not read. Words stand in the templates; what people or models wrote is
only ever set as text.
"""

from starlette.responses import Response

from dayjob.endings import NotFound, PolicyKind
from dayjob.journal.jobs import unfinished
from dayjob.journal.layers import is_personal, layers, policy_of
from dayjob.records import Job, Json
from dayjob.serve.auth import Principal, Scope
from dayjob.serve.call import Call
from dayjob.serve.curves import thin
from dayjob.serve.page_frame import health, overview, page, show


async def talk(call: Call) -> Response:
    """Chat as any of several people, correct, sleep, and see what stands in the context and in the weights."""
    return await show(call, _talk, scope=Scope.INFER)


async def mornings(call: Call) -> Response:
    """What each night changed, which correction did it, and what it cost elsewhere."""
    return await show(call, _mornings)


async def dreams(call: Call) -> Response:
    """What was dreamt: environments admitted and rejected, pass rates before and after, what transferred."""
    return await show(call, _dreams)


async def conversations(call: Call) -> Response:
    """What was said, by which version, with which notes, and what came of it."""
    return await show(call, _conversations)


def _talk(call: Call, principal: Principal) -> Response:
    return page("talk.html", **_spoken(call, principal, call.path("policy")))


def _mornings(call: Call, principal: Principal) -> Response:
    return page("mornings.html", **_spoken(call, principal, call.path("name")))


def _dreams(call: Call, principal: Principal) -> Response:
    budget = call.service.settings.dream_budget
    return page("dreams.html", **_spoken(call, principal, call.path("name")), budget=budget)


def _conversations(call: Call, principal: Principal) -> Response:
    return page("conversations.html", **_spoken(call, principal, call.path("name")))


def _spoken(call: Call, principal: Principal, name: str) -> Json:
    """What every page of a language policy knows. Raises NotFound, also for a ranker."""
    view = overview(call, principal.tenant, name)
    if view["kind"] != PolicyKind.LANGUAGE.value:
        raise NotFound(f"{name} is a ranker: only language policies are talked to")
    every = Scope.ADMIN in principal.scopes
    return {
        "p": view,
        "health": health(call, principal.tenant),
        "keys": bool(call.service.keys),
        "user": principal.user or "",
        "may": [scope.value for scope in Scope if every or scope in principal.scopes],
    }


def language_policy(call: Call, tenant: str, *, shared: Json) -> Response:
    """The policy's own page; ``shared``: what the page of any policy shows."""
    control, name = call.hub.control, shared["p"]["name"]
    exams = (
        (one.name, control.state(tenant, name, f"exam/{one.name}")) for one in control.versions(tenant, name)[::-1]
    )
    examined, exam = next(((version, found) for version, found in exams if found is not None), ("", None))
    return page(
        "language.html",
        **shared,
        examined=examined,
        exam=exam,
        people=len(layers(control, tenant, name)),
        nights=_persons_jobs(call, tenant, name),
        trials=thin(control.series(tenant, name, "trial"), name="trial"),
    )


def _persons_jobs(call: Call, tenant: str, name: str) -> list[Job]:
    """The nights and dreams of people's own weights that are not over, oldest first; whose they are is not shown."""
    jobs = unfinished(call.hub.control)
    return [job for job in jobs if job.tenant == tenant and is_personal(job.policy) and policy_of(job.policy) == name]
