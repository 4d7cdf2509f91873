"""F1, F11, F12 with a learner: killed with everything else while it promotes, stopped, starved of memory.

Nothing acknowledged is lost, nothing unverified serves, serving does not notice, and the job is taken up again.
"""

import contextlib
import http.client
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import apsw
import pytest

from dayjob.endings import JobState
from dayjob.journal.control import Control
from tests.promises.learning import KEY, ask, at_work, check_versions, declare, end_leases, jobs, listed, teach, until
from tests.promises.rig import POLICY, Link, Ports, Running, Worker, check_history, is_dead, merged, rank_body, serving

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes by Linux's /proc")
SLOWEST_S = 4.0  # on a busy machine; who waits for what is held by a stopped process waits five, or for ever


def promote_and_roll_back(ports: Ports, stop: threading.Event, *, seed: int) -> None:
    """Ask for versions and move between all there are, so that kills fall between those too."""
    dice = random.Random(seed)
    while not stop.wait(0.05):
        link = Link(ports.now, 5.0)
        with contextlib.suppress(OSError, http.client.HTTPException, AssertionError):
            if ports.now:
                name = dice.choice(listed(link))
                if dice.random() < 0.3:
                    ask(link)
                elif dice.random() < 0.6:
                    link("POST", f"/v1/policies/{POLICY}/promote", {"version": name, "reason": "a test"})
                else:
                    link("POST", f"/v1/policies/{POLICY}/rollback", {})
        link.close()


def kill_all(server: Running, dice: random.Random) -> None:
    """Server, judge and learner, in any order, with any pause between."""
    victims = [*server.children(), server.process.pid]
    dice.shuffle(victims)
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        time.sleep(dice.choice((0.0, 0.0, 0.1)))
    for pid in server.children() if server.process.poll() is None else []:  # one that was just restarted
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    server.process.wait()


def kill_everything(data: Path, *, rounds: int, seed: int) -> list[str]:
    """Kill all three ``rounds`` times while they learn and promote; then see that all came through. The versions."""
    dice, ports, stop = random.Random(seed), Ports(), threading.Event()
    workers = [Worker(ports, seed * 100 + n) for n in range(3)]
    with serving(data, "--no-learner", learner=True) as first:
        declare(first.link())
        first.stop()
    steering = threading.Thread(target=promote_and_roll_back, args=(ports, stop), kwargs={"seed": seed}, daemon=True)
    for each in (*workers, steering):
        each.start()
    for _ in range(rounds):
        with serving(data, learner=True) as server:
            ports.now = server.port
            began_ms = int(time.time() * 1000)
            until(partial(at_work, data, began_ms), "a learner at work")
            time.sleep(dice.random())
            ports.now = 0
            kill_all(server, dice)
        end_leases(data)
    stop.set()
    steering.join(30)
    history = merged([worker.end() for worker in workers])
    with serving(data, learner=True) as last:
        wanted = ask(last.link())
        until(lambda: jobs(data)[wanted] is JobState.SUCCEEDED, "the interrupted job")
        until(lambda: not {JobState.QUEUED, JobState.RUNNING} & set(jobs(data).values()), "an end of all jobs")
        assert last.link().ok("GET", "/readyz")["damaged"] == {}
        assert last.stop() == 0
    check_history(history, data)
    assert JobState.FAILED not in jobs(data).values()
    names = check_versions(data)
    served = {answer["version"] for (path, _), answer in history.told.items() if path == "/v1/rank"}
    assert served <= set(names), "what answered is a version that is registered and whole"
    assert len(history.told) > 50
    return names


@pytest.mark.timeout(180)
def test_server_judge_and_learner_are_killed_while_they_promote(tmp_path: Path) -> None:
    assert len(kill_everything(tmp_path / "data", rounds=1, seed=21)) > 1


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_forty_kills_of_everything(tmp_path: Path) -> None:
    assert len(kill_everything(tmp_path / "data", rounds=40, seed=22)) > 3


