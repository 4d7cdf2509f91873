"""The dashboard's pages: server-rendered, own scripts only, logged in by a cookie where keys are configured.

Every word stands in a template, once: the browser fetches its page again every two seconds and exchanges only what
changed. Plots are drawn from the JSON of the wire contract, and each has its numbers in words beside it. What is absent
is said to be absent. ``replay.json`` beside the scripts is written by ``dayjob lab geospot`` (see `Replay`).
"""

import asyncio
import math
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import parse_qs

import jinja2
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.responses import RedirectResponse, Response

from dayjob.endings import Forbidden, Invalid, NotFound, PolicyKind
from dayjob.journal.jobs import unfinished
from dayjob.records import Json
from dayjob.serve.auth import Principal, Scope, find_key, identify, login_cookie, logout_cookie, require
from dayjob.serve.call import Call, HeaderMap, answer
from dayjob.serve.curves import SERIES, changes, earned, positions, thin
from dayjob.serve.policies import EMPTY_REPORT
from dayjob.serve.views import policy_view, verdict_view, version_view

HERE = Path(__file__).parent
STATIC_TYPES = {
    ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".json": "application/json",
    ".txt": "text/plain",
}  # fmt: skip
REPLAY = HERE / "static" / "replay.json"
LOGIN_S = 12 * 3600
SILENT_S = 20.0  # after the end of the lease that a living judge renews at every step
LITTLE_DISK = 0.05  # share of free disk below which the page warns
GIGA = 1 << 30
LEAST_SHARE = 0.001
ALWAYS_SHOWN = ("baseline", "champion", "trial", "waiting")  # of a policy's versions
PAST = ("tainted", "superseded", "damaged", "rejected")
RECENT = 4  # of the newest versions, what is not past is shown too
TOO_LONG = 1e9  # from here on a number is written with its power of ten

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Replay(BaseModel):
    """``static/replay.json``: the published failure, replayed. Lists are as long as ``steps`` and in its order.

    ``steps``: interactions so far, growing. ``reward``: mean reward per interaction since the step before. ``kl``: KL
    of the learner to its Polyak average, nats. ``km_served``: mean error of the first place of what this learner would
    serve, km; ``km_baseline``: of GeoCLIP's own order on the same photos. ``position_share``: share of clicks at each
    position, from the first. ``alarm_at``: interactions after which the state of the feedback was first
    ``uninformative``, null if it never was; ``alarm_reason``: what was said then. ``command``: what wrote this file.

    >>> Replay(steps=[100, 200], reward=[.7, .8], kl=[.001, .002], km_served=[2464, 2600], km_baseline=2464,
    ...        position_share=[[.8, .2], [.9, .1]], alarm_at=200, alarm_reason="...", seed=0, command="...").alarm_at
    200
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    steps: list[int] = Field(min_length=1)
    reward: list[Finite]
    kl: list[Finite]
    km_served: list[Finite]
    km_baseline: Finite
    position_share: list[list[Finite]]
    alarm_at: int | None = None
    alarm_reason: str = ""
    seed: int
    command: str

    @model_validator(mode="after")
    def _lengths(self) -> Self:
        for name in ("reward", "kl", "km_served", "position_share"):
            if len(getattr(self, name)) != len(self.steps):
                raise ValueError(f"{name} has {len(getattr(self, name))} entries and steps {len(self.steps)}")
        if any(later <= earlier for earlier, later in zip(self.steps, self.steps[1:], strict=False)):
            raise ValueError("steps must grow")
        return self


# ---- what the templates say numbers with -----------------------------------------------------------------------------


def count(value: Any) -> str:
    """A whole number as people write it; a dash where there is none."""
    return "–" if value is None else f"{int(value):,}"


def number(value: Any, digits: int = 3) -> str:
    """Some digits of a number; a dash where there is none.

    >>> number(0.123456), number(None), number(float("nan")), number(1234567.0)
    ('0.123', '–', '–', '1,234,567')
    """
    if value is None or isinstance(value, str) or not math.isfinite(value):
        return "–"
    if abs(value) >= TOO_LONG:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def signed(value: Any) -> str:
    """A difference, with its sign."""
    return "–" if value is None or not math.isfinite(value) else f"{value:+.4f}"


def percent(value: Any) -> str:
    """A share as a percentage.

    >>> percent(0.25), percent(0.0001), percent(0.0), percent(None)
    ('25%', 'under 0.1%', '0%', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    return "under 0.1%" if 0 < value < LEAST_SHARE else f"{value:.1%}".replace(".0%", "%")


def progress(trial: Json) -> float:
    """How far the evidence is from 1 to what is needed, on a logarithmic scale, in [0, 1].

    >>> progress({"e_value": 10.0, "e_needed": 100.0}), progress({"e_value": 0.2, "e_needed": 40.0})
    (0.5, 0.0)
    """
    value, needed = trial.get("e_value") or 1.0, trial.get("e_needed") or math.inf
    return max(0.0, min(1.0, math.log(value) / math.log(needed)))


def when(text: str) -> str:
    """An RFC 3339 time to the minute, in UTC.

    >>> when("2026-11-20T08:21:51.123Z")
    '2026-11-20 08:21 UTC'
    """
    return f"{text[:10]} {text[11:16]} UTC"


def clock(at_ms: int) -> str:
    """Milliseconds since the epoch as a time of day, in UTC.

    >>> clock(1_000)
    '00:00:01 UTC'
    """
    return f"{datetime.fromtimestamp(at_ms / 1000, tz=UTC):%H:%M:%S} UTC"


TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE / "templates"), autoescape=True, undefined=jinja2.StrictUndefined,
    trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip
TEMPLATES.filters |= {
    "count": count, "number": number, "signed": signed, "percent": percent, "progress": progress, "when": when,
    "clock": clock,
}  # fmt: skip


def _page(template: str, status: int = 200, **values: object) -> Response:
    body = TEMPLATES.get_template(template).render(**values)
    return Response(body, status_code=status, media_type="text/html", headers={"cache-control": "no-store"})


# ---- handlers --------------------------------------------------------------------------------------------------------

Build = Callable[[Call, Principal], Response]


async def _show(call: Call, build: Build) -> Response:
    """A page for whoever may read reports; a login for anyone else; a page that says what does not exist."""
    service, keys = call.service, bool(call.service.keys)
    try:
        headers = HeaderMap(call.request)
        principal = identify(service.keys, headers, secret=service.token_secret, now_s=int(time.time()))
        require(principal, Scope.LEARN)
    except Forbidden as error:
        return _page("login.html", 401 if keys else 403, reason=str(error), keys=keys)
    try:
        return await asyncio.to_thread(build, call, principal)
    except NotFound as error:
        return _page("missing.html", 404, reason=str(error), keys=keys)


async def openapi(call: Call) -> Response:
    """The published document."""
    return answer(call.request.app.state.document)


async def series(call: Call) -> Response:
    """The curves of one policy, thinned to what a plot can show."""
    name = call.path("name")
    call.hub.control.policy(call.tenant, name)
    return answer({"series": await asyncio.to_thread(_curves, call, call.tenant, name)})


def _curves(call: Call, tenant: str, name: str) -> dict[str, list[Json]]:
    return {one: thin(call.hub.control.series(tenant, name, one), name=one) for one in SERIES}


async def dashboard(call: Call) -> Response:
    """Every policy at a glance."""
    return await _show(call, _dashboard)


async def policy(call: Call) -> Response:
    """One policy: what serves, what is on trial, what the clicks teach, and the levers to steer it."""
    return await _show(call, _policy)


async def replay(call: Call) -> Response:
    """The published failure, replayed; or that it was not run yet."""
    return await _show(call, _replay)


def _dashboard(call: Call, principal: Principal) -> Response:
    names = [policy.name for policy in call.hub.control.policies(principal.tenant)]
    found = [_overview(call, principal.tenant, name) for name in names]
    health = _health(call, principal.tenant)
    return _page("dashboard.html", policies=found, health=health, keys=bool(call.service.keys))


def _policy(call: Call, principal: Principal) -> Response:
    name, tenant, control = call.path("name"), principal.tenant, call.hub.control
    view = _overview(call, tenant, name)
    curves = _curves(call, tenant, name)
    current, old = sorted_out([version_view(version) for version in control.versions(tenant, name)][::-1], view)
    job = next((job for job in unfinished(control) if (job.tenant, job.policy) == (tenant, name)), None)
    return _page(
        "policy.html",
        p=view,
        current=current,
        old=old,
        verdicts=[verdict_view(verdict) for verdict in control.verdicts(tenant, name)][::-1],
        earned=earned(curves["versions"]),
        trials=curves["trial"],
        states=changes(curves["feedback"], name="state")[::-1],
        learned=curves["learning"],
        shares=[point for point in curves["position"] if any(point.get("share_at") or ())],
        job=job,
        job_idle_s=0.0 if job is None else max(0.0, time.time() - job.updated_ms / 1000),
        health=_health(call, tenant),
        keys=bool(call.service.keys),
        steers=Scope.ADMIN in principal.scopes,
    )


