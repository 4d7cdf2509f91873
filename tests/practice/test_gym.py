"""reasoning-gym's data sets: any of them, deterministic, scored by themselves, and nothing an answer says is run."""

import asyncio
import random

import numpy as np
import pytest

from dayjob.endings import EpisodeEnding, Invalid
from dayjob.practice.adapters import gym
from dayjob.practice.adapters.gym import Gym, evaluates, is_harmless, read_answer
from dayjob.practice.checks import check_environment, check_process, play
from dayjob.practice.processes import Workers
from dayjob.practice.protocol import Action, Direction
from dayjob.practice.registry import make

DATASETS = pytest.importorskip("reasoning_gym").factory.DATASETS
SPECS = [
    {"env": "gym", "dataset": "chain_sum", "config": {"max_terms": 3, "max_digits": 2}},
    {"env": "gym", "dataset": "spell_backward", "config": {"max_word_len": 6}},
    {"env": "gym", "dataset": "letter_counting"},
    {"env": "gym", "dataset": "number_sorting", "config": {"max_numbers": 5}, "partial": True},
    {"env": "gym", "dataset": "pool_matrix"},  # draws from numpy's global state
    {"env": "gym", "dataset": "countdown", "config": {"max_numbers": 4}},  # its scorer evaluates answers
]
# Have no answer of their own, or one that their own scorer does not take.
UNSOLVED = {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}

# Its own scorer takes whatever does not say "true" for False.
LENIENT = {"game_of_life_halting"}


def answer(environment, seed, text):
    return asyncio.run(environment.reset(seed).step(Action(text=text)))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec["dataset"])
def test_the_battery_passes(spec):
    made = make(spec).spec
    quick = spec["dataset"] != "countdown"  # its generator searches long for larger numbers
    asyncio.run(check_environment(lambda: make(made), seeds=[0, 1, 2**63 - 1], mutations=quick))


def test_another_process_says_the_same_bytes():
    async def there():
        async with Workers(1) as workers:
            for spec in SPECS[2:5]:
                await check_process(make(spec), [3, 4], workers=workers)

    asyncio.run(there())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # files that a data set leaves open
@pytest.mark.parametrize("name", sorted(set(DATASETS) - {"composite"}))
def test_every_data_set_can_be_practised(name):
    environment = Gym(dataset=name)
    for seed in (1, 77):
        states = random.getstate(), np.random.get_state()[1].tobytes()
        told = environment.reset(seed).task
        assert told == Gym(dataset=name).reset(seed).task
        assert states == (random.getstate(), np.random.get_state()[1].tobytes())
        assert answer(environment, seed, "?").reward.value < 1 or name in LENIENT
        solution = environment.reference(seed)
        assert bool(solution) == (name not in UNSOLVED)
        if solution:
            assert answer(environment, seed, solution[0].text).reward.value == 1


def test_what_draws_from_global_randomness_is_still_decided_by_the_seed():
    environment = Gym(dataset="pool_matrix")
    np.random.seed(1)
    random.seed(1)
    before = np.random.get_state()[1].tobytes(), random.getstate()
    first = environment.reset(9).task
    assert (np.random.get_state()[1].tobytes(), random.getstate()) == before
    np.random.seed(2)
    assert environment.reset(9).task == first
    assert environment.reset(10).task != first


def test_global_random_states_depend_on_the_seed_alone():
    drawn = []
    for seed in (5, 5, 6):
        with gym._own_randomness(seed):
            drawn.append((random.random(), np.random.random()))
    assert drawn[0] == drawn[1]
    assert not set(drawn[0]) & set(drawn[2])


def test_made_once_or_for_each_task_the_questions_are_the_same(monkeypatch):
    environment = Gym(dataset="letter_counting")
    assert gym._by_index("letter_counting", "{}") is not None
    tasks = [environment.reset(seed).task for seed in range(5)]
    monkeypatch.setattr(gym, "_by_index", lambda *_: None)
    assert [environment.reset(seed).task for seed in range(5)] == tasks


@pytest.mark.parametrize("fault", ["counts", "scales", "short"])
def test_what_is_not_the_same_by_its_index_is_made_for_each_task(monkeypatch, fault):
    class Odd:
        def __init__(self, seed):
            self.seed, self.read = seed, 0

        def __getitem__(self, index):
            self.read += 1
            if fault == "short" and index:
                raise IndexError(index)
            number = {"counts": self.seed + index + (self.read > 1), "scales": 2 * self.seed + index}.get(fault, 0)
            return {"question": str(number), "answer": "", "metadata": {}}

    monkeypatch.setattr(gym, "_create", lambda _name, _config, seed: Odd(seed))
    assert gym._by_index.__wrapped__("odd", "{}") is None


