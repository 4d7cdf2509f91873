"""The web application: wiring only. Handlers live in their own files, the boundary in `call`, the table in `routes`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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


class Guarded:
    """Every answer carries the security headers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *SECURITY_HEADERS]
            await send(message)

        await self.app(scope, receive, guarded)


def create_app(service: Service) -> Starlette:
    """The application over one data directory."""
    routes = [
        StarletteRoute(route.path, _endpoint(route, service), methods=[route.method], name=route.handler.__name__)
        for route in ROUTES
    ]
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={HTTPException: no_such_route},  # type: ignore[dict-item]
    )
    app.state.service = service
    app.state.document = document(ROUTES)
    app.add_middleware(Guarded)
    return app


def _endpoint(route: Route, service: Service) -> Endpoint:
    settings = service.settings
    limit = settings.catalog_limit_bytes if route.limit == LARGE else settings.body_limit_bytes
    access = Access(scope=route.scope, body=route.body_type, limit_bytes=limit, token_opens=route.token_opens)
    return Endpoint(route.handler, access, service, route.path)


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
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
        await asyncio.to_thread(hub.store.close)


async def expire(service: Service) -> None:
    """Drop outcomes that waited too long for their decision."""
    while True:
        await asyncio.sleep(EXPIRE_EVERY_S)
        before = service.hub.now_ms() - int(service.settings.held_wait_s * 1000)
        with contextlib.suppress(Exception):
            await asyncio.wrap_future(service.hub.store.expire_held(before))


async def no_such_route(request: Request, error: HTTPException) -> Response:
    """Starlette's own 404 and 405 in our error shape."""
    message = {
        404: f"there is nothing at {request.url.path}: /openapi.json lists every route",
        405: f"{request.method} is not for {request.url.path}: /openapi.json lists every route",
    }.get(error.status_code, str(error.detail))
    body = {"error": {"message": message, "type": "not_found_error", "param": None, "code": None}}
    response = answer(body, error.status_code)
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response
