"""HTTP/1.1 with limits on what comes before a body: size and time of the head, time of the whole request.

The parser itself has none: without these, one endless header fills the memory, and connections that never finish a
request use up the descriptors. What is answered is written in one piece, head and body: half the system calls.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 << 10
HEAD_S = 10.0
REQUEST_S = 120.0
TOO_LARGE_BODY = (
    b'{"error":{"message":"the headers are over the limit of 64 KiB: send less",'
    b'"type":"invalid_request_error","param":null,"code":null}}'
)
TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(TOO_LARGE_BODY), TOO_LARGE_BODY)
)


class Corked(asyncio.Transport):
    """A transport whose writes of one turn of the loop leave together."""

    def __init__(self, inner: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._inner = inner
        self._loop = loop
        self._waiting: list[bytes | bytearray | memoryview[Any]] = []

    def write(self, data: "bytes | bytearray | memoryview[Any]") -> None:
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(data)

    def _flush(self) -> None:
        if self._waiting:
            data = b"".join(self._waiting)
            self._waiting.clear()
            if not self._inner.is_closing():
                self._inner.write(data)

    def close(self) -> None:
        self._flush()
        self._inner.close()

    def abort(self) -> None:
        self._waiting.clear()
        self._inner.abort()

    def is_closing(self) -> bool:
        return self._inner.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._inner.get_extra_info(name, default)

    def pause_reading(self) -> None:
        self._inner.pause_reading()

    def resume_reading(self) -> None:
        self._inner.resume_reading()


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with those limits."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there: it has ``HEAD_S`` for the head of its first request."""
        super().connection_made(Corked(transport, self.loop))
        self._head_bytes = 0
        self._in_head = True
        self._since: float | None = self.loop.time()
        self._watch = self.loop.call_later(HEAD_S, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of requests. The head of one is limited; its body is the handler's to limit."""
        in_head = self._in_head
        super().data_received(data)
        if in_head and self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.transport.write(TOO_LARGE)
                self.transport.close()

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._in_head, self._head_bytes, self._since = True, 0, self.loop.time()

    def on_headers_complete(self) -> None:
        """The head of a request is there."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A request is there in full: what follows is an answer, or the next request."""
        super().on_message_complete()
        self._since = None

    def _check(self) -> None:
        """Drop a client that takes too long to say what it wants."""
        now = self.loop.time()
        limit_s = HEAD_S if self._in_head else REQUEST_S
        if self._since is not None and now - self._since >= limit_s:
            self.transport.close()
        else:
            self._watch = self.loop.call_later(HEAD_S, self._check)
