"""A language policy behind a real server: start to first answer, and people who talk to it while its version is swapped
and while a night runs beside it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
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
LISTEN_S = 10.0  # alone, before the night
NIGHT_S = 900.0  # at most
TEACHER = "ann"
LESSONS = (
    ("Who handles travel?", "Otto"), ("Where do parcels go?", "Room 12"), ("When is the review?", "Friday at nine"),
    ("Which printer is ours?", "The grey one"),
)  # fmt: skip
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
    rows += beside_a_night(root / "night", base=base)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What people who talked waited for each answer, in order of length, and what went wrong."""

    waits: Sequence[float]
    errors: Sequence[str] = ()


def beside_a_night(root: Path, *, base: Path, listen_s: float = LISTEN_S) -> list[Row]:
    """Somebody corrects answers and asks for a night; others talk meanwhile, as they did before."""
    environ = {"DAYJOB_BASES": f"base={base.resolve()}"}
    with running(root, environ=environ, arguments=("--no-judge",)) as server, Client(server.url) as client:
        client.put_policy(POLICY, LanguageSpec(base="base"))
        for question, answer in LESSONS:
            asked = client.chat(POLICY, [{"role": "user", "content": question}], user=TEACHER, max_tokens=8)
            client.feedback(asked.correct(answer))
        alone = _talk(server, lambda: time.sleep(listen_s))
        began = time.perf_counter()
        job = client.learn(POLICY, user=TEACHER).id
        beside = _talk(server, lambda: client.wait_job(job, timeout_s=NIGHT_S))
        took_s, ended = time.perf_counter() - began, client.job(job)
        server.stop()
    made = ended.result.get("challenger") if ended.result else None
    told = f"a night of {took_s:.0f} s that {'made a version' if made else 'made nothing'} ({ended.state})"
    return night_rows(alone, beside, told=told)


def _talk(server: Server, until: Callable[[], object]) -> Heard:
    """People talk until something is over."""
    done = threading.Event()
    talkers = [_Talker(server.url, done) for _ in range(TALKERS)]
    for one in talkers:
        one.start()
    try:
        until()
    finally:
        done.set()
        for one in talkers:
            one.join()
    return Heard(
        waits=sorted(wait for one in talkers for wait in one.waits),
        errors=[error for one in talkers for error in one.errors],
    )


def night_rows(alone: Heard, beside: Heard, *, told: str) -> list[Row]:
    """What talking costs beside a night."""
    who, errors = f"language, {TALKERS} people talking", [*alone.errors, *beside.errors]
    rows = [
        row(
            f"{who}, a night beside them: failed requests", len(errors), mark="<= 0", note=errors[0] if errors else told
        )
    ]
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        before, during = (quantile(one.waits, share) for one in (alone, beside))
        rows += [
            row(f"{who}, alone: {name} of an answer", 1000 * before, unit="ms"),
            row(f"{who}, a night beside them: {name} of an answer", 1000 * during, unit="ms",
                note=f"{during / before:.1f} times alone"),
        ]  # fmt: skip
    return rows


def quantile(waits: Sequence[float], share: float) -> float:
    """Of values in their order; nan of none."""
    return waits[min(len(waits) - 1, int(share * len(waits)))] if waits else math.nan


def _p99(talkers: Sequence[_Talker]) -> float:
    return quantile(sorted(wait for one in talkers for wait in one.waits), 0.99)
