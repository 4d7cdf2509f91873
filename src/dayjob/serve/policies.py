"""/v1/policies: declaring, describing, teaching and steering policies."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

from starlette.responses import Response

from dayjob.endings import Conflict, Invalid, PolicyKind, VersionStatus
from dayjob.journal import vectors
from dayjob.journal.jobs import get_job, no_job, request_job
from dayjob.journal.layers import frozen_of, is_personal, open_layer, owner_of, request_nights
from dayjob.journal.plain import iso
from dayjob.journal.steering import check_may_serve, override, roll_back
from dayjob.journal.writes import put_catalog as write_catalog
from dayjob.records import CatalogItem, Job, Json, Policy, Version
from dayjob.serve.adapters import adapter_view, asked_user, person, persons_layer
from dayjob.serve.auth import speaks_for
from dayjob.serve.call import Call, answer
from dayjob.serve.fields import POLICY_NAME_PATTERN
from dayjob.serve.live import UNTOLD, Declared
from dayjob.serve.views import policy_view, verdict_view, version_view
from dayjob.serve.wire import (
    FreezeRequest,
    LanguageSpec,
    LearnRequest,
    PromoteRequest,
    RollbackRequest,
    parse,
    parse_catalog,
    parse_policy_spec,
)  # fmt: skip

OfAll = Callable[..., Job]  # (control, tenant, policy, *, recipe)
FIXED = ("kind", "context_dim", "candidate_dim", "pair_dim", "base")
BASELINE_DIGEST = "0" * 64


async def put_policy(call: Call) -> Response:
    """Declare a policy, or change its settings; its kind and dimensions never change."""
    name = call.path("name")
    spec = parse_policy_spec(call.body)
    known = {policy.name: policy for policy in call.hub.control.policies(call.tenant)}
    if name in known and known[name].kind.value != spec.kind:
        raise Conflict(f"policy {name!r} exists as a {known[name].kind.value}: its kind cannot change; use a new name")
    _check_name(name)
    if isinstance(spec, LanguageSpec):
        _check_base(call, spec)
    check_recipe(call, PolicyKind(spec.kind), recipe=spec.recipe)
    declared: Json = spec.model_dump(mode="json")
    if name in known:
        old = known[name].spec
        changed = [field for field in FIXED if old.get(field) != declared.get(field)]
        if changed:
            raise Conflict(
                f"policy {name!r} exists with {changed[0]} = {old.get(changed[0])!r}: it cannot change; use a new name"
            )
        await asyncio.to_thread(call.hub.control.update_spec, call.tenant, name, declared)
    else:
        now_ms = call.hub.now_ms()
        policy = Policy(tenant=call.tenant, name=name, kind=PolicyKind(spec.kind), spec=declared, created_ms=now_ms)
        if not await asyncio.to_thread(call.hub.control.create_policy, policy, _baseline(policy)):
            return await put_policy(call)  # somebody declared it just now: theirs was first
    await asyncio.to_thread(call.hub.refresh)
    return answer(policy_view(call.hub, call.tenant, name), 200 if name in known else 201)


def _check_name(name: str) -> None:
    if not re.fullmatch(POLICY_NAME_PATTERN, name):
        raise Invalid(
            f"{name[:64]!r} cannot name a policy: use letters a to z, A to Z, digits, and . - _ after the first, 64 at "
            "most (no space, no slash)",
            param="name",
        )


def _check_base(call: Call, spec: LanguageSpec) -> None:
    bases = call.service.voices.bases
    if not bases:
        raise Invalid(
            "this server has no language engine configured: declare a ranker, or name a base in dayjob.toml: "
            f'[bases.{spec.base}] with path = "FOLDER", then restart it',
            param="base",
        )
    if spec.base not in bases:
        known = ", ".join(bases)
        raise Invalid(f"there is no base {spec.base!r}: use one of {known}, or add it to dayjob.toml", param="base")


def check_recipe(call: Call, kind: PolicyKind, *, recipe: str) -> None:
    """Raises Invalid for a recipe that there is not for policies of that kind."""
    ranks = kind is PolicyKind.RANKER
    recipes = call.service.recipes if ranks else call.service.language_recipes
    if recipe not in recipes:
        what = "rankers" if ranks else "language policies"
        raise Invalid(f"there is no recipe {recipe!r} for {what}: use one of {', '.join(recipes)}", param="recipe")


def _baseline(policy: Policy) -> Version:
    return Version(
        tenant=policy.tenant, policy=policy.name, name="v0-baseline", number=0, parent=None, recipe="baseline",
        digest=BASELINE_DIGEST, from_seq=0, to_seq=0, status=VersionStatus.BASELINE, created_ms=policy.created_ms,
    )  # fmt: skip


async def list_policies(call: Call) -> Response:
    """Every policy of the tenant."""
    names = [policy.name for policy in call.hub.control.policies(call.tenant)]
    return answer({"policies": [policy_view(call.hub, call.tenant, name) for name in names]})


async def get_policy(call: Call) -> Response:
    """One policy as it stands; with ``user``, or a key of one person, with that person's adapter."""
    return answer(_view(call, asked_user(call)))


