"""The contract battery: a sound environment passes, and each way of being wrong is seen by the check that is for it."""

import asyncio

import pytest

from dayjob.endings import Invalid
from dayjob.fakes_practice import FakeEnvironment
from dayjob.practice.checks import Unsound, check_environment
from dayjob.practice.processes import Workers

SEEDS = range(6)
FAULTS = {
    "spec": ("a set in the spec", "tuples in the spec", "no name", "no default in the spec", "a spec of the moment"),
    "seeds": ("one task", "any seed"),
    "deterministic": ("chance", "ageing"),
    "immutable": ("learns nonsense",),
    "apart": ("shared state",),
    "reference": ("no reference", "a wrong reference", "a short reference", "a long reference"),
    "actions": ("a number of tool calls",),
    "noise": ("pays for silence", "pays for an echo"),
    "guesses": ("pays for yes", "pays for any word"),
    "reward": ("pays twice", "pays 2", "a part of nan", "ill progress"),
    "turns": ("goes on", "no turns"),
    "end": ("steps after the end",),
    "close": ("closes once",),
    "mutations": ("a mutation that is none", "a mutation that cannot be made", "two of a name", "a mutation of chance"),
    "messages": ("a strange role", "nobody asks", "half characters", "last words", "says nothing", "odd tools"),
}


def check(make_env, **settings):
    asyncio.run(check_environment(make_env, seeds=SEEDS, **settings))


def test_what_is_sound_passes(wrong):
    check(lambda: FakeEnvironment(turns=3))
    check(lambda: wrong())


@pytest.mark.parametrize(("name", "fault"), [(name, fault) for name, faults in FAULTS.items() for fault in faults])
def test_each_fault_is_seen_by_its_check(wrong, name, fault):
    with pytest.raises(Unsound) as seen:
        check(lambda: wrong(fault))
    assert seen.value.check == name, seen.value


def test_an_unsolvable_neighbour_is_seen(wrong):
    with pytest.raises(Unsound, match=r"^reference"):
        check(lambda: wrong("an unsolvable mutation"))


def test_only_another_process_sees_a_hash(wrong):
    check(lambda: wrong("hash"), has_reference=False, mutations=False)

    async def run():
        async with Workers(1) as workers:
            await check_environment(lambda: wrong(), seeds=SEEDS, workers=workers)
            with pytest.raises(Unsound, match=r"^process.*another process"):
                await check_environment(lambda: wrong("hash"), seeds=SEEDS, workers=workers, has_reference=False)

    asyncio.run(run())


def test_one_seed_is_too_few():
    with pytest.raises(Invalid, match="two seeds"):
        asyncio.run(check_environment(FakeEnvironment, seeds=[1]))
