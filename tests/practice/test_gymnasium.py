"""Gymnasium environments told as text: two real ones, and small ones of every kind of space."""

import asyncio

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from dayjob.endings import EpisodeEnding, Invalid
from dayjob.practice.adapters.gymnasium import Gymnasium, tell
from dayjob.practice.checks import check_environment, check_process, play
from dayjob.practice.processes import Workers
from dayjob.practice.protocol import Action
from dayjob.practice.registry import make

LAKE = {
    "env": "gymnasium",
    "id": "FrozenLake-v1",
    "settings": {"is_slippery": True, "map_name": "8x8"},
    "intro": "Walk over the ice from S to G; H is a hole.",
    "actions": ["left", "down", "right", "up"],
    "max_turns": 60,
}
CARDS = {"env": "gymnasium", "id": "Blackjack-v1", "actions": ["stick", "hit"], "worst": -1, "max_turns": 20}


def run(environment, seed, texts):
    return asyncio.run(play(environment, seed, actions=[Action(text=text) for text in texts])).steps


@pytest.mark.parametrize("spec", [CARDS], ids=lambda spec: spec["id"])
def test_the_battery_passes(spec):
    made = make(spec).spec
    asyncio.run(check_environment(lambda: make(made), seeds=[*range(12), 2**63 - 1], has_reference=False))


def test_the_battery_passes_where_all_seeds_begin_alike():
    """The lake's ice is decided by the seed, but looks the same."""
    spec = make(LAKE).spec
    noise = ("", "fly", "-1", "9" * 99)

    async def battery():
        try:
            await check_environment(lambda: make(spec), seeds=range(4), has_reference=False, noise=noise)
        except Exception as error:
            return str(error)

    assert asyncio.run(battery()) == "seeds: all of these seeds are one and the same task"


def test_another_process_says_the_same_bytes():
    async def there():
        async with Workers(1) as workers:
            await check_process(make(CARDS), [3, 4], workers=workers)

    asyncio.run(there())


def test_a_lake_without_wind_by_hand():
    lake = make(LAKE | {"settings": {"is_slippery": False}, "max_turns": 9})
    first = lake.reset(0).task.messages[0]["content"].splitlines()
    assert first == [LAKE["intro"], "[S]FFF", "FHFH", "FFFH", "HFFG", "Say one of: left, down, right, up."]
    steps = run(lake, 0, ["down", "fly", "Down.", "right", "right", "down", "right"])
    assert steps[0].messages[0]["content"].splitlines()[1:] == ["SFFF", "[F]HFH", "FFFH", "HFFG"]
    assert steps[1].messages[0]["content"] == "Say one of: left, down, right, up."
    assert [one.progress for one in steps] == [0] * 6 + [1]
    assert steps[-1].ending is EpisodeEnding.DONE
    assert steps[-1].reward.value == 1
    drowned = run(lake, 0, ["right", "down"])[-1]
    assert (drowned.ending, drowned.reward.value) == (EpisodeEnding.DONE, 0)
    lost = run(lake, 0, ["left"] * 9)[-1]
    assert (lost.ending, lost.reward.value) == (EpisodeEnding.TURNS, 0)
    assert lost.reward.parts == {"terminated": 0}


def test_a_loss_a_draw_and_a_win_at_cards():
    cards = make(CARDS)
    ends = [run(cards, seed, ["stick"])[-1] for seed in range(40)]
    assert {one.reward.value for one in ends} == {0.0, 0.5, 1.0}
    for one in ends:  # nothing earned and nothing lost is half-way
        assert one.progress == max(0, one.reward.value - 0.5)


class Small(gymnasium.Env):
    """Ends when the action that was asked for is given; shows where it stands in every way there is."""

    def __init__(self, action_space, wanted, truncate=False, render_mode=None):
        self.action_space, self.wanted, self.truncate, self.render_mode = action_space, wanted, truncate, render_mode
        self.observation_space = spaces.Dict({
            "where": spaces.Tuple((spaces.Discrete(1000), spaces.Text(10))),
            "grid": spaces.Box(-9, 9, (2, 2), np.float32),
        })  # fmt: skip

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.start = int(self.np_random.integers(1000))
        return self.see(), {}

    def see(self):
        return {"where": (self.start, "here"), "grid": np.array([[0.5, 1], [2, -3.25]], np.float32)}

    def step(self, action):
        right = bool(np.all(np.asarray(action) == np.asarray(self.wanted)))
        return self.see(), 0.25 + right, right, self.truncate, {}


