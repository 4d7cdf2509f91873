"""What every page of the dashboard is made with: the templates and their ways to say numbers, who may look, and a
policy as it stands.
"""

import asyncio
import math
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
from starlette.responses import Response

from dayjob.endings import Forbidden, NotFound
from dayjob.journal.jobs import unfinished
from dayjob.records import Json
from dayjob.serve.auth import Principal, Scope, identify, require
from dayjob.serve.call import Call, HeaderMap
from dayjob.serve.curves import positions
from dayjob.serve.policies import EMPTY_REPORT
from dayjob.serve.views import policy_view, verdict_view, version_view

HERE = Path(__file__).parent
SILENT_S = 20.0  # after the end of the lease that a living judge renews at every step
LITTLE_DISK = 0.05  # share of free disk below which the page warns
GIGA = 1 << 30
LEAST_SHARE = 0.001
ALWAYS_SHOWN = ("baseline", "champion", "trial", "waiting")  # of a policy's versions
PAST = ("tainted", "superseded", "damaged", "rejected")
RECENT = 4  # of the newest versions, what is not past is shown too
TOO_LONG = 1e9  # from here on a number is written with its power of ten


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


def page(template: str, status: int = 200, **values: object) -> Response:
    """A template with its values."""
    body = TEMPLATES.get_template(template).render(**values)
    return Response(body, status_code=status, media_type="text/html", headers={"cache-control": "no-store"})


Build = Callable[[Call, Principal], Response]


async def show(call: Call, build: Build, *, scope: Scope = Scope.LEARN) -> Response:
    """A page for whoever has the scope; a login for anyone else; a page that says what does not exist."""
    service, keys = call.service, bool(call.service.keys)
    try:
        headers = HeaderMap(call.request)
        principal = identify(service.keys, headers, secret=service.token_secret, now_s=int(time.time()))
        require(principal, scope)
    except Forbidden as error:
        return page("login.html", 401 if keys else 403, reason=str(error), keys=keys, to=call.request.url.path)
    try:
        return await asyncio.to_thread(build, call, principal)
    except NotFound as error:
        return page("missing.html", 404, reason=str(error), keys=keys)


def overview(call: Call, tenant: str, name: str) -> Json:
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
    }


def _judge_idle_s(call: Call, tenant: str, name: str) -> float | None:
    """Seconds since the judge's lease of a policy ended, 0 while it holds, None where nobody has it: there never
    was one, or the judge gave it back as it ended."""
    asked = "SELECT until_ms FROM leases WHERE name=?"
    row = call.hub.control.db().execute(asked, (f"judge/{tenant}/{name}",)).fetchone()
    return None if row is None or not row[0] else max(0.0, time.time() - row[0] / 1000)


def health(call: Call, tenant: str) -> Json:
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


def steering(call: Call, principal: Principal, *, view: Json) -> Json:
    """What the page of any policy shows beside its trial: versions, verdicts, the job, the levers."""
    control, key = call.hub.control, (principal.tenant, view["name"])
    current, old = sorted_out([version_view(version) for version in control.versions(*key)][::-1], view)
    job = next((job for job in unfinished(control) if (job.tenant, job.policy) == key), None)
    return {
        "p": view,
        "current": current,
        "old": old,
        "verdicts": [verdict_view(verdict) for verdict in control.verdicts(*key)][::-1],
        "job": job,
        "job_idle_s": 0.0 if job is None else max(0.0, time.time() - job.updated_ms / 1000),
        "health": health(call, principal.tenant),
        "keys": bool(call.service.keys),
        "steers": Scope.ADMIN in principal.scopes,
    }


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
