"""Worker processes that start with the first episode and end with the loop, for a course of practice too."""

import asyncio
import json
import os

import pytest

from dayjob.cli.practice import practice
from dayjob.endings import DayjobError, EpisodeEnding, Invalid
from dayjob.fakes_practice import FakeEnvironment
from dayjob.lab import practice_ground
from dayjob.practice.actor import ReferenceActor
from dayjob.practice.hosting import LazyWorkers
from dayjob.practice.rollout import roll
from tests.serve.chatting import save_tiny

SEEDS = range(4)


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def played(host):
    environment = FakeEnvironment(turns=2)
    actor = await ReferenceActor.of(environment, SEEDS)
    return [one.reward async for one in roll(environment, SEEDS, actor=actor, host=host)]


def test_processes_start_with_the_first_episode_and_end_when_closed():
    host, pids = LazyWorkers(1), []

    async def run():
        await host.close()  # of nothing
        assert host._started is None
        assert await played(host) == [1.0] * 4
        pids.extend(host._started.result().pids)
        assert is_running(pids[-1])
        await host.close()

    for count in (1, 2):  # another loop, other processes
        asyncio.run(run())
        assert len(set(pids)) == count
        assert not any(map(is_running, pids))


def test_closing_ends_those_that_are_still_starting():
    host = LazyWorkers(2)

    async def run():
        beginning = asyncio.create_task(host.begin(FakeEnvironment(), 0, step_timeout_s=1))
        await asyncio.sleep(0.05)
        await host.close()
        with pytest.raises(asyncio.CancelledError):
            await beginning
        return len(asyncio.all_tasks())

    assert asyncio.run(run()) == 1


def test_processes_that_cannot_start_say_how_to_see_why(monkeypatch):
    monkeypatch.setattr("dayjob.practice.processes.sys.executable", "/bin/false")
    with pytest.raises(DayjobError, match="python -m"):
        asyncio.run(played(LazyWorkers(1)))


@pytest.mark.parametrize("count", [0, -1, 2000, True, 1.5])
def test_a_count_that_makes_no_sense_is_refused(count):
    with pytest.raises(Invalid, match="give a whole number from 1 to 1024"):
        LazyWorkers(count)


def test_a_course_goes_on_behind_a_step_without_end(wrong, tmp_path, monkeypatch, capsys):
    """Every other task of it never answers: in this process the course would never end."""
    monkeypatch.setattr(practice_ground, "STEP_S", 0.3)
    endings, hosts = set(), []
    whole = practice_ground.PracticeGround.attempts

    async def attempts(self, engine, version, *, ticket):
        found = await whole(self, engine, version, ticket=ticket)
        endings.update(one.ending for one in found)
        hosts.append(self.host._started.result().pids)
        return found

    monkeypatch.setattr(practice_ground.PracticeGround, "attempts", attempts)
    model = save_tiny(tmp_path / "model")
    small = ["steps=2", "groups=4", "attempts=2", "stop=2", "judge=2", "tries=1", "self_written=0", "anchor=0",
             "rank=2", "context_tokens=200", "workers=1", "look_every=1"]  # fmt: skip
    practice(json.dumps(wrong("computes without end").spec), model=model, out=tmp_path / "out", settings=small)
    assert "step 2: " in capsys.readouterr().out
    assert endings == {EpisodeEnding.TIMEOUT, EpisodeEnding.DONE}
    assert hosts
    assert not any(is_running(pid) for pids in hosts for pid in pids)


@pytest.mark.parametrize(
    ("asked", "words"),
    [({"settings": ["workers=-1"]}, "workers is -1: give a whole number from 0"),
     ({"settings": ["workers=5000"]}, "workers is 5000"), ({}, "there is no folder .*nowhere: name one")],
)  # fmt: skip
def test_wrong_settings_are_answered_with_what_to_do(asked, words, tmp_path):
    with pytest.raises(Invalid, match=words):
        practice("strings", model=tmp_path / "nowhere", out=tmp_path / "out", **asked)
