"""Attempts: thousands at once in bounded memory, failures as data, and what happens when somebody goes away."""

import asyncio
import itertools
import time
from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import pytest

from dayjob.endings import Ending, EpisodeEnding, Invalid
from dayjob.fakes_practice import FakeActor, FakeEnvironment
from dayjob.practice.protocol import Reward, Step
from dayjob.practice.registry import group_of
from dayjob.practice.rollout import Acted, Lost, draw_seed, roll


@dataclass
class Watched:
    """Counts open episodes, and goes wrong in a chosen way at the second turn of odd seeds."""

    fault: str = ""
    inner: FakeEnvironment = field(default_factory=lambda: FakeEnvironment(turns=3))
    open: int = 0
    most: int = 0
    closed: int = 0

    @property
    def spec(self):
        return self.inner.spec

    def reset(self, seed):
        if self.fault == "reset" and seed % 2:
            raise OSError("no disk")
        self.open += 1
        self.most = max(self.most, self.open)
        return WatchedEpisode(self, self.inner.reset(seed), self.fault if seed % 2 else "")


class WatchedEpisode:
    def __init__(self, watch, inner, fault):
        self.watch, self.inner, self.fault, self.turns = watch, inner, fault, 0

    @property
    def task(self):
        if self.fault == "task":
            raise LookupError("no task")
        return self.inner.task

    async def step(self, action):
        self.turns += 1
        step = await self.inner.step(action)
        if self.turns < 2 or not self.fault:
            return step
        if self.fault == "sleep":
            await asyncio.sleep(60)
        if self.fault == "raise":
            raise KeyError("secret")
        if self.fault == "exit":
            raise SystemExit(3)
        if self.fault == "cancel":
            raise asyncio.CancelledError
        if self.fault == "timeout":
            raise TimeoutError("its own")
        if self.fault == "nan":
            return Step(reward=Reward(value=float("nan")), ending=EpisodeEnding.DONE)
        if self.fault == "none":
            return None
        if self.fault == "message":
            return Step(messages=({"role": "user", "content": {1}},))
        if self.fault == "half":
            return Step(ending=EpisodeEnding.DONE)
        if self.fault == "endless":
            return Step(messages=({"role": "user", "content": "After 2 comes?"},))
        assert self.fault == "close"
        return step

    async def close(self):
        self.watch.open -= 1
        self.watch.closed += 1
        if self.fault == "close":
            raise OSError("cannot tidy up")


@dataclass
class Perfect:
    """Counts right, and can be told to misbehave."""

    says: object = None
    seen: list = field(default_factory=list)

    async def act(self, messages, *, tools, max_tokens, seed):
        assert tools == ()
        self.seen.append((seed, max_tokens))
        if isinstance(self.says, BaseException):
            raise self.says
        if self.says is not None:
            return self.says[0]
        return Acted(text=str(int(messages[-1]["content"].split()[1]) + 1))


def take(environment, seeds, **settings):
    async def run():
        return [one async for one in roll(environment, seeds, **settings)]

    return asyncio.run(run())


def test_a_trajectory_says_everything():
    environment = FakeEnvironment(turns=2)
    first, second = environment.numbers(5)
    (one,) = take(environment, [5], actor=FakeActor(0.999999))
    assert one.spec == environment.spec
    assert (one.seed, one.group, one.ending) == (5, group_of(environment.spec, 5), EpisodeEnding.DONE)
    assert (one.reward, one.parts) == (1.0, (("share", 1.0),))
    assert [message["content"] for message in one.messages] == [
        f"After {first} comes?", str(first + 1), f"After {second} comes?", str(second + 1),
    ]  # fmt: skip
    assert [message["role"] for message in one.messages] == ["user", "assistant", "user", "assistant"]
    assert [(turn.text, turn.reward, turn.token_ids, turn.versions) for turn in one.turns] == [
        (str(first + 1), 0.5, (first + 1,), ("fake",)), (str(second + 1), 0.5, (second + 1,), ("fake",)),
    ]  # fmt: skip
    assert [turn.prompt_ids for turn in one.turns] == [(1,), (1, 2, 3)]


def test_thousands_of_attempts_hold_no_more_than_the_parallel_ones():
    watch = Watched()
    found = take(watch, range(2_000), actor=Perfect(), attempts=2, parallel=32)
    assert Counter(one.seed for one in found) == dict.fromkeys(range(2_000), 2)
    assert all(one.reward == 1 for one in found)
    assert 16 <= watch.most <= 32
    assert (watch.open, watch.closed) == (0, 4_000)


def test_seeds_may_be_endless_and_a_slow_consumer_holds_sampling_up():
    watch, drawn = Watched(), itertools.count()

    async def run():
        async with aclosing(roll(watch, drawn, actor=Perfect(), parallel=8)) as rolled:
            async for _ in rolled:
                await asyncio.sleep(0.05)
                return next(drawn)

    assert asyncio.run(run()) <= 8 + 8 + 1
    assert watch.open == 0


def test_draws_do_not_depend_on_how_many_run_at_once():
    def outcome(parallel):
        found = take(FakeEnvironment(turns=4), range(20), actor=FakeActor(0.5), attempts=3, parallel=parallel, seed=7)
        return Counter((one.seed, one.turns) for one in found)

    assert outcome(1) == outcome(16)
    assert len({turn.text for _, turns in outcome(1) for turn in turns}) > 2


def test_attempts_draw_differently():
    actor = Perfect()
    take(FakeEnvironment(turns=2), range(3), actor=actor, attempts=2)
    assert len({seed for seed, _ in actor.seen}) == 12
    assert draw_seed(1, 23) != draw_seed(12, 3)