def sorted_out(versions: list[Json], policy: Json) -> tuple[list[Json], list[Json]]:
    """The versions, newest first: those to show at once, and those to fold away."""
    current = [
        version
        for at, version in enumerate(versions)
        if version["status"] in ALWAYS_SHOWN
        or version["version"] in (policy["previous"], policy["really"])
        or (at < RECENT and version["status"] not in PAST)
    ]
    return current, [version for version in versions if version not in current]


def _replay(call: Call, principal: Principal) -> Response:
    del principal
    found, problem = None, ""
    try:
        found = Replay.model_validate_json(REPLAY.read_bytes())
    except FileNotFoundError:
        problem = "not run yet"
    except ValidationError as error:
        problem = f"replay.json does not fit: {error}"
    return _page("replay.html", replay=found, problem=problem, keys=bool(call.service.keys))


def _overview(call: Call, tenant: str, name: str) -> Json:
    """A policy as it stands, with its report and what the server really serves of it."""
    hub = call.hub
    view = policy_view(hub, tenant, name)
    report = EMPTY_REPORT | (hub.control.state(tenant, name, "report") or {})
    idle_s = _judge_idle_s(call, tenant, name)
    live = hub.live.get((tenant, name))
    serves = view["baseline"] if view["serves"] == "baseline" else view["champion"]
    return view | {
        "report": report,
        "positions": positions(report),
        "really": serves if live is None else live.serving.champion,
        "wanted": serves,
        "frozen_by_file": bool(hub.freeze_file),
        "silent_s": idle_s,
        "silent": idle_s is None or idle_s > SILENT_S,
        "judged_kind": view["kind"] == PolicyKind.RANKER.value,
    }


def _judge_idle_s(call: Call, tenant: str, name: str) -> float | None:
    """Seconds since the judge's lease of a policy ended, 0 while it holds, None where nobody has it: there never
    was one, or the judge gave it back as it ended."""
    asked = "SELECT until_ms FROM leases WHERE name=?"
    row = call.hub.control.db().execute(asked, (f"judge/{tenant}/{name}",)).fetchone()
    return None if row is None or not row[0] else max(0.0, time.time() - row[0] / 1000)


def _health(call: Call, tenant: str) -> Json:
    """The server's own state; of damaged versions only this tenant's."""
    hub = call.hub
    disk = shutil.disk_usage(hub.root)
    mine = f"{tenant}/"
    return {
        "queue": hub.store.waiting,
        "queue_limit": call.service.settings.queue_limit,
        "read_only": hub.store.broken,
        "damaged": {name.removeprefix(mine): why for name, why in dict(hub.damaged).items() if name.startswith(mine)},
        "disk_free_gb": disk.free / GIGA,
        "disk_share": disk.free / disk.total,
        "little_disk": disk.free < LITTLE_DISK * disk.total,
        "journal_gb": sum(path.stat().st_size for path in hub.root.glob("journal.db*")) / GIGA,
    }


async def login(call: Call) -> Response:
    """Exchange a key for a cookie."""
    service = call.service
    _own_form(call)
    try:
        form = parse_qs(call.body.decode("utf-8", "replace"), max_num_fields=4)
    except ValueError:
        raise Invalid("send the form of the login page: one field, key", param="key") from None
    principal = find_key(service.keys, form.get("key", [""])[0])
    if principal is None:
        return _page("login.html", 401, reason="this key is not known here", keys=True)
    response = RedirectResponse("/", status_code=303)
    response.headers["set-cookie"] = login_cookie(
        service.token_secret,
        principal,
        now_s=int(time.time()),
        ttl_s=LOGIN_S,
        secure=call.request.url.scheme == "https",
    )
    return response


async def logout(call: Call) -> Response:
    """Forget the cookie."""
    _own_form(call)
    response = RedirectResponse("/", status_code=303)
    response.headers["set-cookie"] = logout_cookie(secure=call.request.url.scheme == "https")
    return response


def _own_form(call: Call) -> None:
    """Raises Forbidden for a form on another site. (Browsers send these forms' Origin as null: no referrers here.)"""
    if HeaderMap(call.request).get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise Forbidden("this form was sent from a page of another site; log in and out on the server's own pages")


async def static(call: Call) -> Response:
    """Our own scripts and styles, by name: nothing else can be named."""
    name = call.path("file")
    files = {path.name: path for path in (HERE / "static").iterdir() if path.suffix in STATIC_TYPES}
    if name not in files:
        raise NotFound(f"there is no file {name!r}")
    path = files[name]
    media = STATIC_TYPES[path.suffix]
    return Response(path.read_bytes(), media_type=media, headers={"cache-control": "max-age=300"})
