"""Generic mutations: what is shown and what is left, two tasks as one, and what cannot be wrapped."""

import asyncio

import pytest

from dayjob.endings import EpisodeEnding, Invalid
from dayjob.practice import registry
from dayjob.practice.checks import check_environment, play
from dayjob.practice.mutate import Both, Shown, neighbours
from dayjob.practice.protocol import Action, Direction, Reward, Step, Task
from dayjob.practice.registry import make

OFFICE = {"env": "office", "turns": 8}
WORDS = {"env": "arithmetic", "digits": 5}
SPECS = [
    {"env": "shown", "inner": OFFICE, "share": 0.5},
    {"env": "shown", "inner": OFFICE, "share": 0.75, "how": "hint"},
    {"env": "shown", "inner": WORDS, "share": 0.5, "how": "hint"},
    {"env": "both", "first": WORDS, "second": OFFICE},
    {"env": "both", "first": OFFICE, "second": {"env": "office", "turns": 5}},
]


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_battery_passes(spec):
    made = make(spec).spec
    asyncio.run(check_environment(lambda: make(made), seeds=[0, 1, 2, 3], noise=("", "?", "call finish")))


def text_of(task):
    return [(message["role"], message["content"]) for message in task.messages]


def test_a_prefix_is_played_and_the_rest_is_left():
    inner, shown = make(OFFICE), Shown(inner=OFFICE, share=0.5)
    solution = inner.reference(4)
    told = asyncio.run(play(inner, 4, actions=solution)).steps
    task = shown.reset(4).task
    said = text_of(inner.reset(4).task)
    for action, step in zip(solution[:4], told[:4], strict=True):
        said += [("assistant", action.text), ("tool", step.messages[0]["content"])]
    assert text_of(task) == said
    assert task.max_turns == inner.max_turns - 4
    assert [one.text for one in shown.reference(4)] == [one.text for one in solution[4:]]


@pytest.mark.parametrize(("share", "left"), [(1 / 64, 7), (0.5, 4), (0.51, 3), (0.9, 1), (63 / 64, 1)])
def test_at_least_one_turn_is_left(share, left):
    assert len(Shown(inner=OFFICE, share=share).reference(0)) == left


def test_a_hint_stands_in_the_last_message_and_nothing_is_done():
    solution = [one.text for one in make(OFFICE).reference(4)]
    shown = Shown(inner=OFFICE, share=0.25, how="hint")
    last = shown.reset(4).task.messages[-1]["content"]
    assert last.endswith(f"finish.\n(The first steps: {solution[0]}; {solution[1]})")
    assert [one.text for one in shown.reference(4)] == solution


def test_a_hint_never_holds_the_whole_answer():
    inner = make({"env": "arithmetic", "digits": 1})
    for seed in range(20):
        answer = inner.reference(seed)[0].text
        shown = Shown(inner=inner.spec, share=63 / 64, how="hint").reset(seed).task
        if len(answer) == 1:
            assert shown == inner.reset(seed).task
        else:
            assert shown.messages[-1]["content"].endswith(f"(The answer begins: {answer[:-1]})")


def test_what_is_left_is_doubled_until_it_is_everything():
    spec, shares = Shown(inner=OFFICE, share=0.5).spec, []
    while True:
        easier = [one for one in make(spec).mutations() if one.direction is Direction.EASIER]
        if not easier:
            break
        spec = easier[0].spec
        shares.append(spec["share"])
    assert shares == [3 / 4, 7 / 8, 15 / 16, 31 / 32, 63 / 64]
    while spec["env"] == "shown":
        (harder,) = [one for one in make(spec).mutations() if one.direction is Direction.HARDER]
        spec = harder.spec
    assert spec == make(OFFICE).spec


def test_both_are_solved_or_it_is_not():
    both = Both(first=WORDS, second=WORDS)
    right = [one.text for one in both.reference(3)]
    assert right[0] != right[1]  # another task of the same environment

    def end(texts):
        return asyncio.run(play(both, 3, actions=[Action(text=text) for text in texts])).steps[-1]

    values = {(a, b): end([right[0] if a else "x", right[1] if b else "x"]).reward for a in (0, 1) for b in (0, 1)}
    assert {key: one.value for key, one in values.items()} == {(0, 0): 0, (0, 1): 0, (1, 0): 0, (1, 1): 1}
    assert values[1, 0].parts["first"] == 1
    assert values[1, 0].parts["second"] == 0
    assert values[0, 1].parts["second.answer"] == 1


