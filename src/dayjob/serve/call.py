"""From bytes to a handler and back: one boundary for every route.

Here, and nowhere else, a request is authenticated, its scope checked, its size limited, and whatever is raised becomes
an answer of OpenAI's error shape. Handlers are plain functions of a `Call`.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as ASGIScope

from dayjob.config import Config
from dayjob.endings import (
    Conflict,
    Damaged,
    DayjobError,
    Erased,
    Forbidden,
    Invalid,
    NotFound,
    Overloaded,
    StorageFull,
)  # fmt: skip
from dayjob.memory.notes import NotesMemory
from dayjob.serve.auth import Key, Principal, Scope, Unauthenticated, identify, require, require_for_others
from dayjob.serve.live import Hub
from dayjob.serve.metrics import Metrics
from dayjob.serve.models import ContextNotes, UnknownModel, Voices, no_notes

log = logging.getLogger("dayjob.serve")
JSON = "application/json"
NDJSON = "application/x-ndjson"


class TooLarge(DayjobError):
    """The body is over the limit."""


class WrongType(DayjobError):
    """The body is not of the content type this route takes."""


# What is raised: the status, OpenAI's type, and a code that stays the same whatever the message says.
STATUS: tuple[tuple[type[Exception], int, str, str], ...] = (
    (Invalid, 422, "invalid_request_error", "invalid"),
    (UnknownModel, 404, "not_found_error", "model_not_found"),
    (NotFound, 404, "not_found_error", "not_found"),
    (Conflict, 409, "conflict_error", "conflict"),
    (Erased, 410, "gone_error", "erased"),
    (Unauthenticated, 401, "authentication_error", "invalid_api_key"),
    (Forbidden, 403, "permission_error", "forbidden"),
    (TooLarge, 413, "invalid_request_error", "too_large"),
    (WrongType, 415, "invalid_request_error", "unsupported_media_type"),
    (Overloaded, 429, "rate_limit_error", "overloaded"),
    (StorageFull, 507, "storage_error", "storage_full"),
    (Damaged, 503, "storage_error", "damaged"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What every handler may use."""

    hub: Hub
    settings: Config
    keys: tuple[Key, ...]
    token_secret: bytes
    sampling_secret: bytes
    recipes: tuple[str, ...]  # of rankers
    language_recipes: tuple[str, ...]
    voices: Voices
    metrics: Metrics
    notes: NotesMemory
    context_notes: ContextNotes = no_notes


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request that passed the boundary."""

    service: Service
    request: Request
    principal: Principal
    body: bytes

    @property
    def has_key(self) -> bool:
        """Whether the request itself carries a key. A cookie is carried by whatever page a browser shows."""
        return "authorization" in self.request.headers

    @property
    def hub(self) -> Hub:
        """The parts of the server."""
        return self.service.hub

    @property
    def tenant(self) -> str:
        """The tenant that the key stands for."""
        return self.principal.tenant

    def path(self, name: str) -> str:
        """A part of the path."""
        return str(self.request.path_params[name])

    def query(self, name: str) -> str | None:
        """A query parameter, None where absent."""
        return self.request.query_params.get(name)


Handler = Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may call a route: with a scope, or openly. ``body`` is the content type it takes, "" for none."""

    scope: Scope | None
    body: str = ""
    limit_bytes: int = 0
    token_opens: bool = False
    others: Scope | None = None  # of a key that speaks for nobody in particular


def answer(value: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(value), status_code=status, media_type=JSON)


def failure(error: Exception) -> Response:
    """An exception as an answer: never a 5xx for what a client sent."""
    unexpected = (500, "server_error", "internal_error")
    status, name, code = next(((s, n, c) for kind, s, n, c in STATUS if isinstance(error, kind)), unexpected)
    if status == 500:
        log.error("unexpected", exc_info=error)
        error = DayjobError("something went wrong here; it was logged. Try again, and report it if it stays")
    detail = {
        "message": str(error),
        "type": name,
        "param": error.param if isinstance(error, Invalid) else None,
        "code": (error.code if isinstance(error, Invalid) else None) or code,
    }
    response = answer({"error": detail}, status)
    if isinstance(error, Overloaded):
        response.headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A route's handler behind the boundary."""

    handler: Handler
    access: Access
    service: Service
    name: str

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """ASGI: authenticate, limit, read, call, and turn what is raised into an answer."""
        began = time.perf_counter()
        request = Request(scope, receive)
        try:
            response = await self._handle(request)
        except ClientDisconnect:
            return
        except Exception as error:
            response = failure(error)
        took_s = time.perf_counter() - began
        self.service.metrics.observe(self.name, request.method, status=response.status_code, seconds=took_s)
        await response(scope, receive, send)

    async def _handle(self, request: Request) -> Response:
        headers = HeaderMap(request)
        principal = self._principal(headers)
        body = b""
        if self.access.body:
            _check_type(headers, self.access.body)
            body = await _read(request.receive, headers, self.access.limit_bytes)
        return await self.handler(Call(service=self.service, request=request, principal=principal, body=body))

    def _principal(self, headers: "HeaderMap") -> Principal:
        service = self.service
        if self.access.scope is None:
            return NOBODY
        try:
            principal = identify(service.keys, headers, secret=service.token_secret, now_s=int(time.time()))
            require(principal, self.access.scope)
            if self.access.others is not None and principal.user is None:
                require_for_others(principal, self.access.others)
        except Forbidden:
            # A browser that holds a token may carry any cookie, and one of ours for something else: the token speaks.
            if self.access.token_opens and service.keys and "authorization" not in headers:
                return NOBODY
            raise
        return principal


NOBODY = Principal(tenant="", scopes=frozenset(), user=None, key_id="")


class HeaderMap(dict[str, str]):
    """The request's headers by lower-case name."""

    def __init__(self, request: Request) -> None:
        super().__init__((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.scope["headers"])


def _check_type(headers: HeaderMap, wanted: str) -> None:
    sent = headers.get("content-type", "").partition(";")[0].strip().lower()
    if sent != wanted and not (wanted == NDJSON and sent in ("application/jsonl", "application/ndjson")):
        raise WrongType(f"send Content-Type: {wanted}" + (f", not {sent}" if sent else ""))


async def _read(receive: Receive, headers: HeaderMap, limit: int) -> bytes:
    """The whole body. Raises TooLarge as soon as it is known to be over the limit, without reading the rest."""
    declared = headers.get("content-length", "")
    too_large = TooLarge(f"the body is over the limit of {limit} bytes: send less, or raise body_limit_bytes")
    if declared.isdigit() and int(declared) > limit:
        raise too_large
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect()
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise too_large
        parts.append(part)
        more = message.get("more_body", False)
    return b"".join(parts)
