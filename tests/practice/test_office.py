"""The office's tasks: the battery, exact lengths, a reward that is read off the state, parts by turn, mutations."""

import asyncio
from collections import Counter

import pytest

from dayjob.endings import EpisodeEnding, Invalid
from dayjob.practice.calls import read_calls
from dayjob.practice.checks import check_environment, check_process, play
from dayjob.practice.environments.office import Office
from dayjob.practice.environments.office_application import OfficeApplication, OfficeState
from dayjob.practice.environments.office_jobs import KINDS, changes, count_met
from dayjob.practice.processes import Workers
from dayjob.practice.protocol import Action, Direction
from dayjob.practice.registry import make

SPECS = [
    {"env": "office"},
    {"env": "office", "turns": 20, "plain": False, "partial": True},
    {"env": "office", "turns": 9, "inbox": False, "manual": False},
    {"env": "office", "turns": 7, "kinds": ["order", "short", "restock"], "items": 3, "customers": 2},
]


def run(environment, seed, texts):
    """The steps of an episode."""
    return asyncio.run(play(environment, seed, actions=[Action(text=text) for text in texts])).steps


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_battery_passes(spec):
    asyncio.run(
        check_environment(lambda: make(spec), seeds=[0, 1, 2, 2**63 - 1], noise=("", "call", "call finish", "?"))
    )


def test_another_process_says_the_same_bytes():
    async def there():
        async with Workers(1) as workers:
            await check_process(make({"env": "office", "turns": 20}), [3, 4], workers=workers)

    asyncio.run(there())


@pytest.mark.parametrize("turns", [4, 5, 6, 7, 20, 101])
@pytest.mark.parametrize("inbox", [True, False])
def test_a_day_takes_exactly_so_many_turns_and_its_parts_add_up_to_one(turns, inbox):
    environment = Office(turns=turns, inbox=inbox)
    for seed in range(3):
        actions = [one.text for one in environment.reference(seed)]
        assert len(actions) == turns
        steps = run(environment, seed, actions)
        assert [one.ending for one in steps] == [None] * (turns - 1) + [EpisodeEnding.DONE]
        assert steps[-1].reward.value == 1
        assert sum(one.progress for one in steps) == pytest.approx(1)


def test_the_smallest_office_can_still_fill_a_long_day():
    environment = Office(turns=100, items=2, customers=1)
    steps = run(environment, 5, [one.text for one in environment.reference(5)])
    assert steps[-1].reward.value == 1


def test_every_kind_of_job_comes_up():
    firsts = {"low", "orders", "stock", "deliveries", "order", "count", "enter", "update", "ship", "cancel", "receive"}
    seen = {call.name for seed in range(40) for job in Office(turns=12).day(seed).jobs for call in job.calls}
    assert firsts <= seen


def test_a_hand_worked_day():
    """Seed 0 of a short day: read, do, read that there is nothing more, finish."""
    environment = Office(turns=4, kinds=["order"])
    day = environment.day(0)
    (call,) = day.jobs[0].calls
    item, count = call.arguments["item"], call.arguments["count"]
    assert day.wanted == Counter({("bought", item, count): 1})
    assert day.start.inbox[0].endswith(day.jobs[0].said)
    steps = run(environment, 0, ["call next", f"call order item={item} count={count}", "call finish"])
    assert steps[0].messages == ({"role": "tool", "content": day.start.inbox[0]},)
    assert [one.progress for one in steps] == [0, 0.5, 0.5]
    # Nobody has to read what there is not: the state is right.
    assert steps[-1].reward.value == 1
    assert steps[-1].reward.parts == {"work": 1, "harmless": 1, "finished": 1, "read": 1}


@pytest.mark.parametrize("partial", [True, False])
def test_what_nobody_wanted_costs_as_much_as_what_was_wanted_earns(partial):
    environment = Office(turns=6, kinds=["order"], partial=partial)
    calls = [job.calls[0].arguments for job in environment.day(1).jobs]
    assert len(calls) == 2
    order = "call order item={item} count={count}".format
    wrong = order(item=calls[0]["item"], count=int(calls[0]["count"]) + 1)
    both = [order(**calls[0]), order(**calls[1])]
    value = {
        name: run(environment, 1, [*texts, "call finish"])[-1].reward.value
        for name, texts in {
            "nothing": [], "one": both[:1], "both": both, "and one more": [*both, wrong], "twice": [*both, both[0]],
            "wrong": [wrong],
        }.items()
    }  # fmt: skip
    expected = {"nothing": 0, "one": 1 / 3, "both": 1, "and one more": 1 / 3, "twice": 1 / 3, "wrong": 0}
    assert value == (expected if partial else {name: float(one == 1) for name, one in expected.items()})


def test_nothing_is_earned_twice():
    """A customer who is noted elsewhere and back again: the part of that turn comes once."""
    environment = Office(turns=4, kinds=["move", "order"])
    seed = next(seed for seed in range(50) if environment.day(seed).jobs[0].calls[0].name == "update")
    right = environment.day(seed).jobs[0].calls[0].arguments
    there = "call update customer={customer} city={city}".format(**right)
    away = f"call update customer={right['customer']} city=Nowhere"
    steps = run(environment, seed, [there, away, there, away, "call finish"])
    assert [one.progress for one in steps] == [0.5, 0, 0, 0, 0]
    assert steps[-1].reward.value == 0


