"""Looking ahead: the best of what was drawn by where it leads, counted, and never further than the model is right."""

import asyncio

import pytest

from dayjob.dream.plan import Plan, Planner
from dayjob.endings import Invalid
from dayjob.practice.rollout import Acted
from tests.dream.test_world import says

START = [says("user", "go")]


class Draws:
    """Says, at a conversation of so many messages, one of these by its seed: the seed itself at the first draw."""

    def __init__(self, table):
        self.table = table

    async def act(self, messages, *, tools, max_tokens, seed):  # noqa: ARG002
        options = self.table.get(len(messages))
        return Acted(text=options[seed % len(options)]) if options else None


class Corridor:
    """Answers ``<action>!``; what is worth something is said by a table of the last message."""

    digest = "corridor"

    def __init__(self, values, *, over=()):
        self.values, self.over, self.valued = values, over, []

    async def respond(self, messages, *, seed):  # noqa: ARG002
        last = messages[-1]["content"]
        return None if last in self.over else f"{last}!"

    async def success(self, messages):
        self.valued.append([one["content"] for one in messages])
        return self.values.get(messages[-1]["content"], 0.0)


def act(planner, *, seed=0):
    return asyncio.run(planner.act(START, tools=(), max_tokens=8, seed=seed)).text


def planner(actor, model, *, candidates=8, depth=1, horizon=9, continuations=1):
    return Planner(
        actor=actor, responder=model, horizon=horizon,
        plan=Plan(candidates=candidates, depth=depth, continuations=continuations),
    )  # fmt: skip


def test_the_first_candidate_is_what_the_actor_would_have_done():
    actor = Draws({1: ["left", "right"]})
    alone = [act(planner(actor, Corridor({}), candidates=1), seed=seed) for seed in range(20)]
    assert alone == ["left", "right"] * 10


def test_it_takes_what_leads_further_and_counts_what_it_imagined():
    model = Corridor({"left!": 0.2, "right!": 0.9})
    looks = planner(Draws({1: ["left", "right"]}), model)
    assert act(looks) == "right"
    assert (looks.spent.real, looks.spent.imagined, looks.spent.valued, looks.spent.changed) == (1, 2, 2, 1)
    assert looks.spent.imagined_per_real == 2.0


def test_two_steps_ahead_see_what_one_does_not():
    actor = Draws({1: ["left", "right"], 3: ["on"]})
    model = Corridor({"left!": 0.9, "right!": 0.1})
    model.respond = _trap
    assert act(planner(actor, model, depth=1)) == "left"
    model.values |= {"a wall": 0.0, "a door": 1.0}
    looks = planner(actor, model, depth=2)
    assert act(looks) == "right"
    assert looks.spent.imagined == 4
    assert ["go", "right", "right!", "on", "a door"] in model.valued


async def _trap(messages, *, seed):  # noqa: ARG001
    last = messages[-1]["content"]
    return f"{last}!" if last != "on" else "a wall" if messages[1]["content"] == "left" else "a door"


def test_an_end_is_valued_where_it_is():
    model = Corridor({"left": 0.4, "on!": 0.3}, over=("left",))
    looks = planner(Draws({1: ["left", "right"], 2: ["on"], 3: ["on"]}), model, depth=2)
    assert act(looks) == "left"
    assert ["go", "left"] in model.valued
    assert looks.spent.imagined == 1 + 2  # the end, and two answers


def test_it_never_looks_past_the_horizon():
    model = Corridor({"left!": 0.9, "right!": 0.1, "left": 0.1, "right": 0.9})
    actor = Draws({1: ["left", "right"], 3: ["on"]})
    blind = planner(actor, model, depth=5, horizon=0)
    assert (act(blind), blind.spent.imagined) == ("right", 0)
    near = planner(actor, model, depth=5, horizon=1)
    assert (act(near), near.spent.imagined) == ("left", 2)


def test_equal_futures_go_by_how_often_they_were_drawn():
    model = Corridor({})
    drawn = {"left": 0, "right": 0}
    for seed in range(40):
        drawn[act(planner(Draws({1: ["left", "right", "right", "right"]}), model, candidates=12), seed=seed)] += 1
    assert drawn["left"] <= 4
    assert drawn["right"] >= 36


def test_where_there_is_nothing_to_choose_nothing_is_imagined():
    looks = planner(Draws({1: ["left"]}), Corridor({}))
    assert (act(looks), looks.spent.real, looks.spent.imagined) == ("left", 1, 0)
    nothing = planner(Draws({}), Corridor({}))
    assert asyncio.run(nothing.act(START, tools=(), max_tokens=8, seed=0)) is None
    assert nothing.spent.real == 0


@pytest.mark.parametrize("settings", [{"candidates": 0}, {"depth": -1}, {"continuations": 0}])
def test_plans_that_plan_nothing(settings):
    with pytest.raises(Invalid, match="a plan has"):
        Plan(**settings)
