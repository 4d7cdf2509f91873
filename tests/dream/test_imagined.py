"""An imagined application as an environment: marked, cut at its horizon, and only played against the model it names."""

import asyncio

import pytest

from dayjob.endings import EpisodeEnding, Invalid
from dayjob.practice import registry
from dayjob.practice.checks import check_environment
from dayjob.practice.environments.world import World, answering
from dayjob.practice.protocol import Action
from tests.dream.test_world import Says, says

TASKS = [{"messages": [says("user", f"task {number}")]} for number in range(8)]
MODEL = Says({"call a": "1", "call b": "2", "the end": None, "hm": "call a tool"}, value=0.75)
TWO_CALLS = '<tool_call>{"name": "a"}</tool_call><tool_call>{"name": "b"}</tool_call>'


def play(world, *actions, seed=1, model=MODEL):
    async def episode():
        with answering(model):
            here = world.reset(seed)
            return here, [await here.step(Action(text=text)) for text in actions]

    return asyncio.run(episode())


def test_what_it_says_is_marked_and_so_is_its_reward():
    here, steps = play(World(model="table", tasks=TASKS, horizon=5), "call a", "hm", "the end", seed=9)
    assert here.task.messages == (says("user", "task 1"),)
    assert steps[0].messages == (says("tool", "1", imagined=True),)
    assert steps[1].messages == (says("tool", "call a tool", imagined=True),)  # also where it made no call
    assert (steps[2].ending, steps[2].messages) == (EpisodeEnding.DONE, ())
    assert steps[2].reward is not None
    assert (steps[2].reward.value, steps[2].reward.parts) == (0.75, {"imagined": 1.0, "over": 1.0})
    assert not any(
        "imagined" in one for asked in MODEL.asked for one in asked
    )  # the model reads what the application would have


def test_past_the_horizon_it_is_cut_and_valued():
    _, steps = play(World(model="table", tasks=TASKS, horizon=2), "call a", "call b")
    assert [one.ending for one in steps] == [None, EpisodeEnding.TURNS]
    assert steps[1].reward is not None
    assert steps[1].reward.parts == {"imagined": 1.0, "over": 0.0}
    _, steps = play(World(model="table", tasks=TASKS, horizon=9, max_turns=1), "call a")
    assert steps[0].ending is EpisodeEnding.TURNS


def test_every_call_of_an_action_is_answered():
    model = Says({TWO_CALLS: "first", "first": "second"})
    _, steps = play(World(model="table", tasks=TASKS, horizon=9), TWO_CALLS, model=model)
    assert [one["content"] for one in steps[0].messages] == ["first", "second"]
    assert not any("imagined" in one for asked in model.asked for one in asked)


def test_nothing_follows_an_ending():
    here, _ = play(World(model="table", tasks=TASKS, horizon=1), "call a")
    with pytest.raises(Invalid, match="over"):
        asyncio.run(here.step(Action(text="call b")))


def test_a_spec_names_its_model_and_is_played_against_no_other():
    world = World(model="table", tasks=TASKS, horizon=2, max_turns=3, answer_tokens=9)
    assert registry.make(world.spec) == world
    with pytest.raises(Invalid, match="no world model answers as table"):
        world.reset(0)
    with answering(MODEL), pytest.raises(Invalid, match="already"), answering(MODEL):
        pass
    with pytest.raises(Invalid, match="no world model answers"):
        world.reset(0)


class Echo:
    """Counts what it was told, and is over at the third answer."""

    digest = "echo"

    async def respond(self, messages, *, seed):
        told = sum(len(one["content"]) for one in messages)
        return f"{told} {seed % 7}" if len(messages) < 6 else None

    async def success(self, messages):
        return 1 / (1 + len(messages))


def test_it_keeps_the_promises_of_an_environment():
    with answering(Echo()):
        asyncio.run(
            check_environment(
                lambda: World(model="echo", tasks=tuple(TASKS), horizon=4), seeds=range(8), has_reference=False,
                mutations=False,
            )
        )  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"tasks": []}, "needs tasks"),
        ({"tasks": [{"messages": []}]}, "task 0 has no messages"),
        ({"tasks": [{"messages": "hello"}]}, "lists of objects"),
        ({"tasks": [{"messages": [says("tool", "1", imagined=True)]}]}, "task 0 was imagined"),
        ({"horizon": 0}, "horizon is 0"),
        ({"max_turns": 0}, "max_turns"),
    ],
)
def test_what_it_refuses(settings, told):
    with pytest.raises(Invalid, match=told):
        World(**({"model": "table", "tasks": TASKS, "horizon": 2} | settings))
