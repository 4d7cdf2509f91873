"""Environments in real worker processes: the same trajectories, processes that are killed, hang and die."""

import asyncio
import os
import signal
from collections import Counter

import pytest

from dayjob.endings import DayjobError, EpisodeEnding, Invalid
from dayjob.fakes_practice import FakeActor, FakeEnvironment
from dayjob.practice.actor import ReferenceActor, ScriptedActor
from dayjob.practice.processes import Workers
from dayjob.practice.protocol import Action
from dayjob.practice.registry import make
from dayjob.practice.rollout import Lost, roll

SEEDS = range(12)


def within(work, *, count=1):
    """What ``work`` returns, given running workers."""

    async def run():
        async with Workers(count) as workers:
            return await asyncio.wait_for(work(workers), 60)

    return asyncio.run(run())


async def collect(rolled):
    return [one async for one in rolled]


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_episodes_elsewhere_are_the_episodes_here():
    environment = make({"env": "lookup", "hops": 2})

    async def work(workers):
        actor = await ReferenceActor.of(environment, SEEDS)
        here = await collect(roll(environment, SEEDS, actor=actor, attempts=2))
        there = await collect(roll(environment, SEEDS, actor=actor, attempts=2, host=workers))
        played = await collect(workers.play(environment.spec, SEEDS, attempts=2, chunk=5))
        return here, there, played

    here, there, played = within(work, count=2)
    assert len(here) == 24
    assert all(one.reward == 1 and len(one.turns) == 3 for one in here)
    for other in (there, played):
        assert sorted(map(repr, other)) == sorted(map(repr, here))


def test_random_and_silent_actors_draw_there_as_they_would_here():
    from dayjob.practice.actor import RandomActor

    environment = FakeEnvironment(turns=2)

    async def work(workers):
        there = await collect(workers.play(environment.spec, range(5), actor="random", attempts=2, seed=3))
        silent = await collect(workers.play(environment.spec, range(5), actor="silent"))
        return there, silent

    there, silent = within(work)
    here = asyncio.run(collect(roll(environment, range(5), actor=RandomActor(), attempts=2, seed=3)))
    assert sorted(map(repr, there)) == sorted(map(repr, here))
    assert all(one.reward == 0 and [turn.text for turn in one.turns] == ["", ""] for one in silent)


def test_killed_workers_are_replaced_and_no_episode_is_lost():
    environment = FakeEnvironment(turns=20)

    async def work(workers):
        first, found = workers.pids, []
        async for one in roll(environment, range(40), actor=FakeActor(0.5), host=workers, seed=1, parallel=8):
            found.append(one)
            if len(found) in (1, 15):
                os.kill(workers.pids[len(found) % 2], signal.SIGKILL)
        return found, first, workers.pids

    found, first, now = within(work, count=2)
    assert first != now
    assert Counter(one.ending for one in found) == {EpisodeEnding.DONE: 40}
    # Replayed from what was done before: the trajectories are those of an undisturbed run.
    here = asyncio.run(collect(roll(environment, range(40), actor=FakeActor(0.5), seed=1)))
    assert sorted(map(repr, found)) == sorted(map(repr, here))


def test_a_step_that_kills_its_process_fails_and_the_others_go_on(wrong):
    environment = wrong("dies")

    async def work(workers):
        hosted = await collect(roll(environment, range(2), actor=ScriptedActor([Action(text="0")] * 2), host=workers))
        played = await collect(workers.play(environment.spec, range(2), actor="silent", attempts=2))
        return hosted, played

    hosted, played = within(work)
    for found in (hosted, played):
        odd = [one for one in found if one.seed % 2]
        assert {(one.ending, one.reward) for one in odd} == {(EpisodeEnding.FAILED, 0.0)}
        assert all("died" in one.error for one in odd)
        assert {one.ending for one in found if not one.seed % 2} == {EpisodeEnding.DONE}
    assert Counter(one.seed for one in played) == {0: 2, 1: 2}


def test_a_process_that_died_once_at_a_step_is_forgiven(wrong, tmp_path):
    environment = wrong("dies once", str(tmp_path / "died"))

    async def work(workers):
        return await collect(roll(environment, [2], actor=ScriptedActor(environment.reference(2)), host=workers))

    (one,) = within(work)
    assert (tmp_path / "died").exists()
    assert (one.reward, one.ending) == (1.0, EpisodeEnding.DONE)


