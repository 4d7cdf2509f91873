"""The environments that need nothing but Python, in many settings: the battery, and the same bytes everywhere."""

import asyncio
import contextlib
import doctest
import hashlib
import importlib
import io
import json
import re
from pathlib import Path

import pytest

from dayjob.practice.checks import check_environment, check_process, play
from dayjob.practice.processes import Workers
from dayjob.practice.questions import MAX_SEED
from dayjob.practice.registry import make

SPECS = [
    {"env": "fake", "turns": 5},
    {"env": "arithmetic"},
    {"env": "arithmetic", "terms": 5, "digits": 3, "operations": ["+", "-", "*"], "shown": 2},
    {"env": "arithmetic", "terms": 4, "parts": 3, "slack_percent": 10},
    {"env": "arithmetic", "terms": 4, "parts": 2, "story": True, "operations": ["+", "-", "*"], "shown": 1},
    {"env": "arithmetic", "story": True, "operations": ["-", "*"], "digits": 3, "terms": 4},
    {"env": "strings"},
    {"env": "strings", "operations": ["reverse"], "slack": 1},
    {"env": "strings", "operations": ["count"]},
    {"env": "strings", "operations": ["sort", "initials", "longest", "reverse"], "words": 4, "shown": 2},
    {"env": "strings", "operations": ["reverse", "sort", "replace", "remove", "count"], "words": 5, "steps": 4},
    {"env": "lookup"},
    {"env": "lookup", "documents": 10, "hops": 2, "choices": 4},
    {"env": "lookup", "hops": 3, "shown": 2, "reading": True, "plain": False, "spare": 0},
    {"env": "lookup", "documents": 300, "hops": 5, "results": 1},
]
NAMES = [json.dumps(spec) for spec in SPECS]
SEEDS = (*range(10), 10**12, MAX_SEED)
# Of everything that the reference solutions of SPECS meet on seeds 0 to 9. Tasks that are to be others need another
# name or setting: trajectories, curricula and tables speak of a spec and a seed.
TOLD = "4bf880d229d37469689d7c3333cfcb452414ef4ae6c84b99c7fa17881b11092a"


@pytest.mark.parametrize("spec", SPECS, ids=NAMES)
def test_the_battery_passes(spec):
    asyncio.run(check_environment(lambda: make(spec), seeds=SEEDS))


def test_another_process_says_the_same_bytes():
    async def run():
        async with Workers(1) as workers:
            for spec in SPECS:
                await check_process(make(spec), SEEDS[-3:], workers=workers)

    asyncio.run(run())


def test_tasks_stay_what_they_are():
    async def run():
        told = hashlib.sha256()
        for spec in SPECS:
            environment = make(spec)
            for seed in range(10):
                told.update((await play(environment, seed, actions=environment.reference(seed))).told)
        return told.hexdigest()

    assert asyncio.run(run()) == TOLD


@pytest.mark.parametrize("spec", SPECS, ids=NAMES)
def test_many_seeds_can_be_solved_and_are_hardly_ever_alike(spec):
    count = 10 if spec["env"] == "lookup" else 60

    async def run():
        environment = make(spec)
        played = [
            await play(environment, seed, actions=environment.reference(seed)) for seed in range(100, 100 + count)
        ]
        assert all(one.reward == 1 for one in played)
        return len({one.told for one in played})

    # The fewest questions there are: some three hundred words, spelt backward.
    assert asyncio.run(run()) > 0.8 * count


@pytest.mark.parametrize("spec", SPECS, ids=NAMES)
def test_both_directions_of_mutation_can_be_walked(spec):
    """Any chain of neighbours is made of sound specs, as a curriculum will walk it."""
    environment = make(spec)
    for step in range(6):
        found = environment.mutations()
        assert {one.direction.value for one in found} == {"easier", "harder"}
        environment = make(found[(7 * step + 3) % len(found)].spec)
        actions = environment.reference(step)
        assert asyncio.run(play(environment, step, actions=actions)).reward == 1


@pytest.mark.parametrize(
    "module",
    ["fakes_practice", "practice.calls", "practice.questions", "practice.registry", "practice.rollout",
     "practice.environments.arithmetic", "practice.environments.lookup", "practice.environments.strings"],
)  # fmt: skip
def test_examples_in_docstrings_are_true(module):
    found = doctest.testmod(importlib.import_module(f"dayjob.{module}"))
    assert found.failed == 0
    assert found.attempted >= 1


def test_the_pages_first_example_says_what_it_says():
    page = (Path(__file__).parents[2] / "docs" / "environments.md").read_text()
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1].replace("1000", "100")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(code, "docs/environments.md", "exec"), {})
    best, chance = map(float, said.getvalue().split())
    assert best == 1
    assert chance <= 0.05
