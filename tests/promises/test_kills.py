"""F1, F11: processes killed and stopped at any moment. Nothing acknowledged is lost or doubled; serving goes on."""

import contextlib
import http.client
import multiprocessing
import os
import random
import shutil
import signal
import threading
import time
import uuid
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import apsw
import pytest

from dayjob.fakes import FakeClock, FakeRanker, load_fake
from dayjob.gate.judge import Judge
from dayjob.journal.control import Control
from dayjob.journal.readers import Reader
from dayjob.records import Json
from tests.gate.trials import AT, BASELINE, KEY, open_world
from tests.promises.rig import (
    POLICY,
    SPEC,
    History,
    Link,
    Ports,
    Reply,
    Running,
    Worker,
    add_version,
    check_history,
    is_dead,
    merged,
    rank_body,
    serving,
    versions_of,
)

BACK_WITHIN_S = 3.0
SLOWEST_S = 4.0  # on a busy machine; who waits for what is held by a stopped process waits five, or for ever


# ---- the server ------------------------------------------------------------------------------------------------------


def steer(ports: Ports, names: list[str], stop: threading.Event, *, seed: int) -> None:
    """Promote and roll back at random, so that kills fall between those too."""
    dice = random.Random(seed)
    while not stop.wait(0.05):
        link = Link(ports.now, 5.0)
        with contextlib.suppress(OSError, http.client.HTTPException):
            if ports.now and dice.random() < 0.5:
                body = {"version": dice.choice(names), "reason": "a test"}
                link("POST", f"/v1/policies/{POLICY}/promote", body)
            elif ports.now:
                link("POST", f"/v1/policies/{POLICY}/rollback", {})
        link.close()


def probe(server: Running, history: History) -> None:
    """A first question after a start: it must be answered, by one version."""
    body = rank_body(0, decision_id=str(uuid.uuid4()))
    answer = server.link().ok("POST", "/v1/rank", body)
    history.asked["/v1/rank", body["id"]], history.told["/v1/rank", body["id"]] = body, answer


