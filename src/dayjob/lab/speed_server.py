"""``python -m dayjob.lab.speed_server DATA``: the server, and below /empty the same server that stores nothing.

What lies below /empty authenticates, parses and answers as the server does; only the journal takes no time.
"""

import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from starlette.types import ASGIApp, Receive, Scope, Send

from dayjob.cli.serve import answer_until_stopped, assemble
from dayjob.config import load_config
from dayjob.endings import Receipt
from dayjob.journal.store import Store
from dayjob.journal.writes import Transaction
from dayjob.records import Written
from dayjob.serve.app import create_app

T = TypeVar("T")
EMPTY = "/empty"


class Nowhere(Store):
    """A journal that records nothing, at once."""

    def __init__(self) -> None:
        """There is nothing to open."""

    def asubmit(self, work: Callable[[Transaction], T]) -> "asyncio.Future[T]":
        """Say that it was recorded."""
        del work
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        done.set_result(Written(receipt=Receipt.RECORDED, seq=0))  # type: ignore[arg-type]
        return done


class Beside:
    """One application, and another below a prefix."""

    def __init__(self, app: ASGIApp, below: ASGIApp) -> None:
        self._app = app
        self._below = below

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "http" and scope["path"].startswith(EMPTY + "/"):
            scope["path"] = scope["path"].removeprefix(EMPTY)
            await self._below(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def main() -> None:
    """Serve until SIGTERM."""
    flags = {"data": Path(sys.argv[1]), "port": 0}
    settings = load_config(flags=flags, environ=os.environ, directory=Path.cwd()).config
    service = assemble(settings, ())
    empty = replace(service, hub=replace(service.hub, store=Nowhere()))
    answer_until_stopped(Beside(create_app(service), create_app(empty)), settings)


if __name__ == "__main__":
    main()
