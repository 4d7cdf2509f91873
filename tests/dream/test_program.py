"""An environment that is a program: the contract of every environment, what it may say, and its sandbox."""

import asyncio

import pytest

from dayjob.endings import EpisodeEnding, Invalid
from dayjob.practice.checks import check_environment
from dayjob.practice.environments import program as module
from dayjob.practice.environments.program import Program, ProgramEpisode, close_idle
from dayjob.practice.environments.program_wire import MOST_TEXT, ProgramFault, step_of, task_of
from dayjob.practice.protocol import Action, Direction
from dayjob.practice.registry import make
from dayjob.practice.sandbox import available
from tests.dream import programs

pytestmark = pytest.mark.skipif(available() is not None, reason="the sandbox is missing")
SOUND = Program(source=programs.SOUND, name="orders")


@pytest.fixture(autouse=True)
def _tidy():
    yield
    close_idle()
    assert not module._ROOMS, "an episode was left open"


async def played(environment: Program, seed: int, *texts: str):
    episode = environment.reset(seed)
    try:
        return episode.task, [await episode.step(Action(text=text)) for text in texts]
    finally:
        await episode.close()


def test_a_program_keeps_every_promise_of_an_environment():
    asyncio.run(check_environment(lambda: SOUND, seeds=range(6)))


def test_a_spec_makes_an_equal_environment_again():
    assert make(SOUND.spec) == SOUND
    assert SOUND.spec["env"] == "program"


def test_part_of_the_solution_stands_in_the_conversation_already():
    task, [step] = asyncio.run(played(Program(source=programs.SOUND, shown=1), 5, "nowhere"))
    call, answer = SOUND.reference(5)
    assert [one["role"] for one in task.messages] == ["user", "assistant", "tool"]
    assert task.messages[1]["content"] == call.text
    assert task.messages[2]["content"].endswith(answer.text)
    assert task.max_turns == 2
    assert [one.text for one in Program(source=programs.SOUND, shown=1).reference(5)] == [answer.text]
    assert step.reward is not None
    # The last action is never shown, however much is asked for.
    assert [one.text for one in Program(source=programs.SOUND, shown=9).reference(5)] == [answer.text]


def test_its_neighbours_show_one_action_more_or_fewer():
    assert [(one.direction, one.spec["shown"]) for one in SOUND.mutations()] == [(Direction.EASIER, 1)]
    shown = Program(source=programs.SOUND, shown=2).mutations()
    assert [(one.direction, one.spec["shown"]) for one in shown] == [(Direction.HARDER, 1), (Direction.EASIER, 3)]


def test_the_limit_of_turns_ends_an_episode_without_a_reward():
    _, steps = asyncio.run(played(SOUND, 1, "call x", "call x", "call x"))
    assert [one.ending for one in steps] == [None, None, EpisodeEnding.TURNS]
    assert steps[-1].reward.value == 0.0


def test_episodes_side_by_side_share_one_sandbox_and_nothing_else():
    async def together():
        first, second = SOUND.reset(1), SOUND.reset(2)
        assert len(module._ROOMS) == 1
        (call_1, answer_1), (call_2, answer_2) = SOUND.reference(1), SOUND.reference(2)
        told = []
        for episode, action in ((first, call_1), (second, call_2), (second, answer_2), (first, answer_1)):
            told.append(await episode.step(action))
        await first.close()
        await second.close()
        await first.close()
        return told

    told = asyncio.run(together())
    assert [one.reward.value for one in told[2:]] == [1.0, 1.0]


def test_a_sandbox_that_died_takes_its_episodes_along_and_the_next_one_gets_another():
    source = programs.but("    if calls:\n", "    if text == 'die':\n        import os; os._exit(3)\n    if calls:\n")

    async def through():
        environment = Program(source=source)
        dying, beside = environment.reset(1), environment.reset(2)
        with pytest.raises(ProgramFault, match="its sandbox ended"):
            await dying.step(Action(text="die"))
        with pytest.raises(ProgramFault, match="its sandbox ended"):
            await beside.step(Action(text="yes"))
        with pytest.raises(Invalid, match="has ended"):
            await dying.step(Action(text="yes"))
        await dying.close()
        await beside.close()
        return await played(environment, 1, *(one.text for one in environment.reference(1)))

    _, steps = asyncio.run(through())
    assert steps[-1].reward.value == 1.0


def test_behind_a_recorded_conversation_a_step_says_whether_the_program_knows():
    async def told():
        after = ProgramEpisode.after(SOUND, [{"role": "user", "content": "Where is order 7?"}])
        try:
            return await after.told(Action(text="call status id=7"))
        finally:
            await after.close()

    step, sure = asyncio.run(told())
    assert (step.messages, sure) == (({"role": "tool", "content": "order 7: lost"},), True)


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (None, "no object with messages"), ({}, "messages are no list"), ({"messages": []}, "no message of a user"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "no message of a user"),
        ({"messages": [{"role": "root", "content": "x"}]}, "role and a content"),
        ({"messages": [{"role": "user", "content": 3}]}, "role and a content"),
        ({"messages": [{"role": "user", "content": "x" * (MOST_TEXT + 1)}]}, "role and a content"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "role and a content"),
        ({"messages": [{"role": "user", "content": "x"}], "max_turns": 0}, "max_turns"),
        ({"messages": [{"role": "user", "content": "x"}], "max_turns": True}, "max_turns"),
        ({"messages": [{"role": "user", "content": "x"}], "answer_tokens": 1e9}, "answer_tokens"),
        ({"messages": [{"role": "user", "content": "x"}], "tools": "all"}, "tools"),
    ],
)  # fmt: skip
def test_a_task_that_is_none_is_refused(said, fault):
    with pytest.raises(ProgramFault, match=fault):
        task_of(said)


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({}, "messages are no list"), ({"messages": []}, "says nothing"), ({"reward": 1.1}, "from 0 to 1"),
        ({"reward": None}, "from 0 to 1"), ({"reward": True}, "from 0 to 1"), ({"reward": 1, "parts": [1]}, "parts"),
        ({"reward": 1, "parts": {"a": float("nan")}}, "from 0 to 1"),
        ({"messages": [{"role": "tool", "content": "x"}], "progress": -1}, "from 0 to 1"),
    ],
)  # fmt: skip
def test_a_step_that_is_none_is_refused(said, fault):
    with pytest.raises(ProgramFault, match=fault):
        step_of(said)


@pytest.mark.parametrize(
    "wrong",
    [
        {"source": ""}, {"source": "x" * (module.MOST_SOURCE + 1)}, {"source": "\0"}, {"source": "'\ud800'"},
        {"name": ""}, {"name": "a\nb"}, {"shown": -1}, {"shown": True}, {"shown": 1.5},
    ],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(Invalid):
        Program(**{"source": "pass"} | wrong)
