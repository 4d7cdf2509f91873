"""The buffer: nothing is dropped for being late, and nobody runs further ahead than agreed."""

import numpy as np
import pytest

from dayjob.endings import Damaged, EpisodeEnding
from dayjob.learn.practice.buffer import ReplayBuffer, update_of, version_name
from dayjob.learn.practice.stored import pack, unpack
from dayjob.records import Trajectory, Turn


def attempt(turns: int = 1, *, update: int = 0, ending: EpisodeEnding = EpisodeEnding.DONE) -> Trajectory:
    prompt: tuple[int, ...] = (1, 2, 3)
    found = []
    for number in range(turns):
        versions = (version_name(update), version_name(update + number))
        found.append(
            Turn(prompt_ids=prompt, token_ids=(7, 8), logprobs=(-0.1, -1 / 3), versions=versions, text="ab", reward=0.1)
        )
        prompt = (*prompt, 7, 8, 50 + number)
    return Trajectory(
        spec={"env": "x", "n": 1}, seed=2**63 - 1, group="g", turns=tuple(found),
        messages=({"role": "user", "content": "é"},), reward=0.5, parts=(("style", 0.25),), ending=ending, error="é",
    )  # fmt: skip


def test_trajectories_come_back_as_they_were_and_take_the_room_of_their_text():
    one, long = attempt(3), attempt(100)
    assert unpack(pack([one, long])) == (one, long)
    assert unpack(pack([])) == ()
    shortened = Turn(prompt_ids=(3, 9), token_ids=(), logprobs=(), versions=(), text="")  # a truncated prompt
    odd = Trajectory(
        spec={}, seed=0, group="", turns=(*one.turns, shortened), messages=(), reward=0.0, parts=(),
        ending=EpisodeEnding.TOKENS,
    )  # fmt: skip
    assert unpack(pack([odd])) == (odd,)
    assert len(pack([attempt(200)])) < 3 * len(pack([long]))  # of prompts alone it would be four times as much
    with pytest.raises(Damaged):
        unpack(b"nonsense")


def test_names_of_versions_count_updates():
    assert update_of(version_name(17)) == 17
    assert update_of("v3-1f2e3d4c") == update_of("update-x") == update_of("") == 0


def test_sampling_is_paced_and_a_step_waits_for_its_groups():
    buffer = ReplayBuffer(per_step=2, ahead=1)
    tickets = [buffer.ticket() for _ in range(6)]
    assert tickets == [0, 1, 2, 3, None, None]  # two steps' worth, and no more
    buffer.add(1, [attempt()])
    assert buffer.take(0.0) == []
    buffer.add(3, [attempt()])
    assert [one.ticket for one in buffer.take(0.0)] == [1, 3]  # those that are there: nobody waits for ticket 0
    assert [buffer.ticket() for _ in range(3)] == [4, 5, None]
    # The slow ones come when they come, long after, and are learned from all the same.
    buffer.add(0, [attempt(100)])
    buffer.add(2, [attempt()])
    found = buffer.take(0.0)
    assert [one.ticket for one in found] == [0, 2]
    assert len(found[0].attempts[0].turns) == 100


def test_no_episode_is_dropped_for_being_long():
    """Episodes take as many ticks as they have turns; one step a tick. Pacing learns from all of them alike; leaving
    out what is more than two updates old, as one would without it, favours the short ones."""
    rng = np.random.default_rng(0)
    lengths = rng.choice([1, 10], size=400)
    buffer = ReplayBuffer(per_step=1, ahead=8)
    running: list[tuple[int, int, int]] = []  # the tick at which it ends, ticket, update at its beginning
    learned, fresh = [], []
    begun = update = tick = 0
    while len(learned) < 300:
        tick += 1
        while (ticket := buffer.ticket()) is not None:
            running.append((tick + int(lengths[begun]), ticket, update))
            begun += 1
        for one in [one for one in running if one[0] <= tick]:
            running.remove(one)
            buffer.add(one[1], [attempt(int(lengths[one[1]]), update=one[2])])
        for group in buffer.take(0.0):
            turns = len(group.attempts[0].turns)
            learned.append(turns)
            fresh += [turns] if update - group.oldest <= 2 else []
            update += 1
    assert sorted(learned)[:100] == [1] * 100
    share = np.mean(np.array(learned) == 10)
    assert share == pytest.approx(np.mean(lengths[:300] == 10), abs=0.02)
    assert np.mean(np.array(fresh) == 10) < share - 0.1


def test_a_group_is_learned_from_as_often_as_asked_and_the_least_used_goes_first():
    buffer = ReplayBuffer(per_step=1, ahead=2, reuse=2)
    for ticket in (buffer.ticket(), buffer.ticket()):
        buffer.add(ticket, [attempt()])
    assert [buffer.take(0.0)[0].ticket for _ in range(4)] == [0, 1, 0, 1]
    assert buffer.take(0.0) == []


def test_what_failed_inside_the_environment_teaches_nothing_and_holds_up_nobody():
    buffer = ReplayBuffer(per_step=1, ahead=0)
    failed, empty = attempt(ending=EpisodeEnding.FAILED), attempt(0)
    assert buffer.ticket() == 0
    assert buffer.ticket() is None
    buffer.add(0, [failed, empty])
    assert buffer.missing() == 1
    buffer.add(buffer.ticket(), [failed, attempt()])
    (group,) = buffer.take(0.0)
    assert group.attempts == (attempt(),)


def test_a_killed_course_finds_its_groups_again():
    buffer = ReplayBuffer(per_step=2, ahead=1, reuse=2)
    for _ in range(3):
        buffer.add(buffer.ticket(), [attempt(2, update=5)])
    buffer.take(0.0)
    assert buffer.ticket() == 3  # begun, and lost with the process
    again = ReplayBuffer(per_step=2, ahead=1, reuse=2)
    again.restore(buffer.state())
    assert again.ticket() == 4
    assert again.take(0.0) == buffer.take(0.0)
    assert again.state().tobytes() != b""


def test_actors_are_given_no_ticket_when_it_is_over():
    buffer = ReplayBuffer(per_step=1, ahead=0)
    buffer.add(buffer.ticket(), [attempt()])
    assert buffer.ticket() is None
    buffer.take(0.0)
    assert buffer.ticket() == 1
    buffer.close()
    assert buffer.ticket() is None
    assert ReplayBuffer(per_step=1, ahead=0).ticket() == 0


def test_an_environment_that_only_fails_is_at_fault_and_begins_no_more_groups():
    buffer = ReplayBuffer(per_step=2, ahead=3)
    failed = attempt(ending=EpisodeEnding.FAILED)
    for number in range(7):
        assert buffer.ticket() == number
        buffer.add(number, [failed])
        assert buffer.fault() is None
    buffer.add(buffer.ticket(), [failed])
    assert buffer.fault() == "é"
    assert buffer.ticket() is None
    assert buffer.take(60.0) == []  # at once


def test_failures_between_two_steps_that_have_enough_are_nobodys_fault():
    buffer = ReplayBuffer(per_step=1, ahead=0)
    for _ in range(3):
        for _ in range(3):
            buffer.add(buffer.ticket(), [attempt(ending=EpisodeEnding.FAILED)])
        buffer.add(buffer.ticket(), [attempt()])
        assert len(buffer.take(0.0)) == 1
    assert buffer.fault() is None