def test_a_partial_score_is_a_part_or_the_reward():
    exact, partial = (Gym(dataset="chain_sum", partial=partial) for partial in (False, True))
    right = exact.reference(3)[0].text
    wordy = f"It is {right}"  # scored by how much of it is the answer
    share = len(right) / len(wordy)
    assert answer(exact, 3, wordy).reward.value == 0
    assert answer(exact, 3, wordy).reward.parts == {"score": share, "form": 1}
    assert answer(partial, 3, wordy).reward.value == share
    assert answer(exact, 3, f"<think>{wordy}</think><answer>{right}</answer>").reward.value == 1


def test_answers_of_several_lines_are_read_whole():
    assert read_answer("<think>x</think>\n1 2\n3 4\n") == "1 2\n3 4"
    assert read_answer("so <answer>1</answer> or <ANSWER>\n2</ANSWER>") == "2"


EVIL = "__import__('pathlib').Path({!r}).touch() or '7'"


SLOW = ("puzzle24", "intermediate_integration")  # to make a question


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW))
        for name, (kind, _) in sorted(DATASETS.items())
        if evaluates(kind)
    ],
)
def test_no_scorer_runs_an_answer(name, tmp_path):
    mark = tmp_path / "ran"
    environment = Gym(dataset=name)
    step = answer(environment, 0, EVIL.format(str(mark)))
    assert step.ending is EpisodeEnding.UNREADABLE
    assert step.reward.value == 0
    assert not mark.exists()


def test_the_attack_works_where_nobody_looks(tmp_path, monkeypatch):
    """The test above can fail: without the check the same answer does run."""
    mark = tmp_path / "ran"
    monkeypatch.setattr(gym, "is_harmless", lambda _: True)
    answer(Gym(dataset="string_insertion"), 0, EVIL.format(str(mark)))
    assert mark.exists()


def test_those_that_evaluate_are_known():
    known = {name for name, (kind, _) in DATASETS.items() if evaluates(kind)}
    assert {"string_insertion", "countdown", "puzzle24", "simple_integration", "n_queens"} <= known
    assert "chain_sum" not in known
    assert evaluates(type("Unseen", (), {"score_answer": len}))


@pytest.mark.parametrize(
    "text", ["7", "-3.5", "[['a', 'b'], [1]]", "(3 + 4) * 5 - 6 / 2", "x**3/3 + 2*x + C", "sin(2*x) - exp(-x)", "2**x"]
)
def test_plain_arithmetic_and_literals_may_be_evaluated(text):
    assert is_harmless(text)


@pytest.mark.parametrize(
    "text",
    ["open('x')", "x.real", "[i for i in x]", "9**9**9", "9**99", "(9**9)**9", "9**(9*9)", "exp(exp(9))", "abs(1)",
     "1 << 99", "lambda: 0", "eval", "sin(x, y)", "sin(*x)", "'a' * 10**9", "f'{x}'", "x := 1", "2" * 500 + "+x",
     "1000000000000 * x", "import os", "(" * 3000, "a;b", "\x00", "\ud800"],
)  # fmt: skip
def test_anything_else_may_not(text):
    assert not is_harmless(text)


def test_what_a_scorer_raises_is_an_answer_it_could_not_read():
    step = answer(Gym(dataset="boxnet"), 0, "[1, 2]")
    assert step.ending is EpisodeEnding.UNREADABLE
    assert step.reward.parts["form"] == 0


def test_limits_move_half_way_down_and_as_far_up():
    found = {one.name: one for one in Gym(dataset="chain_sum", config={"max_terms": 6}).mutations()}
    assert found["max_terms lower"].spec["config"] == {"max_terms": 4}
    assert found["max_terms higher"].spec["config"] == {"max_terms": 8}
    assert found["max_digits lower"].direction is Direction.EASIER
    least = Gym(dataset="chain_sum", config={"max_terms": 2, "max_digits": 1})
    assert {one.direction for one in least.mutations()} == {Direction.HARDER}


def test_all_of_an_episode_is_one_question():
    environment = Gym(dataset="chain_sum")
    played = asyncio.run(play(environment, 2, actions=environment.reference(2)))
    assert played.task.max_turns == 1
    assert played.reward == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dataset": "chain_sun"}, "such as: .*chain_sum"),
        ({"dataset": "composite"}, "no data set 'composite'"),
        ({"dataset": "chain_sum", "config": {"seed": 1}}, "without seed and size"),
        ({"dataset": "chain_sum", "config": {"max_digitz": 1}}, "its settings: .*max_digits"),
        ({"dataset": "chain_sum", "config": {"max_digits": 0}}, "cannot be made so"),
        ({"dataset": "chain_sum", "partial": 1}, "partial must be"),
        ({"dataset": "chain_sum", "answer_tokens": 0}, "answer_tokens must be"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(Invalid, match=said):
        Gym(**settings)
