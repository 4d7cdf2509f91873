"""The web application: wiring only. Handlers live in their own files, the boundary in `call`, the table in `routes`."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import State
from starlette.responses import Response
from starlette.routing import Router
from starlette.types import Message, Receive, Scope, Send

from dayjob.serve.call import Access, Endpoint, Service, answer
from dayjob.serve.openapi import document
from dayjob.serve.route import LARGE, Route
from dayjob.serve.routes import ROUTES

SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
)
EXPIRE_EVERY_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A path of the table: what matches it, the endpoint of each method, and the headers of every answer there.

    ``shared``: the browser of any site may call it.
    """

    pattern: re.Pattern[str]
    endpoints: Mapping[str, Endpoint]
    shared: bool
    headers: tuple[tuple[bytes, bytes], ...]


CROSS_ORIGIN = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"POST"),
    (b"access-control-allow-headers", b"content-type"),
    (b"access-control-max-age", b"600"),
)


NOWHERE = Place(pattern=re.compile(""), endpoints={}, shared=False, headers=SECURITY_HEADERS)


class App:
    """ASGI: finds a request's endpoint; every answer carries the security headers.

    A fixed path is found in one look, a path with names in it by its pattern: the hot routes never wait for the others.
    """

    def __init__(self, service: Service) -> None:
        self.state = State({"service": service, "document": document(ROUTES)})
        found: dict[str, dict[str, Endpoint]] = {}
        for route in ROUTES:
            found.setdefault(route.path, {})[route.method] = _endpoint(route, service)
        places = {path: _place(path, endpoints, service) for path, endpoints in found.items()}
        self._fixed = {path: place for path, place in places.items() if "{" not in path}
        self._named = [place for path, place in places.items() if "{" in path]
        self._lifetime = Router(lifespan=lifespan)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        scope["app"] = self
        if scope["type"] == "lifespan":
            await self._lifetime(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return

        place, scope["path_params"] = self._find(scope["path"])
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        endpoint = place.endpoints.get(method)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *place.headers]
            await send(message)

        if place.shared and method == "OPTIONS":
            await Response(status_code=204)(scope, receive, guarded)
        elif endpoint is None:
            await _no_such_route(scope, place.endpoints)(scope, receive, guarded)
        else:
            await endpoint(scope, receive, guarded)

    def _find(self, path: str) -> tuple[Place, dict[str, str]]:
        """A path's place, one without endpoints where it does not exist, and the names in it."""
        fixed = self._fixed.get(path)
        if fixed is not None:
            return fixed, {}
        for place in self._named:
            found = place.pattern.fullmatch(path)
            if found is not None:
                return place, found.groupdict()
        return NOWHERE, {}


def create_app(service: Service) -> App:
    """The application over one data directory."""
    return App(service)


def _place(path: str, endpoints: Mapping[str, Endpoint], service: Service) -> Place:
    # With keys, a token lets the browser of any site give feedback: cookies are never sent along.
    shared = bool(service.keys) and any(one.access.token_opens for one in endpoints.values())
    headers = (*SECURITY_HEADERS, *CROSS_ORIGIN) if shared else SECURITY_HEADERS
    return Place(pattern=_pattern(path), endpoints=endpoints, shared=shared, headers=headers)


def _pattern(path: str) -> re.Pattern[str]:
    """A path's pattern. A person's name may hold anything, slashes too; every other name is one part of the path."""
    open_names = path.replace("{user}", "(?P<user>.+)")
    return re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", open_names), re.DOTALL)


def _endpoint(route: Route, service: Service) -> Endpoint:
    settings = service.settings
    limit = settings.catalog_limit_bytes if route.limit == LARGE else settings.body_limit_bytes
    access = Access(
        scope=route.scope, body=route.body_type, limit_bytes=limit, token_opens=route.token_opens, others=route.others
    )
    return Endpoint(route.handler, access, service, route.path)


@contextlib.asynccontextmanager
async def lifespan(app: App) -> AsyncIterator[None]:
    """Follow the pointers while the server runs; finish every queued write before it ends."""
    service: Service = app.state.service
    hub = service.hub
    hub.refresh()
    hub.changes = hub.control.change_count()
    tasks = [asyncio.create_task(hub.follow()), asyncio.create_task(expire(service))]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await service.voices.close()
        await asyncio.to_thread(hub.store.close)


async def expire(service: Service) -> None:
    """Drop outcomes that waited too long for their decision."""
    while True:
        await asyncio.sleep(EXPIRE_EVERY_S)
        before = service.hub.now_ms() - int(service.settings.held_wait_s * 1000)
        with contextlib.suppress(Exception):
            await asyncio.wrap_future(service.hub.store.expire_held(before))


def _no_such_route(scope: Mapping[str, Any], endpoints: Mapping[str, Endpoint]) -> Response:
    """404, or 405 where the path exists for other methods."""
    if not endpoints:
        status, code, message = (
            404,
            "not_found",
            f"there is nothing at {scope['path']}: /openapi.json lists every route",
        )
    else:
        status, code, message = (
            405,
            "method_not_allowed",
            f"{scope['method']} is not for {scope['path']}: /openapi.json lists every route",
        )
    response = answer({"error": {"message": message, "type": "not_found_error", "param": None, "code": code}}, status)
    if endpoints:
        response.headers["Allow"] = ", ".join(sorted(endpoints))
    return response