def send_again(server: Running, history: History) -> None:
    """What was answered is answered the same; what was cut off is answered now."""
    link = server.link()
    for (path, one), body in list(history.asked.items())[:: max(1, len(history.asked) // 150)]:
        reply = link("POST", path, body)
        assert reply.status in (200, 201), reply
        if path == "/v1/rank":
            assert history.told.setdefault((path, one), reply.body) == reply.body
        elif (path, one) in history.told:
            assert reply.status == 200, "a repeated outcome is not recorded again"


@dataclass(frozen=True, slots=True)
class Report:
    """What became of many kills: answers acknowledged, and the slowest return, by the clock and by processor time."""

    acknowledged: int
    slowest_s: float
    slowest_cpu_s: float


def kill_again_and_again(data: Path, *, rounds: int, seed: int) -> Report:
    """Kill a loaded server ``rounds`` times, then check its journal against what its clients were told."""
    dice, ports, stop, probes = random.Random(seed), Ports(), threading.Event(), History()
    with serving(data) as first:
        first.link().ok("PUT", f"/v1/policies/{POLICY}", SPEC)
        assert first.stop() == 0
    names = [add_version(data, FakeRanker(number)) for number in (1, 2, 3)]
    workers = [Worker(ports, seed * 100 + n) for n in range(6)]
    steering = threading.Thread(target=steer, args=(ports, names, stop), kwargs={"seed": seed}, daemon=True)
    for each in (*workers, steering):
        each.start()
    slowest, busiest, killed = 0.0, 0.0, None
    for _ in range(rounds):
        with serving(data) as server:
            probe(server, probes)
            slowest = slowest if killed is None else max(slowest, time.monotonic() - killed)
            busiest = max(busiest, server.cpu_s())
            ports.now = server.port
            time.sleep(0.2 + dice.random() * 0.5)
            ports.now = 0
            killed = time.monotonic()
            server.kill()
    stop.set()
    steering.join(60)
    history = merged([probes, *(worker.end() for worker in workers)])
    with serving(data) as last:
        send_again(last, history)
        assert last.stop() == 0
    check_history(history, data)
    for (path, _), answer in history.told.items():
        if path == "/v1/rank":
            check_version(answer)
    return Report(len(history.told), slowest, busiest)


def check_version(answer: Json) -> None:
    """An answer comes of one version, the one that it names."""
    number = int(answer["version"].partition("-")[0].removeprefix("v"))
    assert number == 0 or versions_of(answer) == {number}, answer


@pytest.mark.timeout(120)
def test_a_loaded_server_is_killed_and_nothing_acknowledged_is_lost_or_doubled(tmp_path: Path) -> None:
    """By processor time here, because tests run side by side; by the clock in the long one."""
    found = kill_again_and_again(tmp_path / "data", rounds=3, seed=11)
    assert found.acknowledged > 30
    assert found.slowest_cpu_s < BACK_WITHIN_S


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_hundred_kills(tmp_path: Path) -> None:
    found = kill_again_and_again(tmp_path / "data", rounds=100, seed=12)
    assert found.acknowledged > 5_000
    assert found.slowest_s < BACK_WITHIN_S


def test_the_checker_itself_finds_what_is_lost_and_what_is_invented(tmp_path: Path) -> None:
    data, history = tmp_path / "data", History()
    with serving(data, "--no-judge") as server:
        server.link().ok("PUT", f"/v1/policies/{POLICY}", SPEC)
        for _ in range(2):
            probe(server, history)
        assert server.stop() == 0
    check_history(history, data)
    one = next(iter(history.told))
    invented = replace(history, asked={key: body for key, body in history.asked.items() if key != one}, told={})
    with pytest.raises(AssertionError):
        check_history(invented, data)
    db = apsw.Connection(str(data / "journal.db"))
    db.execute("DELETE FROM decisions WHERE id=?", (one[1],))
    db.close()
    with pytest.raises(AssertionError, match="is lost"):
        check_history(history, data)


# ---- the judge -------------------------------------------------------------------------------------------------------


def judge_for_ever(root: str, holder: str) -> None:
    """A judge's process: it ends when it is killed, or has judged everything."""
    path = Path(root)
    judge = Judge(
        Control(path), Reader(path), load_ranker=partial(load_fake, path), holder=holder,
        now_ms=FakeClock(AT),
    )  # fmt: skip
    while judge.step():
        pass


def verdict_of(root: Path) -> tuple[Json | None, str, list[str]]:
    """What the judges left: the docket, the champion, the verdicts."""
    control = Control(root)
    verdicts = [f"{v.kind} {v.challenger}" for v in control.verdicts(*KEY)]
    return control.state(*KEY, "judge"), control.pointers(*KEY).champion, verdicts


@pytest.mark.timeout(120)
def test_a_judge_killed_at_any_moment_comes_to_the_same_verdict(tmp_path: Path) -> None:
    world = open_world(tmp_path / "killed")
    challengers = [world.add(number) for number in (1, 2)]
    world.trial(BASELINE, challengers[-1], 1_200, favour=0.56, seed=4)
    world.close()
    shutil.copytree(tmp_path / "killed", tmp_path / "quiet")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.promises.test_kills"])

    def judging(name: str, holder: str) -> BaseProcess:
        control = Control(tmp_path / name)
        control.db().execute("UPDATE leases SET until_ms=0")  # a dead judge's lease runs out
        control.db().close()
        process = context.Process(target=judge_for_ever, args=(str(tmp_path / name), holder))
        process.start()
        return process

    first = judging("killed", "warms the server of forks up")
    first.kill()
    first.join()
    began = time.monotonic()
    quiet = judging("quiet", "quiet")
    quiet.join()
    whole_s = time.monotonic() - began
    assert quiet.exitcode == 0
    dice = random.Random(5)
    for number in range(8):
        judge = judging("killed", f"judge-{number}")
        time.sleep(whole_s * 0.4 * dice.random())
        judge.kill()
        judge.join()
    last = judging("killed", "last")
    last.join()
    assert last.exitcode == 0
    assert verdict_of(tmp_path / "killed") == verdict_of(tmp_path / "quiet")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the judge's process by Linux's /proc")
def test_a_judge_that_is_stopped_or_killed_does_not_touch_serving_and_is_restarted(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serving(data) as server:
        link = server.link()
        link.ok("PUT", f"/v1/policies/{POLICY}", SPEC)
        name = add_version(data, FakeRanker(1))
        link.ok("POST", f"/v1/policies/{POLICY}/promote", {"version": name, "reason": "a test"})
        (judge,) = server.children()
        os.kill(judge, signal.SIGSTOP)
        slowest = 0.0
        for number in range(60):
            began = time.monotonic()
            link.ok("POST", "/v1/rank", rank_body(number))
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < SLOWEST_S
        began = time.monotonic()
        link.ok("POST", f"/v1/policies/{POLICY}/rollback", {})
        answer = link.ok("POST", "/v1/rank", rank_body(1))
        assert time.monotonic() - began < SLOWEST_S
        assert answer["version"] == BASELINE
        os.kill(judge, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while (found := server.children()) in ([], [judge]):
            assert time.monotonic() < deadline, "the judge was not restarted"
            time.sleep(0.05)
        assert judge not in found
        assert server.stop() == 0


def test_a_judge_ends_when_its_server_is_killed(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        (judge,) = server.children()
        server.kill()
        deadline = time.monotonic() + 60
        while not is_dead(judge):
            assert time.monotonic() < deadline, "a judge that nobody sees goes on moving pointers"
            time.sleep(0.05)


# ---- a stuck writer --------------------------------------------------------------------------------------------------


def test_a_stuck_writer_sheds_load_with_retry_after_and_loses_nothing(tmp_path: Path) -> None:
    data, limit = tmp_path / "data", 4
    with serving(data, "--no-judge", environ={"DAYJOB_QUEUE_LIMIT": str(limit)}) as server:
        server.link().ok("PUT", f"/v1/policies/{POLICY}", SPEC)
        blocker = apsw.Connection(str(data / "journal.db"))
        blocker.execute("BEGIN IMMEDIATE")
        replies: list[Reply] = []
        asking = [
            threading.Thread(target=lambda n=n: replies.append(server.link()("POST", "/v1/rank", rank_body(n))))
            for n in range(30)
        ]
        for each in asking:
            each.start()
        deadline = time.monotonic() + 4
        while len(replies) < 30 - limit - 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        shed = list(replies)
        began = time.monotonic()
        server.link().ok("GET", f"/v1/policies/{POLICY}")
        assert time.monotonic() - began < SLOWEST_S, "reads go on"
        blocker.execute("ROLLBACK")
        blocker.close()
        for each in asking:
            each.join(60)
        assert len(shed) >= 20
        assert {reply.status for reply in shed} == {429}
        assert all(int(reply.headers["retry-after"]) >= 1 for reply in shed)
        assert all(reply.body["error"]["type"] == "rate_limit_error" for reply in shed)
        answered = [reply.body["id"] for reply in replies if reply.status == 200]
        assert len(answered) >= limit
        assert len(replies) == 30
        assert {reply.status for reply in replies} == {200, 429}
        assert server.link().ok("POST", "/v1/rank", rank_body(99))["id"]
        assert server.stop() == 0
    stored = {one.record.id for one in Reader(data).decisions("default", POLICY)[0]}
    assert set(answered) < stored
    assert len(stored) == len(answered) + 1