@pytest.fixture
def small():
    """Registers `Small` under an id, as an installed package would."""
    made = []

    def register(name, **settings):
        gymnasium.register(f"{name}-v0", entry_point=Small, kwargs=settings)
        made.append(f"{name}-v0")
        return made[-1]

    yield register
    for one in made:
        del gymnasium.registry[one]


@pytest.mark.parametrize(
    ("space", "right", "wrong"),
    [
        (spaces.Discrete(3, start=5), ("6", 6), ["2", "8", "six", "6.0"]),
        (spaces.Text(4, charset="abc"), ("abca", "abca"), ["abcab", "xyz", ""]),
        (spaces.Box(-1, 1, (2,), np.float32), ("0.5, -1", [0.5, -1]), ["0.5", "2, 0", "nan, 0", "a b"]),
        (spaces.MultiDiscrete([3, 3]), ("2 0", [2, 0]), ["2.5 0", "3 0", "1 1 1"]),
        (spaces.MultiBinary(3), ("1,0,1", [1, 0, 1]), ["1,0,2", "1e400 0 0"]),
    ],
    ids=lambda one: type(one).__name__,
)
def test_every_kind_of_action_is_read_and_nothing_else(small, space, right, wrong):
    said, wanted = right
    name = small("Small", action_space=space, wanted=wanted)
    environment = Gymnasium(id=name, best=1.25)
    for text in wrong:
        (step,) = run(environment, 0, [text])
        assert step.progress == 0, text  # not even stepped
        assert not step.ending
    (step,) = run(environment, 0, [said])
    assert (step.ending, step.reward.value) == (EpisodeEnding.DONE, 1)


def test_observations_are_told_and_seeds_decide(small):
    environment = Gymnasium(id=small("Seen", action_space=spaces.Discrete(2), wanted=1), best=1.5)
    first, again, other = (environment.reset(seed).task.messages[0]["content"] for seed in (1, 1, 2))
    assert first == again != other
    lines = first.splitlines()
    assert lines[0].startswith("where: ")
    assert lines[0].endswith(", here")
    assert lines[1:] == ["grid: (0.5, 1), (2, -3.25)", "Say a number from 0 to 1."]
    steps = run(environment, 1, ["0", "1"])
    assert [one.progress for one in steps] == pytest.approx([0.25 / 1.5, 1.25 / 1.5])


def test_what_is_cut_off_ends_by_turns(small):
    name = small("Cut", action_space=spaces.Discrete(2), wanted=1, truncate=True)
    (step,) = run(Gymnasium(id=name), 0, ["0"])
    assert (step.ending, step.reward.value) == (EpisodeEnding.TURNS, 0.25)


def test_numbers_are_told_to_four_digits():
    assert tell(np.float32(1 / 3)) == "0.3333"
    assert tell((np.int64(3), 1e-9)) == "3, 1e-09"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"id": "Nowhere-v0"}, "no environment 'Nowhere-v0' is registered"),
        ({"id": "os:Anything-v0"}, "no environment 'os:Anything-v0' is registered"),
        ({"id": "FrozenLake-v1", "actions": ["left"]}, "actions must name each action"),
        ({"id": "FrozenLake-v1", "settings": {"ice": 1}}, "cannot be made so"),
        ({"id": "FrozenLake-v1", "settings": {"render_mode": "human"}}, "without render_mode"),
        ({"id": "FrozenLake-v1", "worst": 1}, "best must be above worst"),
        ({"id": "FrozenLake-v1", "best": float("inf")}, "best must be a number"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(Invalid, match=said):
        Gymnasium(**settings)


def test_spaces_without_a_text_form_are_refused(small):
    name = small("Deep", action_space=spaces.Tuple((spaces.Discrete(2),)), wanted=1)
    with pytest.raises(Invalid, match="have no text form here"):
        Gymnasium(id=name)