@pytest.mark.parametrize(
    ("fault", "ending", "said"),
    [("reset", EpisodeEnding.FAILED, "OSError: no disk"), ("raise", EpisodeEnding.FAILED, "KeyError"),
     ("exit", EpisodeEnding.FAILED, "SystemExit"), ("cancel", EpisodeEnding.FAILED, "CancelledError"),
     ("timeout", EpisodeEnding.FAILED, "its own"), ("sleep", EpisodeEnding.TIMEOUT, "0.5 s"),
     ("nan", EpisodeEnding.FAILED, "between 0 and 1"), ("half", EpisodeEnding.FAILED, "with the ending"),
     ("none", EpisodeEnding.FAILED, "NoneType"), ("message", EpisodeEnding.FAILED, "content that is text"),
     ("task", EpisodeEnding.FAILED, "no task"),
     ("endless", EpisodeEnding.FAILED, "3 turns")],
)  # fmt: skip
def test_what_goes_wrong_in_an_environment_is_data_and_the_others_go_on(fault, ending, said):
    watch = Watched(fault)
    found = take(watch, range(10), actor=Perfect(), step_timeout_s=0.5)
    good, bad = ([one for one in found if one.seed % 2 == side] for side in (0, 1))
    assert [(one.reward, one.ending, one.error) for one in good] == [(1.0, EpisodeEnding.DONE, "")] * 5
    assert len(bad) == 5
    assert all(one.ending is ending and one.reward == 0 and said in one.error for one in bad)
    # What the environment could not stand is on record.
    assert all(len(one.turns) == {"reset": 0, "task": 0, "endless": 3}.get(fault, 2) for one in bad)
    assert watch.open == 0


def test_an_episode_that_cannot_be_closed_keeps_what_it_earned(caplog):
    found = take(Watched("close"), [1], actor=Perfect())
    assert (found[0].reward, found[0].ending) == (1.0, EpisodeEnding.DONE)
    assert "could not be closed" in caplog.text


def test_no_room_for_an_answer_ends_an_episode():
    (one,) = take(FakeEnvironment(), [0], actor=Perfect((None,)))
    assert (one.ending, one.turns, one.reward) == (EpisodeEnding.TOKENS, (), 0.0)


def test_an_engine_that_was_closed_aborts_an_episode():
    (one,) = take(FakeEnvironment(), [0], actor=Perfect((Acted(text="1", ended=Ending.ABORTED),)))
    assert (one.ending, one.turns) == (EpisodeEnding.ABORTED, ())


@pytest.mark.parametrize("error", [RuntimeError("engine"), asyncio.CancelledError(), KeyboardInterrupt()])
def test_what_goes_wrong_with_the_actor_is_raised_and_everything_is_closed(error):
    watch = Watched()
    with pytest.raises(type(error)):
        take(watch, range(100), actor=Perfect(error), parallel=4)
    assert watch.open == 0


def test_leaving_early_closes_what_is_open():
    watch = Watched("sleep")

    async def run():
        async with aclosing(roll(watch, itertools.count(), actor=Perfect(), parallel=16)) as rolled:
            async for _ in rolled:
                break
        return watch.open, len(asyncio.all_tasks())

    assert asyncio.run(run()) == (0, 1)
    assert watch.closed >= 1


def test_cancelling_the_consumer_closes_what_is_open():
    watch = Watched("sleep", inner=replace(FakeEnvironment(), turns=3))

    async def consume():
        async with aclosing(roll(watch, [1, 3, 5], actor=Perfect())) as rolled:
            return [one async for one in rolled]

    async def run():
        task = asyncio.create_task(consume())
        await asyncio.sleep(0.05)
        assert watch.open == 3
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return watch.open

    assert asyncio.run(run()) == 0


@pytest.mark.parametrize("settings", [{"attempts": 0}, {"parallel": 0}, {"step_timeout_s": 0}])
def test_numbers_that_make_no_sense_are_refused_at_once(settings):
    with pytest.raises(Invalid, match="at least 1"):
        roll(FakeEnvironment(), [0], actor=Perfect(), **settings)


class Slow:
    """Answers after 10 ms each turn."""

    spec = FakeEnvironment(turns=3).spec

    def reset(self, seed):
        return SlowEpisode(FakeEnvironment(turns=3).reset(seed))


class SlowEpisode:
    def __init__(self, inner):
        self.inner, self.task, self.close = inner, inner.task, inner.close

    async def step(self, action):
        await asyncio.sleep(0.01)
        return await self.inner.step(action)


def test_the_time_in_which_a_model_writes_is_not_the_environments():
    """Eight actors that hold the event loop for 100 ms each: far more together than the limit of a step."""

    class Holding(Perfect):
        async def act(self, messages, **settings):
            time.sleep(0.1)
            return await super().act(messages, **settings)

    found = take(Slow(), range(8), actor=Holding(), parallel=8, step_timeout_s=0.5)
    assert [one.ending for one in found] == [EpisodeEnding.DONE] * 8


def test_a_task_that_cannot_be_put_to_an_actor_fails_alone():
    class Choosy(Perfect):
        async def act(self, messages, *, seed, **settings):
            if seed == draw_seed(0, 2, 0, 0):
                raise Lost(EpisodeEnding.FAILED, "it holds what nobody may say")
            return await super().act(messages, seed=seed, **settings)

    found = sorted(take(FakeEnvironment(turns=3), range(4), actor=Choosy()), key=lambda one: one.seed)
    assert [one.reward for one in found] == [1.0, 1.0, 0.0, 1.0]
    assert (found[2].ending, found[2].error) == (EpisodeEnding.FAILED, "it holds what nobody may say")
