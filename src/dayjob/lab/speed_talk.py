"""A language policy behind a real server: start to first answer, and swaps of its version while people talk to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from dayjob.client import Client
from dayjob.client_types import LanguageSpec
from dayjob.endings import DayjobError, VersionStatus
from dayjob.journal import versions
from dayjob.journal.control import Control
from dayjob.lab.server import Server, running
from dayjob.lab.speed_language import random_adapter
from dayjob.lab.speed_rows import Row, row
from dayjob.policies.language_train import LoraShape
from dayjob.records import Version

POLICY, TENANT = "clerk", "default"
STARTS, SWAPS, TALKERS = 3, 10, 4
PAUSE_S = 0.5  # between two swaps
QUESTION = ({"role": "user", "content": "What is the capital of France?"},)


def measure(root: Path, *, base: Path) -> list[Row]:
    """``base``: a model's folder with a chat template."""
    data = root / "talk"
    environ = {"DAYJOB_BASES": f"base={base.resolve()}"}
    with running(data, environ=environ) as server, Client(server.url) as client:
        client.put_policy(POLICY, LanguageSpec(base="base"))
        _ask(client)
        server.stop()
    version = _publish(data, base)
    starts = [_start_s(data, environ) for _ in range(STARTS)]
    with running(data, environ=environ) as server, Client(server.url) as client:
        rows = _swap_rows(server, client, version)
        server.stop()
    return [row("language: start to first answer", starts, unit="s", mark="<= 10"), *rows]


def _ask(client: Client, *, max_tokens: int = 8) -> str:
    """The version that answered."""
    return client.chat(POLICY, list(QUESTION), max_tokens=max_tokens).version


def _start_s(data: Path, environ: dict[str, str]) -> float:
    began = time.perf_counter()
    with running(data, environ=environ) as server, Client(server.url) as client:
        _ask(client)
        took_s = time.perf_counter() - began
        server.stop()
    return took_s


def _publish(data: Path, base: Path) -> str:
    """A random adapter as a waiting version; its name."""
    shape = LoraShape()
    files = random_adapter(base, shape=shape, seed=1)
    network = {"base": "base", "lora": asdict(shape) | {"layers": list(shape.layers)}}
    manifest = versions.VersionManifest(recipe="lab", network=network, from_seq=0, to_seq=0, seed=1, created_ms=0)
    stored = versions.publish_files(data, TENANT, POLICY, number=1, files=files, manifest=manifest)
    Control(data).add_version(
        Version(
            tenant=TENANT, policy=POLICY, name=stored.version, number=1, parent=None, recipe="lab",
            digest=stored.digest, from_seq=0, to_seq=0, status=VersionStatus.WAITING, created_ms=0,
        )
    )  # fmt: skip
    return stored.version


class _Talker(threading.Thread):
    """Somebody who asks, waits for the answer and asks again."""

    def __init__(self, url: str, done: threading.Event) -> None:
        super().__init__()
        self.waits: list[float] = []
        self.errors: list[str] = []
        self._url, self._done = url, done

    def run(self) -> None:
        """Until the others are done."""
        with Client(self._url) as client:
            while not self._done.is_set():
                began = time.perf_counter()
                try:
                    _ask(client, max_tokens=16)
                    self.waits.append(time.perf_counter() - began)
                except DayjobError as error:
                    self.errors.append(str(error))


def _swap_rows(server: Server, client: Client, version: str) -> list[Row]:
    """Promotions and rollbacks by hand: until the next answer comes from the other version."""
    done = threading.Event()
    talkers = [_Talker(server.url, done) for _ in range(TALKERS)]
    for one in talkers:
        one.start()
    baseline, waits = client.policy(POLICY).baseline, []
    for n in range(SWAPS):
        began = time.perf_counter()
        if n % 2:
            client.rollback(POLICY, to=baseline)
        else:
            client.promote(POLICY, version, reason="measured")
        wanted = baseline if n % 2 else version
        while _ask(client, max_tokens=1) != wanted:
            pass
        waits.append(time.perf_counter() - began)
        time.sleep(PAUSE_S)
    done.set()
    for one in talkers:
        one.join()
    errors = [error for one in talkers for error in one.errors]
    told = f"{SWAPS} swaps of an adapter, {TALKERS} people talking"
    return [
        row(f"{told}: failed requests", len(errors), mark="<= 0", note=errors[0] if errors else ""),
        row(f"{told}: p99 of an answer", 1000 * _p99(talkers), unit="ms", mark="<= 1000"),
        row(f"{told}: swap to first answer", waits, unit="s", mark="<= 1", note=f"slowest {max(waits):.2f} s"),
    ]


def _p99(talkers: Sequence[_Talker]) -> float:
    waits = sorted(wait for one in talkers for wait in one.waits)
    return waits[min(len(waits) - 1, int(0.99 * len(waits)))]
