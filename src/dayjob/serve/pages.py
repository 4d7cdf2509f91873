"""The dashboard's pages: server-rendered, own scripts only, logged in by a cookie where keys are configured."""

import asyncio
import time
from pathlib import Path
from urllib.parse import parse_qs

import jinja2
from starlette.responses import RedirectResponse, Response

from dayjob.endings import DayjobError, NotFound
from dayjob.serve.auth import find_key, identify, login_cookie, logout_cookie
from dayjob.serve.call import Call, HeaderMap, answer
from dayjob.serve.views import policy_view, verdict_view, version_view

HERE = Path(__file__).parent
TEMPLATES = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE / "templates"), autoescape=True)
STATIC_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
SERIES = ("versions", "position", "trial", "feedback", "learning", "health")
LOGIN_S = 12 * 3600


async def openapi(call: Call) -> Response:
    """The published document."""
    return answer(call.request.app.state.document)


async def series(call: Call) -> Response:
    """The curves of one policy."""
    name = call.path("name")
    call.hub.of(call.tenant, name)
    control = call.hub.control
    found = {one: await asyncio.to_thread(control.series, call.tenant, name, one) for one in SERIES}
    return answer({"series": found})


async def dashboard(call: Call) -> Response:
    """Every policy at a glance; a login where keys are configured."""
    service = call.service
    try:
        principal = identify(service.keys, HeaderMap(call.request), secret=service.token_secret, now_s=int(time.time()))
    except DayjobError as error:
        return _page("login.html", 401 if service.keys else 403, reason=str(error), keys=bool(service.keys))
    hub = call.hub
    policies = []
    for policy in hub.control.policies(principal.tenant):
        view = policy_view(hub, principal.tenant, policy.name)
        view["versions"] = [version_view(v) for v in hub.control.versions(principal.tenant, policy.name)]
        view["verdicts"] = [verdict_view(v) for v in hub.control.verdicts(principal.tenant, policy.name)]
        view["report"] = await asyncio.to_thread(hub.control.state, principal.tenant, policy.name, "report")
        policies.append(view)
    return _page("dashboard.html", 200, policies=policies, damaged=hub.damaged, keys=bool(service.keys))


def _page(template: str, status: int, **values: object) -> Response:
    return Response(TEMPLATES.get_template(template).render(**values), status_code=status, media_type="text/html")


async def login(call: Call) -> Response:
    """Exchange a key for a cookie."""
    service = call.service
    form = parse_qs(call.body.decode("utf-8", "replace"), max_num_fields=4)
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
    response = RedirectResponse("/", status_code=303)
    response.headers["set-cookie"] = logout_cookie(secure=call.request.url.scheme == "https")
    return response


async def static(call: Call) -> Response:
    """Our own scripts and styles, by name: nothing else can be named."""
    name = call.path("file")
    files = {path.name: path for path in (HERE / "static").iterdir() if path.suffix in STATIC_TYPES}
    if name not in files:
        raise NotFound(f"there is no file {name!r}")
    path = files[name]
    return Response(path.read_bytes(), media_type=STATIC_TYPES[path.suffix], headers={"cache-control": "max-age=300"})
