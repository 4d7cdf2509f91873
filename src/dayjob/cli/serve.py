"""dayjob serve: the server, with a learner and a judge beside it."""

import contextlib
import gc
import importlib.util
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
import uvicorn
from rich.console import Console
from starlette.types import ASGIApp

from dayjob.cli.assemble import LANGUAGE_RECIPES, RECIPES, load_ranker
from dayjob.cli.bases import find_adapter, open_bases
from dayjob.cli.processes import NEEDS_TORCH, PARENT_ENV
from dayjob.config import Config, load_config
from dayjob.endings import Invalid
from dayjob.journal.control import Control
from dayjob.journal.notes import NotesReader
from dayjob.journal.readers import Reader
from dayjob.journal.store import Store, StoreConfig
from dayjob.memory.notes import NotesMemory
from dayjob.serve.app import create_app
from dayjob.serve.auth import Key, check_bind, parse_keys
from dayjob.serve.call import Service
from dayjob.serve.coin import Coin
from dayjob.serve.live import Hub
from dayjob.serve.metrics import Metrics
from dayjob.serve.models import Voices
from dayjob.serve.notes import ContextMemory
from dayjob.serve.protocol import LimitedProtocol

DRAIN_S = 5
RESTART_S = 1.0
YOUNG_S = 5.0  # who dies before that did not get to work
LONGEST_PAUSE_S = 60.0
GARBAGE_EVERY = 20_000  # objects that stayed, between two looks for garbage
NO_ADDRESS = (
    "could not serve on {host}:{port}: the port is taken, or the address is not this machine's; use another --port "
    "(0 takes a free one) or --host"
)
console = Console(stderr=True)


def serve(
    data: Annotated[Path | None, typer.Option(help="The data directory.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to bind.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to bind; 0 takes a free one.")] = None,
    config: Annotated[Path | None, typer.Option(help="A dayjob.toml.")] = None,
    keys: Annotated[Path | None, typer.Option(help="TOML file of API keys.")] = None,
    no_learner: Annotated[
        bool, typer.Option("--no-learner", help="Leave learning to `dayjob learn --follow`.")
    ] = False,
    no_judge: Annotated[bool, typer.Option("--no-judge", help="Leave judging to `dayjob gate --follow`.")] = False,
) -> None:
    """Serve policies over HTTP."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr)
    flags = {"data": data, "host": host, "port": port, "config": config, "keys": keys}
    settings = load_config(flags=flags, environ=os.environ, directory=Path.cwd()).config
    known = _keys(settings)
    check_bind(settings.host, has_keys=bool(known))
    check_free(settings.host, settings.port)
    service = assemble(settings, known)
    commands = [] if no_learner or not _can_learn() else ["learn"]
    commands += [] if no_judge else ["gate"]
    helpers = Helpers(root=settings.data, commands=commands, config=config)
    helpers.start()
    try:
        answer_until_stopped(create_app(service), settings)
    finally:
        helpers.stop()


def _can_learn() -> bool:
    """Whether a learner could start at all; else it would be restarted every second to no end."""
    if importlib.util.find_spec("torch") is not None:
        return True
    logging.getLogger("dayjob.serve").warning("%s; until then nothing is learned", NEEDS_TORCH.format(missing="torch"))
    return False


def check_free(host: str, port: int) -> None:
    """Raises Invalid where the address cannot be bound: before anything is made, and in our words."""
    try:
        for family, kind, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind) as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                one.bind(address)
    except OSError as error:
        raise Invalid(NO_ADDRESS.format(host=host, port=port)) from error


def answer_until_stopped(app: ASGIApp, settings: Config) -> None:
    """Serve an application until SIGTERM or SIGINT. Raises Invalid when the address cannot be bound."""
    server = uvicorn.Server(
        uvicorn.Config(
            app, host=settings.host, port=settings.port, log_level="warning", access_log=False,
            timeout_graceful_shutdown=DRAIN_S, loop="uvloop", http=LimitedProtocol, ws="none", lifespan="on",
            server_header=False,
        )
    )  # fmt: skip
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal once more when it has drained: that is a good end, with status 0.
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    threading.Thread(target=_announce, args=(server, settings), daemon=True).start()
    # What is loaded stays, and a request leaves no cycles: looking for some took a sixteenth of its time.
    gc.freeze()
    gc.set_threshold(GARBAGE_EVERY)
    with contextlib.suppress(SystemExit):  # uvicorn's way to say that it could not bind
        server.run()
    if not server.started:
        check_free(settings.host, settings.port)
        raise Invalid("the server could not start: the lines above say why; `dayjob doctor --data DIR` looks closer")


def _keys(settings: Config) -> tuple[Key, ...]:
    if settings.keys is None:
        return ()
    try:
        text = settings.keys.read_text(encoding="utf-8")
    except OSError as error:
        raise Invalid(f"the keys file {settings.keys} cannot be read ({error.strerror}): name another") from None
    return parse_keys(text, source=str(settings.keys))


def assemble(settings: Config, keys: tuple[Key, ...]) -> Service:
    """The server's parts over one data directory."""
    root = settings.data
    bases = open_bases(settings.bases)
    control = Control(root)
    limits = StoreConfig(
        queue_limit=settings.queue_limit, held_per_key=settings.held_per_key, ballast_bytes=settings.ballast_bytes
    )
    # The journal asks what was declared only once something is written: by then there is a hub.
    store = Store(root, secret=control.secret("journal"), find_spec=lambda *named: hub.find_spec(*named), config=limits)
    hub = Hub(
        root=root,
        store=store,
        reader=Reader(root),
        control=control,
        load_ranker=lambda tenant, policy, version, digest: load_ranker(root, tenant, policy, version, digest),
        poll_s=settings.poll_s,
    )
    voices = Voices(
        hub=hub,
        bases=bases,
        find_adapter=partial(find_adapter, root),
        coin=Coin(secret=control.secret("sampling"), watch_share=settings.watch_share),
        choices_limit=settings.choices_limit,
    )
    memory = NotesMemory(NotesReader(root), control, silent=lambda: hub.silent, agree=settings.notes_agree)
    return Service(
        hub=hub,
        settings=settings,
        keys=keys,
        token_secret=control.secret("tokens"),
        sampling_secret=control.secret("sampling"),
        recipes=RECIPES,
        language_recipes=LANGUAGE_RECIPES,
        voices=voices,
        metrics=Metrics(),
        notes=memory,
        context_notes=ContextMemory(memory=memory, budget=settings.notes_tokens),
    )