def test_a_step_that_computes_without_end_is_cut_off_and_the_others_go_on(wrong):
    environment = wrong("computes without end")

    async def work(workers):
        actor = ScriptedActor([Action(text="0")] * 2)
        hosted = await collect(roll(environment, range(2), actor=actor, host=workers, step_timeout_s=2))
        played = await collect(workers.play(environment.spec, [4, 5], actor="silent", step_timeout_s=2))
        return hosted, played

    for found in within(work):
        assert {one.seed % 2: one.ending for one in found} == {0: EpisodeEnding.DONE, 1: EpisodeEnding.TIMEOUT}


def test_what_an_environment_prints_is_no_answer(wrong):
    environment = wrong("prints")

    async def work(workers):
        return await collect(roll(environment, SEEDS, actor=ScriptedActor([Action(text="0")] * 2), host=workers))

    assert {one.ending for one in within(work)} == {EpisodeEnding.DONE}


def test_what_is_no_json_fails_and_holds_nobody_up(wrong):
    async def work(workers):
        actor = ScriptedActor([Action(text="0")] * 2)
        return await collect(roll(wrong("odd tools"), [1, 2], actor=actor, host=workers))

    found = within(work)
    assert [one.ending for one in found] == [EpisodeEnding.FAILED] * 2
    assert all("no JSON" in one.error for one in found)


def test_what_cannot_be_made_there_is_said():
    class Unknown(FakeEnvironment):
        @property
        def spec(self):
            return {"env": "nothing"}

    async def work(workers):
        with pytest.raises(Invalid, match="no environment is called 'nothing'"):
            await collect(roll(Unknown(), [1], actor=FakeActor(0.5), host=workers))

    within(work)


def test_a_reset_that_kills_its_process_is_lost(wrong):
    async def work(workers):
        with pytest.raises(Lost, match="died, twice"):
            await workers.begin(wrong("dies in a reset"), 1, step_timeout_s=5)

    within(work)


def test_episodes_are_spread_over_the_processes_and_given_back():
    async def work(workers):
        begun = [await workers.begin(FakeEnvironment(), seed, step_timeout_s=5) for seed in range(6)]
        spread = [len(process.episodes) for process in workers._processes]
        for episode in begun:
            await episode.close()
            await episode.close()
        return spread, [len(process.episodes) for process in workers._processes]

    assert within(work, count=2) == ([3, 3], [0, 0])


def test_leaving_ends_every_process_and_what_is_under_way():
    environment = FakeEnvironment(turns=10_000)

    async def run():
        async with Workers(2) as workers:
            pids = workers.pids
            rolled = roll(environment, range(8), actor=FakeActor(0.5), host=workers)
            waiting = asyncio.create_task(anext(rolled))
            await asyncio.sleep(0.2)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await rolled.aclose()
        with pytest.raises(Invalid, match="async with"):
            await workers.begin(environment, 0, step_timeout_s=1)
        return pids, len(asyncio.all_tasks())

    pids, tasks = asyncio.run(run())
    assert tasks == 1
    assert not any(is_running(pid) for pid in pids)


def test_a_worker_ends_with_whoever_started_it_even_while_it_computes(wrong):
    async def work(workers):
        process = workers._processes[0]
        environment = wrong("computes without end")
        stuck = asyncio.create_task(roll(environment, [1], actor=ScriptedActor([]), host=workers).__anext__())
        await asyncio.sleep(0.5)
        process.child.stdin.close()  # as when this process is killed
        code = await asyncio.wait_for(process.child.wait(), 10)
        stuck.cancel()
        await asyncio.gather(stuck, return_exceptions=True)
        return code

    # Not killed. Whoever sends a signal looks first whether the process has ended, and where that look comes before the
    # event loop's, the loop reports 255 for a code that it did not see.
    assert within(work) in (0, 255)


def test_workers_that_cannot_start_say_how_to_see_why(monkeypatch):
    monkeypatch.setattr("dayjob.practice.processes.sys.executable", "/bin/false")
    with pytest.raises(DayjobError, match="python -m"):
        within(lambda workers: workers)
    with pytest.raises(Invalid, match="at least one"):
        Workers(0)


@pytest.mark.parametrize("settings", [{"actor": "somebody"}, {"attempts": 0}, {"chunk": 0}, {"step_timeout_s": 0}])
def test_what_makes_no_sense_is_refused_at_once(settings):
    with pytest.raises(Invalid, match=r"must be|at least"):
        Workers(1).play({"env": "fake"}, [0], **settings)