def _view(call: Call, user: str | None) -> Json:
    name = call.path("name")
    view = policy_view(call.hub, call.tenant, name)
    return view if user is None else view | {"adapter": adapter_view(call, name, user)}


async def put_catalog(call: Call) -> Response:
    """Replace a policy's catalog, whole or not at all."""
    name, hub = call.path("name"), call.hub
    live = hub.of(call.tenant, name)
    dim = int(live.serving.spec["candidate_dim"])
    items = await asyncio.to_thread(_packed, call.body, dim)
    count = await hub.store.asubmit(lambda tx: write_catalog(tx, call.tenant, name, items=items))
    await asyncio.to_thread(hub.reload_catalog, call.tenant, name)
    return answer({"items": count})


def _packed(body: bytes, dim: int) -> list[CatalogItem]:
    """The items of a catalog as sent. Raises Invalid, with the line, for what does not fit the policy."""
    numbers = [n for n, line in enumerate(body.split(b"\n"), start=1) if line.strip()]
    items = []
    for number, item in zip(numbers, parse_catalog(body), strict=True):
        if len(item.vector_D) != dim:
            raise Invalid(
                f"line {number}: features has {len(item.vector_D)} numbers, this policy declared {dim}: send as many",
                param="features",
            )
        items.append(CatalogItem(id=item.id, vector=vectors.pack(item.vector_D), meta=item.meta))
    return items


async def list_versions(call: Call) -> Response:
    """Every version with its lineage, oldest first; with ``user`` those of that person's adapter."""
    name, named = call.path("name"), call.query("user")
    call.hub.declared(call.tenant, name)
    layer = persons_layer(call, name, person(call, named)) if named else name
    return answer({"versions": [version_view(version) for version in call.hub.control.versions(call.tenant, layer)]})


async def learn(call: Call) -> Response:
    """Ask the learner for a new challenger; the same job while one runs."""
    policy = call.hub.declared(call.tenant, call.path("name"))
    request = parse(LearnRequest, call.body)
    recipe = request.recipe or str(policy.spec["recipe"])
    check_recipe(call, policy.kind, recipe=recipe)
    return await asked_for(call, policy, request.user, recipe=recipe, of_all=request_nights)


async def asked_for(call: Call, policy: Declared, asked: str | None, *, recipe: str, of_all: OfAll) -> Response:
    """A job for the path's policy, by ``recipe``; of a language policy, of the person's layer that was ``asked`` for
    or that the key speaks for, else ``of_all``."""
    name, user = call.path("name"), speaks_for(call.principal, asked)
    if policy.frozen:
        raise Conflict(f"policy {name!r} is frozen: POST /v1/policies/{name}/unfreeze first")
    if policy.kind is PolicyKind.LANGUAGE:
        call.service.voices.base(str(policy.spec["base"]))
        job = await asyncio.to_thread(_of_layer, call, name, user, recipe=recipe, of_all=of_all)
    elif asked is not None:
        raise Invalid(f"policy {name!r} is a ranker, which is everybody's: leave user out", param="user")
    else:
        job = await asyncio.to_thread(request_job, call.hub.control, call.tenant, name, recipe=recipe)
    return answer({"job": job.id}, 202)


def _of_layer(call: Call, name: str, user: str | None, *, recipe: str, of_all: OfAll) -> Job:
    control, tenant = call.hub.control, call.tenant
    if user is None:
        return of_all(control, tenant, name, recipe=recipe)
    if not control.learns(tenant, user):
        raise Conflict(
            'this person is served and not learned from: PATCH /v1/users/{user} {"learn": true} if they wish to be'
        )
    address = open_layer(control, tenant, name, user)
    if frozen_of(control, tenant, address):  # the job would wait, and nobody would say why
        raise Conflict(
            f"this person's adapter of policy {name!r} is frozen: on the server's machine, dayjob freeze {name} --user "
            "NAME --off lets it learn again"
        )
    return request_job(control, tenant, address, recipe=recipe)


