"""The dashboard's pages: server-rendered, own scripts only, logged in by a cookie where keys are configured.

Every word stands in a template, once: the browser fetches its page again every two seconds and exchanges only what
changed. Plots are drawn from the JSON of the wire contract, and each has its numbers in words beside it. What is absent
is said to be absent. ``replay.json`` beside the scripts is written by ``dayjob lab geospot --part replay`` (see
`Replay`). The pages of language policies are in `pages_language`.
"""

import asyncio
import re
import time
from typing import Annotated, Self
from urllib.parse import parse_qs

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.responses import RedirectResponse, Response

from dayjob.endings import FeedbackState, Forbidden, Invalid, NotFound, PolicyKind
from dayjob.journal.jobs import last_dream
from dayjob.records import Json
from dayjob.serve.auth import Principal, find_key, login_cookie, logout_cookie
from dayjob.serve.call import Call, HeaderMap, answer
from dayjob.serve.curves import SERIES, changes, earned, thin
from dayjob.serve.page_frame import HERE, health, overview, page, show, steering
from dayjob.serve.pages_language import language_policy

STATIC_TYPES = {
    ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".json": "application/json",
    ".txt": "text/plain",
}  # fmt: skip
REPLAY = HERE / "static" / "replay.json"
LOGIN_S = 12 * 3600
OWN_PATH = re.compile(r"(/[A-Za-z0-9._-]+)*")  # where a login may lead: a path of ours, never another host

STILL_NATS = 0.01  # the KL that the published policy stayed under
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Replay(BaseModel):
    """``static/replay.json``: the published failure, replayed. Lists are as long as ``steps`` and in its order, but
    for ``rollbacks``.

    ``steps``: interactions so far, growing. ``reward``: mean reward per interaction since the step before. ``kl``: KL
    of the learner to its Polyak average, nats. ``km_served``: mean error of the first place of what this learner would
    serve, km, on photos that nobody played with; ``km_baseline``: of GeoCLIP's own order on them. ``position_share``:
    share of clicks at each position, from the first.

    What the report says of the newest decisions: ``state`` of the feedback, ``moved``: KL of the first place to the
    caller's order, nats, ``alarm`` of not learning, and ``said``, its reason. ``rollbacks``: of each draw of the
    coin-flip pairs, interactions until the watch had proven the learner worse than the order it replaced, null where it
    had not; ``rollback_at``, ``rollback_reason``: of the middle one. ``command``: what wrote this file.

    >>> one = Replay(steps=[100, 200], reward=[.7, .8], kl=[.001, .02], km_served=[2464, 2600], km_baseline=2464,
    ...              position_share=[[.8, .2], [.9, .1]], state=["too_few", "informative"], moved=[4.5, 4.4],
    ...              alarm=[False, False], said=["...", "..."], rollbacks=[150, 180, None], rollback_at=180,
    ...              rollback_reason="...", seed=0, command="...")
    >>> one.alarm_at, one.still
    (None, 1)
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    steps: list[int] = Field(min_length=1)
    reward: list[Finite]
    kl: list[Finite]
    km_served: list[Finite]
    km_baseline: Finite
    position_share: list[list[Finite]]
    state: list[FeedbackState]
    moved: list[Finite]
    alarm: list[bool]
    said: list[str]
    rollbacks: list[int | None] = Field(min_length=1)
    rollback_at: int | None
    rollback_reason: str
    seed: int
    command: str

    @property
    def alarm_at(self) -> int | None:
        """Which step's report first had the alarm, None where none had."""
        return self.alarm.index(True) if any(self.alarm) else None

    @property
    def still(self) -> int:
        """How many steps went by before the KL first reached `STILL_NATS`: what its author would have called calm."""
        return next((at for at, kl in enumerate(self.kl) if kl >= STILL_NATS), len(self.kl))

    @model_validator(mode="after")
    def _lengths(self) -> Self:
        for name in ("reward", "kl", "km_served", "position_share", "state", "moved", "alarm", "said"):
            if len(getattr(self, name)) != len(self.steps):
                raise ValueError(f"{name} has {len(getattr(self, name))} entries and steps {len(self.steps)}")
        if any(later <= earlier for earlier, later in zip(self.steps, self.steps[1:], strict=False)):
            raise ValueError("steps must grow")
        return self


# ---- handlers --------------------------------------------------------------------------------------------------------


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
    return await show(call, _dashboard)


async def policy(call: Call) -> Response:
    """One policy: what serves, what is on trial, what the clicks teach, and the levers to steer it."""
    return await show(call, _policy)


async def replay(call: Call) -> Response:
    """The published failure, replayed; or that it was not run yet."""
    return await show(call, _replay)


def _dashboard(call: Call, principal: Principal) -> Response:
    names = [policy.name for policy in call.hub.control.policies(principal.tenant)]
    found = [overview(call, principal.tenant, name) for name in names]
    return page("dashboard.html", policies=found, health=health(call, principal.tenant), keys=bool(call.service.keys))


def _policy(call: Call, principal: Principal) -> Response:
    name, tenant = call.path("name"), principal.tenant
    view = overview(call, tenant, name)
    shared = steering(call, principal, view=view)
    if view["kind"] == PolicyKind.LANGUAGE.value:
        return language_policy(call, tenant, shared=shared)
    curves = _curves(call, tenant, name)
    return page(
        "policy.html",
        **shared,
        earned=earned(curves["versions"]),
        trials=curves["trial"],
        states=changes(curves["feedback"], name="state")[::-1],
        learned=curves["learning"],
        dream=last_dream(call.hub.control, tenant, name),
        shares=[point for point in curves["position"] if any(point.get("share_at") or ())],
    )


def _replay(call: Call, principal: Principal) -> Response:
    del principal
    found, problem = None, ""
    try:
        found = Replay.model_validate_json(REPLAY.read_bytes())
    except FileNotFoundError:
        problem = "not run yet"
    except ValidationError as error:
        problem = f"replay.json does not fit: {error}"
    return page("replay.html", replay=found, problem=problem, keys=bool(call.service.keys))


async def login(call: Call) -> Response:
    """Exchange a key for a cookie."""
    service = call.service
    _own_form(call)
    try:
        form = parse_qs(call.body.decode("utf-8", "replace"), max_num_fields=4)
    except ValueError:
        raise Invalid("send the form of the login page: one field, key", param="key") from None
    principal, wanted = find_key(service.keys, form.get("key", [""])[0]), form.get("to", ["/"])[0]
    to = wanted if OWN_PATH.fullmatch(wanted) else "/"
    if principal is None:
        return page("login.html", 401, reason="this key is not known here", keys=True, to=to)
    response = RedirectResponse(to or "/", status_code=303)
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