@pytest.mark.timeout(120)
def test_a_stopped_learner_and_judge_do_not_touch_serving_and_a_killed_one_has_an_heir(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serving(data, learner=True) as server:
        link = server.link()
        declare(link)
        teach(link, 100)
        stopped = [server.helper("learn"), server.helper("gate")]
        job = ask(link)
        until(lambda: jobs(data)[job] is not JobState.QUEUED, "the learner")
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        spent, slowest = server.cpu_s(), 0.0
        for number in range(100):
            began = time.monotonic()
            link.ok("POST", "/v1/rank", rank_body(number))
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < SLOWEST_S
        assert server.cpu_s() - spent < 2.0, "and it does not wait by spinning"
        assert link.ok("GET", "/readyz")
        metrics = link("GET", "/metrics").body.decode()
        depth = [line for line in metrics.splitlines() if line.startswith("dayjob_") and "queue" in line]
        assert depth, "the queue's length is told"
        assert all(float(line.split()[-1]) < 10 for line in depth), depth
        os.kill(stopped[1], signal.SIGCONT)
        os.kill(stopped[0], signal.SIGKILL)
        until(lambda: is_dead(stopped[0]), "its death")
        teach(link, 20, seed=1)
        end_leases(data)
        assert server.helper("learn") != stopped[0], "the server starts another"
        until(lambda: jobs(data)[job] is JobState.SUCCEEDED, "the job, done by its heir")
        assert server.stop() == 0
    check_versions(data)
    control = Control(data)
    assert [version.to_seq for version in control.versions(*KEY)] == [0, 200], (
        "it read what the first had begun to read"
    )
    control.db().close()


def test_who_stands_still_inside_a_write_of_pointers_stops_no_answer(tmp_path: Path) -> None:
    """A learner or a judge can be stopped in the middle of a transaction of control.db, and holds it for ever."""
    data = tmp_path / "data"
    with serving(data, "--no-judge") as server:
        link = server.link()
        declare(link)
        holder = apsw.Connection(str(data / "control.db"))
        holder.execute("BEGIN IMMEDIATE")
        slowest = 0.0
        for number in range(60):
            began = time.monotonic()
            told = link.ok("POST", "/v1/rank", rank_body(number))
            link.ok("POST", "/v1/feedback", {"decision": told["id"], "kind": "click", "position": 1})
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < SLOWEST_S
        refused = link("POST", f"/v1/policies/{POLICY}/freeze", {})
        assert (refused.status, int(refused.headers["retry-after"])) == (429, 1), refused
        assert "held by another process" in refused.body["error"]["message"]
        holder.execute("ROLLBACK")
        holder.close()
        assert link.ok("POST", f"/v1/policies/{POLICY}/freeze", {})
        assert server.stop() == 0


# ---- memory ------------------------------------------------------------------------------------------------------


def cap_memory() -> None:
    """Enough to start Python, too little for a learner."""
    resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@pytest.mark.timeout(120)
def test_a_learner_without_memory_dies_the_server_lives_and_the_job_is_done_later(tmp_path: Path) -> None:
    data = tmp_path / "data"
    learner = [sys.executable, "-m", "dayjob", "learn", "--follow", "--data", str(data)]
    with serving(data, "--no-learner", learner=True) as server:
        link = server.link()
        declare(link)
        teach(link, 100)
        job = ask(link)
        starved = subprocess.run(
            learner, preexec_fn=cap_memory, capture_output=True, timeout=110, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        assert starved.returncode != 0
        assert jobs(data)[job] in (JobState.QUEUED, JobState.RUNNING), "it waits, it did not fail"
        teach(link, 20, seed=1)
        fed = subprocess.Popen(learner, stderr=subprocess.DEVNULL)
        try:
            until(lambda: jobs(data)[job] is JobState.SUCCEEDED, "the job")
        finally:
            fed.send_signal(signal.SIGTERM)
            assert fed.wait(60) == 0
        assert len(check_versions(data)) == 2
        assert server.stop() == 0
