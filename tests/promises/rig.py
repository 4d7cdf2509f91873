"""A real server process that is killed, stopped and starved, and clients that keep their own history of it.

The server is `dayjob serve` itself; only the loader of versions is the fakes', whose scores say which version answered,
except where a learner makes real ones (``learner=True``).
"""

import contextlib
import http.client
import json
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dayjob.endings import PolicyKind, VersionStatus
from dayjob.fakes import FakeRanker, publish_fake
from dayjob.journal.columns import DECISIONS, OUTCOMES
from dayjob.journal.control import Control
from dayjob.journal.rows import connect, row_decision, row_outcome, shown_ids
from dayjob.records import Version

BOOT = """
import sys, dayjob.cli.serve as serve
from dayjob import cli, fakes
serve.load_ranker = fakes.load_fake
cli.main()
"""
START_S = 120.0  # a busy machine takes long to start; a server that dies says so at once
PAUSE_S = 0.003  # of a client between an answer and its next question: it is there to be cut off, not to load
IDLE_S = 2.0  # servers close connections that say nothing for five
POLICY = "geo"
SPEC = {"kind": "ranker", "context_dim": 2, "candidate_dim": 2, "outcome_window_s": 600.0}
ITEMS = ("a", "b", "c")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer: its status, headers by lower-case name, and body."""

    status: int
    headers: dict[str, str]
    body: Any


class Link:
    """One keep-alive connection. Anything that goes wrong on the way is an OSError or HTTPException."""

    def __init__(self, port: int, timeout_s: float = 20.0) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
        self._used = time.monotonic()

    def __call__(self, method: str, path: str, body: Any = None) -> Reply:
        if time.monotonic() - self._used > IDLE_S:
            self._http.close()
        self._used = time.monotonic()
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            self._http.request(method, path, None if body is None else json.dumps(body), headers)
            answer = self._http.getresponse()
            raw = answer.read()
        except BaseException:
            self._http.close()
            raise
        found = {name.lower(): value for name, value in answer.getheaders()}
        is_json = found.get("content-type", "").startswith("application/json")
        return Reply(status=answer.status, headers=found, body=json.loads(raw) if is_json else raw)

    def ok(self, method: str, path: str, body: Any = None) -> Any:
        """The body of an answer that must be a good one."""
        reply = self(method, path, body)
        assert reply.status < 300, (method, path, reply.status, reply.body)
        return reply.body

    def close(self) -> None:
        self._http.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A server that answers."""

    process: "subprocess.Popen[str]"
    port: int
    data: Path
    links: list[Link] = field(default_factory=list)

    def link(self, timeout_s: float = 20.0) -> Link:
        """A connection of one's own; closed when the server ends."""
        self.links.append(Link(self.port, timeout_s))
        return self.links[-1]

    def children(self) -> list[int]:
        """The processes beside it."""
        found = list[int]()
        for thread in Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(OSError):  # a thread of the pool may end meanwhile
                found += map(int, (thread / "children").read_text().split())
        return found

    def helper(self, name: str, within_s: float = 60.0) -> int:
        """The process of the "learn" or "gate" beside it, waited for: it may be on its way back."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            for pid in self.children():
                with contextlib.suppress(OSError):
                    if f"\0{name}\0" in Path(f"/proc/{pid}/cmdline").read_text() and not is_dead(pid):
                        return pid
            time.sleep(0.02)
        raise AssertionError(f"there is no {name} beside the server")

    def cpu_s(self) -> float:
        """Seconds of processor time that the server has used: how long it takes where nobody else works."""
        used = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(used[11]) + int(used[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """SIGKILL: no chance to say goodbye. Its judge ends by itself."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def is_dead(pid: int) -> bool:
    """Whether a process is gone, or only its name is left."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@contextlib.contextmanager
def serving(
    data: Path, *arguments: str, environ: Mapping[str, str] | None = None, learner: bool = False
) -> Iterator[Running]:
    """A server over ``data``; killed at the end if it still runs. With ``learner`` nothing in it is a fake."""
    data.parent.mkdir(parents=True, exist_ok=True)
    log = data.parent / "server.log"
    program = ["-m", "dayjob", "serve"] if learner else ["-c", BOOT, "serve", "--no-learner"]
    command = [sys.executable, *program, "--data", str(data), "--port", "0", *arguments]
    with log.open("ab") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL, text=True, cwd=data.parent,
            env={**os.environ, **(environ or {})},
        )  # fmt: skip
    links: list[Link] = []
    try:
        yield Running(process=process, port=_port(process, log), data=data, links=links)
    finally:
        for link in links:
            link.close()
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _port(process: "subprocess.Popen[str]", log: Path) -> int:
    lines: queue.Queue[str] = queue.Queue()
    out = process.stdout
    assert out is not None
    threading.Thread(target=lambda: lines.put(out.readline()), daemon=True).start()
    with contextlib.suppress(queue.Empty):
        line = lines.get(timeout=START_S)
        if line:
            return int(line.rsplit(":", 1)[1])
    raise AssertionError(f"the server did not start: {log.read_text(errors='replace')[-2000:]}")


def add_version(root: Path, ranker: FakeRanker, *, status: VersionStatus = VersionStatus.RETIRED) -> str:
    """Publish and register a version of the rig's policy; its name."""
    stored = publish_fake(root, "default", POLICY, ranker=ranker)
    made = Version(
        tenant="default", policy=POLICY, name=stored.version, number=ranker.number, parent="v0-baseline",
        recipe="fake", digest=stored.digest, from_seq=0, to_seq=0, status=status, created_ms=0,
    )  # fmt: skip
    control = Control(root)
    control.add_version(made)
    control.db().close()
    return stored.version


