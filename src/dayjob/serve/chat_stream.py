"""Server-sent events, and knowing when nobody listens any more."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing, suppress
from typing import Any, Protocol, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

T = TypeVar("T")


class Source(Protocol):
    """Where the events of a stream come from."""

    def events(self) -> AsyncGenerator[bytes, None]:
        """The events, each as it goes over the wire."""
        ...

    async def close(self) -> None:
        """Called once the stream is over, however it ended, and whether or not an event was asked for."""
        ...


class EventStream(Response):
    """A response that is sent as its events come. Its source is closed when they end or the client goes away."""

    def __init__(self, source: Source) -> None:
        super().__init__(media_type="text/event-stream", headers={"cache-control": "no-cache"})
        del self.headers["content-length"]
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        del scope
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            with suppress(ClientDisconnect):
                await unless_gone(receive, self._send(send))
        finally:
            await self._source.close()

    async def _send(self, send: Send) -> None:
        async with aclosing(self._source.events()) as events:
            async for event in events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def unless_gone(receive: Receive, work: Awaitable[T]) -> T:
    """The result of ``work``. Raises ClientDisconnect, and cancels it, when the client goes away before it is there."""
    task, gone = asyncio.ensure_future(work), asyncio.create_task(_gone(receive))
    both: set[asyncio.Future[Any]] = {task, gone}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return await task
    finally:
        for one in both:
            one.cancel()
        await asyncio.gather(*both, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