async def read_job(call: Call) -> Response:
    """A job as it stands. Of another person's adapter, a key of one person learns nothing."""
    job = get_job(call.hub.control, call.tenant, call.path("job"))
    if call.principal.user is not None and is_personal(job.policy):
        owner = await asyncio.to_thread(owner_of, call.hub.control, call.tenant, job.policy)
        if owner != call.principal.user:
            raise no_job(job.id)
    return answer({"state": job.state.value, "progress": job.progress, "result": job.result, "error": job.error})


async def rollback(call: Call) -> Response:
    """Put an earlier version back in one row; the withdrawn one is never promoted by itself again."""
    control = call.hub.control
    request = parse(RollbackRequest, call.body)
    layer = _layer(call, request.user)
    pointers = control.pointers(call.tenant, layer)
    evidence = {"key_id": call.principal.key_id}
    _, untold = await asyncio.to_thread(lambda: roll_back(control, pointers, to=request.to, evidence=evidence))
    await _moved(call, layer)
    if untold is None:
        call.hub.damaged.pop(f"{call.tenant}/{layer}/{UNTOLD}", None)
    else:
        call.hub.damaged[f"{call.tenant}/{layer}/{UNTOLD}"] = untold
    return answer(_view(call, speaks_for(call.principal, request.user)))


async def promote(call: Call) -> Response:
    """Override the gate by hand; recorded as such, with the reason."""
    control = call.hub.control
    request = parse(PromoteRequest, call.body)
    layer = _layer(call, request.user)
    pointers = control.pointers(call.tenant, layer)
    version = control.version(call.tenant, layer, request.version)
    check_may_serve(version)
    if version.name != pointers.champion:
        evidence = {"key_id": call.principal.key_id}
        await asyncio.to_thread(
            lambda: override(control, pointers, version=version, reason=request.reason, evidence=evidence)
        )
        await _moved(call, layer)
    return answer(_view(call, speaks_for(call.principal, request.user)))


def _layer(call: Call, user: str | None) -> str:
    """The layer that a request steers: a person's only where it names them."""
    name = call.path("name")
    call.hub.declared(call.tenant, name)
    if user is None:
        return name
    return persons_layer(call, name, person(call, user))


async def _moved(call: Call, layer: str) -> None:
    """Follow pointers that were just moved."""
    if is_personal(layer):
        call.hub.unsay(call.tenant, layer)  # a person's are read anew for every answer
    else:
        await asyncio.to_thread(call.hub.refresh)


async def freeze(call: Call) -> Response:
    """Stop learning and trials; serve the champion or the baseline."""
    request = parse(FreezeRequest, call.body)
    return await _set_frozen(call, request.serve)


async def unfreeze(call: Call) -> Response:
    """Learn again."""
    return await _set_frozen(call, "")


async def _set_frozen(call: Call, frozen: str) -> Response:
    name = call.path("name")
    call.hub.declared(call.tenant, name)
    await asyncio.to_thread(lambda: call.hub.control.move(call.tenant, name, change={"frozen": frozen}))
    await asyncio.to_thread(call.hub.refresh)
    return answer(policy_view(call.hub, call.tenant, name))


async def report(call: Call) -> Response:
    """What the record says: feedback, bias, ceiling, learning, gate, drift."""
    name, control = call.path("name"), call.hub.control
    call.hub.declared(call.tenant, name)
    found = await asyncio.to_thread(control.state, call.tenant, name, "report")
    body: dict[str, Any] = EMPTY_REPORT | (found or {})
    made_ms = body.pop("made_ms", None)
    verdicts = [verdict_view(verdict) for verdict in control.verdicts(call.tenant, name)]
    told = {"gate": body["gate"] | {"verdicts": verdicts}, "made": None if made_ms is None else iso(made_ms)}
    return answer(body | told)


EMPTY_REPORT: Json = {
    "feedback": {"state": "too_few", "reason": "the judge has not looked yet", "share_at": [], "needed": None},
    "bias": {},
    "people": {},
    "ceiling": {},
    "learning": {},
    "gaming": {},
    "gate": {"judged_through": 0, "lag": 0, "trial": None, "estimates": {}, "verdicts": []},
    "drift": {},
    "exposure": {},
    "forgetting": {"reason": "the judge has not looked yet"},
}