def rank_body(number: int, *, decision_id: str | None = None) -> dict[str, Any]:
    """A question whose parts all depend on ``number``."""
    scores = [((number * 7 + n * 13) % 50) / 10 for n in range(len(ITEMS))]
    body: dict[str, Any] = {
        "policy": POLICY, "user": f"u{number % 7}", "context": {"features": [1.0, float(number % 5)]},
        "candidates": [
            {"id": item, "features": [1.0, float(n)], "score": score}
            for n, (item, score) in enumerate(zip(ITEMS, scores, strict=True))
        ],
    }  # fmt: skip
    return body if decision_id is None else body | {"id": decision_id}


def versions_of(answer: Mapping[str, Any]) -> set[int]:
    """The numbers of the versions whose scores are in an answer."""
    return {round(place["score"]) for place in answer["ranking"]}


@dataclass(slots=True)
class History:
    """What one client asked and what it was told. ``asked``: every body sent, by path and id."""

    asked: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    told: dict[tuple[str, str], Any] = field(default_factory=dict)
    surprises: list[str] = field(default_factory=list)
    cut: int = 0  # requests that never got an answer
    sent: list[tuple[str, str]] = field(default_factory=list)  # the keys of ``asked``, to choose from
    decided: list[str] = field(default_factory=list)  # the decisions of ``told``


class Worker(threading.Thread):
    """A client: ranks, gives feedback, and repeats what was cut off or answered, which must change nothing."""

    def __init__(self, ports: "Ports", seed: int) -> None:
        super().__init__(daemon=True)
        self.history = History()
        self.ports = ports
        self.dice = random.Random(seed)
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.is_set():
            port = self.ports.now
            link = Link(port, 5.0)
            while port and self.ports.now == port and not self.stopping.is_set():
                path, body = self._next()
                key = (path, body["id"])
                if key not in self.history.asked:
                    self.history.asked[key] = body
                    self.history.sent.append(key)
                try:
                    reply = link("POST", path, body)
                except (OSError, http.client.HTTPException):
                    self.history.cut += 1
                    time.sleep(0.005)
                else:
                    self._hear(path, body, reply)
                    time.sleep(PAUSE_S)
            link.close()
            time.sleep(0.005)

    def _next(self) -> tuple[str, dict[str, Any]]:
        history = self.history
        luck = self.dice.random()
        if history.sent and luck < 0.15:
            key = self.dice.choice(history.sent)
            return key[0], history.asked[key]
        name = str(uuid.UUID(int=self.dice.getrandbits(128), version=4))
        if history.decided and luck < 0.55:
            about = self.dice.choice(history.decided)
            return "/v1/feedback", {"id": name, "decision": about, "kind": "click", "position": 1 + len(about) % 3}
        return "/v1/rank", rank_body(self.dice.randrange(10**6), decision_id=name)

    def _hear(self, path: str, body: Mapping[str, Any], reply: Reply) -> None:
        key = (path, str(body["id"]))
        if reply.status in (200, 201):
            if path == "/v1/rank" and key not in self.history.told:
                self.history.decided.append(key[1])
            known = self.history.told.setdefault(key, reply.body)
            if path == "/v1/rank" and known != reply.body:
                self.history.surprises.append(f"two answers to one id: {known} and {reply.body}")
        elif reply.status not in (429, 503):
            self.history.surprises.append(f"{path} answered {reply.status}: {reply.body}")

    def end(self) -> History:
        self.stopping.set()
        self.join(60)
        return self.history


@dataclass(slots=True)
class Ports:
    """Where the server is now; 0 while it is dead."""

    now: int = 0


def merged(histories: list[History]) -> History:
    """Several clients' histories in one: their ids are their own."""
    out = History()
    for history in histories:
        out.asked |= history.asked
        out.told |= history.told
        out.surprises += history.surprises
        out.cut += history.cut
    return out


def check_history(history: History, root: Path) -> None:
    """The journal against what its clients were told: nothing acknowledged is lost, doubled, changed or invented."""
    db = connect(root / "journal.db", write=False)
    decisions = {s.record.id: s for s in map(row_decision, db.execute(DECISIONS.select("ORDER BY seq")))}
    outcomes = {o.record.id: o for o in map(row_outcome, db.execute(OUTCOMES.select("ORDER BY seq")))}
    counts = {"click": 0} | dict(db.execute("SELECT what, n FROM counts"))
    assert db.pragma("integrity_check") == "ok"
    db.close()
    assert history.surprises == []
    for (path, one), answer in history.told.items():
        if path == "/v1/rank":
            assert one in decisions, f"decision {one} was acknowledged and is lost"
            record = decisions[one].record
            known = [candidate.id for candidate in record.candidates]
            shown = shown_ids(PolicyKind.RANKER, known, ranking=record.ranking)
            assert [place["id"] for place in answer["ranking"]] == shown
            assert (answer["version"], answer["log_propensity"]) == (record.version, record.log_propensity)
        else:
            assert one in outcomes, f"outcome {one} was acknowledged and is lost"
            assert outcomes[one].record.decision == history.asked[path, one]["decision"]
    assert {("/v1/rank", one) for one in decisions} | {("/v1/feedback", one) for one in outcomes} <= set(history.asked)
    seqs = sorted([s.seq for s in decisions.values()] + [o.seq for o in outcomes.values()])
    assert seqs == list(range(1, len(seqs) + 1)), "one place each, none left out"
    assert counts == {"decisions": len(decisions), "click": len(outcomes), "seq": len(seqs)}