def test_what_is_not_finished_is_not_solved():
    """Else an actor that is shown nearly everything would be rewarded for doing nothing more."""
    environment, partial = Office(turns=6, kinds=["order"]), Office(turns=6, kinds=["order"], partial=True)
    orders = ["call order item={item} count={count}".format(**job.calls[0].arguments) for job in partial.day(1).jobs]
    waiting = [*orders, *["?"] * 10]
    assert run(environment, 1, waiting)[-1].reward.value == 0
    assert run(partial, 1, waiting)[-1].reward.value == pytest.approx(2 / 3)


def test_reading_is_no_work_and_the_limit_of_turns_ends_it():
    environment = Office(turns=8)
    steps = run(environment, 0, ["call next"] * 100)
    assert len(steps) == environment.max_turns == 12
    assert steps[-1].ending is EpisodeEnding.TURNS
    assert steps[-1].reward.value == 0
    assert steps[-1].reward.parts["read"] == 1


def state(**changed):
    return OfficeState(stock={"pens": 3, "cups": 0}, cities={"Otto": "Rome"}, staff=["Marta", "Paul"], **changed)


@pytest.mark.parametrize(
    ("wanted", "said", "met"),
    [
        (("Marta", "7"), ("Marta", "We have 7 pens."), True),
        (("Marta", "7"), ("Marta", "We have 7 or 8."), False),
        (("Marta", "7"), ("Paul", "7"), False),
        (("Marta", "pens, cups"), ("Marta", "10 cups and 10 pens"), True),
        (("Marta", "pens, cups"), ("Marta", "pens"), False),
        (("Marta", "pens"), ("Marta", "pens, cups"), False),
    ],
)
def test_a_message_counts_by_what_it_says(wanted, said, met):
    before = state()
    done = count_met(changes(before, state(sent=[said])), changes(before, state(sent=[wanted])))
    assert done == ((1, 0) if met else (0, 1))


def test_two_messages_are_not_met_by_one():
    before = state()
    wanted = changes(before, state(sent=[("Marta", "7"), ("Marta", "7")]))
    assert count_met(changes(before, state(sent=[("Marta", "7")])), wanted) == (1, 0)
    assert count_met(changes(before, state(sent=[("Marta", "7 cups")] * 3)), wanted) == (2, 1)
    either = changes(before, state(sent=[("Marta", "7"), ("Marta", "cups")]))
    assert count_met(changes(before, state(sent=[("Marta", "7 cups")] * 2)), either) == (2, 0)


def test_several_calls_in_one_answer_are_done_in_order():
    environment = Office(turns=4, plain=False)
    texts = [one.text for one in environment.reference(3)]
    steps = run(environment, 3, ["\n".join(texts[:3]), texts[3]])
    assert len(steps[0].messages) == 3
    assert steps[-1].reward.value == 1


def test_the_manual_shows_what_the_jobs_take_and_nothing_else():
    plain = Office(kinds=["count"]).reset(0).task
    assert plain.messages[0]["content"].splitlines()[1:] == ["call next", "call count item=pens count=9", "call finish"]
    assert not plain.tools
    tools = Office(kinds=["count"], plain=False).reset(0).task
    assert [tool["function"]["name"] for tool in tools.tools] == ["next", "count", "finish"]
    assert [message["role"] for message in tools.messages] == ["user"]
    bare = Office(manual=False).reset(0).task
    assert not bare.tools
    assert len(bare.messages) == 1


def test_the_application_of_a_task_answers_as_the_episode_does():
    environment = Office(turns=20)
    application = environment.application(6)
    texts = [one.text for one in environment.reference(6)][:-1]
    answers = [application.call(read_calls(text)[0]) for text in texts]
    assert answers == [one.messages[0]["content"] for one in run(environment, 6, texts)]


def test_mutations_go_both_ways_and_keep_to_what_can_be():
    named = {one.name: one for one in Office().mutations()}
    assert named["half as long"].spec["turns"] == 4
    assert named["twice as long"].spec["turns"] == 10
    assert named["one kind of job less"].spec["kinds"] == list(KINDS)[:-1]
    assert "one kind of job more" not in named
    assert "with the manual" not in named
    assert named["without the manual"].direction is Direction.HARDER
    least = Office(turns=4, kinds=["order"], items=2, customers=1, partial=True)
    assert {one.name for one in least.mutations() if one.direction is Direction.EASIER} == {"all said at once"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"turns": 3}, "turns must be"),
        ({"kinds": ["ship"]}, "kinds needs one of order, count, enter"),
        ({"kinds": ["fly"]}, "kinds must be a list"),
        ({"items": 1}, "items must be"),
        ({"inbox": 1}, "inbox must be true or false"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(Invalid, match=said):
        Office(**settings)


def test_an_episode_does_not_change_the_day_it_began_with():
    environment = Office(turns=4, kinds=["count"])
    day = environment.day(0)
    application = OfficeApplication(day.start)
    application.call(day.jobs[0].calls[0])
    assert not day.start.counted
    assert application.state.counted


@pytest.mark.parametrize("turns", [5, 8, 20])
def test_messages_that_ask_for_nothing_come_only_where_they_must(turns):
    assert all(job.calls for seed in range(20) for job in Office(turns=turns).day(seed).jobs)


def test_where_no_job_fills_what_is_left_a_message_asks_for_nothing():
    environment = Office(turns=5, kinds=["order"])
    assert sorted(len(job.calls) for job in environment.day(0).jobs) == [0, 1]
    assert len(environment.reference(0)) == 5