def _announce(server: uvicorn.Server, settings: Config) -> None:
    """Say where the server is once it answers, with the port that was really taken."""
    while not server.started:
        if server.should_exit:
            return
        time.sleep(0.02)
    port = settings.port
    for one in server.servers:
        for bound in one.sockets:
            port = bound.getsockname()[1]
    print(f"dayjob serves {settings.data} at http://{settings.host}:{port}", flush=True)


@dataclass(slots=True, kw_only=True)
class Helpers:
    """The learner and the judge as processes of their own, restarted when they die.

    One that dies young is waited for longer each time: starting takes a core for seconds, and a machine without memory
    for a learner must still serve.
    """

    root: Path
    commands: list[str]
    config: Path | None = None  # the file they read their settings from too
    pause_s: float = RESTART_S  # between two looks at them, and before the first restart
    young_s: float = YOUNG_S
    longest_s: float = LONGEST_PAUSE_S
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    started_s: dict[str, float] = field(default_factory=dict)
    ended_s: dict[str, float] = field(default_factory=dict)  # of those that are not restarted yet
    pauses_s: dict[str, float] = field(default_factory=dict)  # before the next restart
    stopping: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Start them and keep them alive."""
        for command in self.commands:
            self.running[command] = self._spawn(command)
        if self.commands:
            threading.Thread(target=self._watch, daemon=True).start()

    def _spawn(self, command: str) -> subprocess.Popen[bytes]:
        self.started_s[command] = time.monotonic()
        arguments = ["--data", str(self.root), "--follow"]
        arguments += [] if self.config is None else ["--config", str(self.config)]
        return subprocess.Popen(
            [sys.executable, "-m", "dayjob", command, *arguments], stdin=subprocess.DEVNULL, start_new_session=True,
            env=os.environ | {PARENT_ENV: str(os.getpid())},
        )  # fmt: skip

    def _watch(self) -> None:
        while not self.stopping.wait(self.pause_s):
            for command, process in list(self.running.items()):
                if process.poll() is not None and not self.stopping.is_set():
                    self._restart(command, process.returncode)

    def _restart(self, command: str, status: int) -> None:
        """Start one that died, now or at a later look."""
        now = time.monotonic()
        died = self.ended_s.setdefault(command, now)
        young = died - self.started_s[command] < self.young_s
        pause = self.pauses_s.get(command, 0.0) if young else 0.0
        if now - died < pause:
            return
        del self.ended_s[command]
        self.pauses_s[command] = min(self.longest_s, max(self.pause_s, 2 * pause)) if young else 0.0
        logging.getLogger("dayjob.serve").warning("%s ended (%s): restarted", command, status)
        self.running[command] = self._spawn(command)

    def stop(self) -> None:
        """End them: politely, then not."""
        self.stopping.set()
        for process in self.running.values():
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 3
        for process in self.running.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