def test_the_second_begins_where_the_first_ends_with_one_system_message_in_front():
    both = Both(first=OFFICE, second={"env": "office", "turns": 5, "kinds": ["order"]})
    task = both.reset(0).task
    assert [message["role"] for message in task.messages] == ["system", "user"]
    assert task.messages[0]["content"].count("One call a turn:") == 2
    steps = asyncio.run(play(both, 0, actions=both.reference(0))).steps
    assert [message["role"] for message in steps[7].messages] == ["user"]
    assert sum(one.progress for one in steps) == pytest.approx(1)
    assert task.max_turns == 12 + 8


def test_neighbours_are_an_environments_own_and_the_generic_ones():
    named = {one.name: one for one in neighbours(OFFICE)}
    assert named["half shown"].spec["how"] == "prefix"
    assert named["half as long"].direction is Direction.EASIER
    assert "twice" not in named
    assert {one.name: one for one in neighbours(WORDS)}["half shown"].spec["how"] == "hint"
    assert [one.name for one in neighbours(Both(first=WORDS, second=WORDS).spec)] == ["the first alone"]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"env": "shown", "inner": WORDS, "share": 0.5}, "use how = hint"),
        ({"env": "shown", "inner": OFFICE, "share": 1}, "share must be between"),
        ({"env": "shown", "inner": OFFICE, "share": "much"}, "share must be a number"),
        ({"env": "shown", "inner": OFFICE, "share": 0.5, "how": "all"}, "how must be one of prefix, hint"),
        ({"env": "shown", "inner": SPECS[0], "share": 0.5}, "cannot stand inside another wrapper"),
        ({"env": "both", "first": "office", "second": OFFICE}, "an inner environment is a spec"),
        ({"env": "both", "first": {"env": "nowhere"}, "second": OFFICE}, "no environment is called 'nowhere'"),
    ],
)
def test_what_cannot_be_wrapped_is_refused(spec, said):
    with pytest.raises(Invalid, match=said):
        make(spec)


class Waiting:
    """Two turns that wait for something, as a sandbox would; knows a solution only if told so."""

    max_turns = 2

    def __init__(self, *, known=True):
        self.known = known
        self.spec = {"env": "waiting", "known": known}
        self.task = Task(messages=({"role": "user", "content": "go"},), max_turns=2)
        self.turn = 0

    def reset(self, seed):
        del seed
        return Waiting(known=self.known)

    def reference(self, seed):
        del seed
        return (Action(text="a"), Action(text="b")) if self.known else ()

    def mutations(self):
        return ()

    async def step(self, action):
        await asyncio.sleep(0)
        self.turn += 1
        if self.turn == 2:
            return Step(reward=Reward(value=float(action.text == "b")), ending=EpisodeEnding.DONE)
        return Step(messages=({"role": "user", "content": "on"},))

    async def close(self):
        pass


@pytest.fixture
def waiting(monkeypatch):
    monkeypatch.setattr(registry, "_find", lambda _: Waiting)


@pytest.mark.usefixtures("waiting")
def test_steps_that_wait_cannot_be_done_beforehand_but_hinted_at():
    with pytest.raises(Invalid, match="use how = hint"):
        Shown(inner={"env": "waiting"}, share=0.5).reset(0)
    hinted = Shown(inner={"env": "waiting"}, share=0.5, how="hint")
    assert hinted.reset(0).task.messages[-1]["content"] == "go\n(The first steps: a)"


@pytest.mark.usefixtures("waiting")
def test_what_knows_no_solution_cannot_be_shown_but_doubled():
    spec = {"env": "waiting", "known": False}
    with pytest.raises(Invalid, match="knows no solutions"):
        Shown(inner=spec, share=0.5, how="hint")
    assert [one.name for one in neighbours(spec)] == ["twice"]
