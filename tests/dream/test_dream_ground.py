"""A rehearsal in the real sandbox: what is rehearsed is nothing that judges, and a bad program costs nobody else
anything."""

import asyncio
from dataclasses import replace

import pytest

from dayjob.cli.dream_apart import says
from dayjob.dream.apart import Apart, Held, hold
from dayjob.dream.author_offline import write_programs
from dayjob.dream.excerpts import conversations, first_question, hold_out
from dayjob.dream.rehearse import IN_VAIN, NothingLeft, Rehearsal
from dayjob.endings import Invalid
from dayjob.memory.words import topic
from dayjob.practice.environments import program as module
from dayjob.practice.environments.program import Program, close_idle
from dayjob.practice.protocol import Action
from dayjob.practice.registry import digest
from dayjob.practice.rollout import Acted
from dayjob.practice.same import begun, task_of
from dayjob.practice.sandbox import available
from tests.dream import programs
from tests.dream.days import day
from tests.dream.test_prove import Half

pytestmark = pytest.mark.skipif(available() is not None, reason="the sandbox is missing")
SOUND = Program(source=programs.SOUND, name="orders", key="k")
# Soundly set, and never soundly ended.
RAISES = Program(source=programs.RAISES, name="raises")
SPINS = Program(source=programs.SPINS, name="spins")
NO_TASK = Program(source=programs.but("def reset(seed):\n", "def reset(seed):\n    raise KeyError\n"), name="none")
# It is sound for as long as a proof lasts.
TURNS = Program(
    source="ASKED = [0]\n" + programs.but(
        "    if calls:\n", "    ASKED[0] += 1\n    if ASKED[0] > 60: return {'reward': 1.0}\n    if calls:\n"
    ), name="turns",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    monkeypatch.setattr(module, "ANSWER_S", 10.0)
    yield
    close_idle()
    assert not module._ROOMS
    assert not module._OLD


class Acting(Rehearsal):
    """With somebody who needs no model."""

    def actor(self, engine, version):
        del engine, version
        return Half()


def render(*_):
    return (1,)


def rehearsal(*found, **settings):
    return Acting(found, render, 64, **settings)


async def rehearse(ground, groups):
    """The programs of so many groups."""
    out = []
    for ticket in range(groups):
        done = await ground.rehearsed(None, "now", ticket=ticket)
        assert done
        out.append(done[0].spec["name"])
    return out


# ---- what is rehearsed is nothing that judges


def test_no_task_that_proves_or_chooses_is_rehearsed():
    read, _ = hold_out(conversations(day()))
    written = [Program(source=one.source, name=one.name) for one in write_programs(read)]
    assert len(written) == 4

    async def tasks():
        for program in written:
            held = await hold(program, count=8, apart=Apart())
            assert min(len(held.proof), len(held.look)) >= 3
            proof, look = [{await task_of(program, one) for one in seeds} for seeds in (held.proof, held.look)]
            assert (len(proof), len(look)) == (len(held.proof), len(held.look))  # different tasks, each of them
            ground = rehearsal(program, held=(held,))
            drawn = [await ground._drawn() for _ in range(30)]
            practised = {await task_of(replace(one, shown=0), seed) for one, seed in drawn}
            assert len(practised) > 3
            assert not proof & look
            assert not (proof | look) & practised

    asyncio.run(tasks())


def test_what_an_exam_asks_is_rehearsed_in_no_program_whoever_writes_it():
    read, _ = hold_out(conversations(day()))
    asked = {first_question(one) for one in read}
    written = [Program(source=one.source, name=one.name) for one in write_programs(read)]

    async def openings(apart):
        said = []
        for program in written:
            ground = rehearsal(program, apart=apart, held=(await hold(program, count=4, apart=apart),))
            for _ in range(30):
                chosen, seed = await ground._drawn()
                messages, _ = await begun(replace(chosen, shown=0), seed)
                said.append(messages)
            for seed in ground.held[0].seeds:
                said.append((await begun(program, seed))[0])
        return said

    # The author writes what it never read: the words of one conversation, with the name out of another.
    free = asyncio.run(openings(Apart()))
    new = sorted({one[-1]["content"] for one in free} - asked)
    exam = frozenset(topic(one) for one in new[::2] if ", and then" not in one)
    assert len(exam) > 3
    assert any(says(one, exam) for one in free)
    kept = asyncio.run(openings(Apart(asked=lambda messages: says(messages, exam), mark="exam")))
    assert not [one for one in kept if says(one, exam)]
    assert any(", and then" in one[-1]["content"] for one in kept)


def test_a_question_is_known_in_the_midst_of_more_and_a_word_alone_by_its_digits():
    held = {topic("Where is order A-7 now?"), topic("A17?"), topic("Why?")}

    def asks(text):
        return says([{"role": "system", "content": "Why?"}, {"role": "user", "content": text}], held)

    assert asks("where is the order A-7 now")
    assert asks("Stock of A-9, and then where is order A-7 now?")
    assert asks("see A17")
    assert asks("why")
    assert not asks("Where is order A-8 now?")
    assert not asks("see A18")
    assert not asks("And why is that?")
    assert not says([{"role": "assistant", "content": "A17?"}], held)


def test_a_program_all_of_whose_tasks_are_kept_is_dropped():
    one = Program(source=programs.but("random.Random(seed)", "random.Random(1)"))

    async def draw():
        held = Held(seeds=(0,), each=1, marks=frozenset([await task_of(one, 0)]))
        ground = rehearsal(one, held=(held,))
        with pytest.raises(NothingLeft):
            await ground._drawn()
        assert ground._seen[digest(one.spec)].vain == IN_VAIN
        assert "kept for something else" in ground.lost()[one.digest]

    asyncio.run(draw())


# ---- one bad program costs nobody else anything


@pytest.mark.parametrize("bad", [RAISES, NO_TASK, SPINS], ids=lambda one: one.name)
def test_a_program_that_fails_is_dropped_with_its_reason_and_the_others_go_on(bad, monkeypatch):
    monkeypatch.setattr(module, "ANSWER_S", 1.0 if bad is SPINS else 10.0)

    class Silent:
        async def act(self, messages, *, tools, max_tokens, seed):
            del tools, max_tokens, seed
            return Acted(text="" if "seen" not in str(messages) else "lost")

    class Quiet(Acting):
        def actor(self, engine, version):
            del engine, version
            return Silent() if bad is SPINS else Half()

    held = Held(seeds=tuple(range(8)), each=2)
    ground = Quiet((bad, SOUND), render, 64, held=(held, held))
    rates = asyncio.run(ground.rates(None, "before"))
    assert rates["raises" if bad is RAISES else bad.name] == 0.0
    found = asyncio.run(rehearse(ground, 12))
    assert set(found) == {"orders"}
    assert list(ground.lost()) == [bad.digest]
    assert "it failed in 8 of 8 attempts" in ground.lost()[bad.digest]
    assert "Ann" not in str(ground.lost())
    assert asyncio.run(ground.rates(None, "after"))[bad.name] == 0.0
    alone = Quiet((bad,), render, 64, held=(held,))
    with pytest.raises(NothingLeft, match="every environment"):
        asyncio.run(rehearse(alone, 1))
    again = Quiet((bad,), render, 64, held=(held,))
    again.restore(alone.state())  # also after a kill
    with pytest.raises(NothingLeft):
        asyncio.run(rehearse(again, 1))


def test_a_task_that_cannot_be_put_to_the_model_fails_its_own_program_alone():
    def refuses(*_):
        raise Invalid("message 0 holds the control token '<|end|>': remove it")

    held = Held(seeds=tuple(range(8)), each=2)
    ground = Rehearsal((SOUND,), refuses, 64, held=(held,))
    assert asyncio.run(ground.rates(None, "now")) == {"orders": 0.0}
    with pytest.raises(NothingLeft):
        asyncio.run(rehearse(ground, 1))
    assert "cannot be put to this model" in ground.lost()[SOUND.digest]


def test_a_program_that_begins_to_pay_for_nothing_is_found_out_in_the_rehearsal():
    held = Held(seeds=tuple(range(8)), each=2)
    ground = rehearsal(TURNS, SOUND, held=(held, held))
    found = asyncio.run(rehearse(ground, 40))
    assert found[-10:] == ["orders"] * 10
    assert set(ground.lost()) == {TURNS.digest}
    assert "silence and the like earn" in ground.lost()[TURNS.digest]
    # What it is worth to whoever chooses between weights, stays as it was.
    before = ground.state()["rates"]
    assert asyncio.run(ground.rates(None, "now")).keys() - before.keys() == {"orders"}


def test_a_sandbox_begins_so_many_episodes_and_those_in_it_stay_to_their_end(monkeypatch):
    monkeypatch.setattr(module, "EPISODES", 3)
    counts = Program(
        source="SEEN = [0]\n"
        + programs.but("def reset(seed):\n", "def reset(seed):\n    SEEN[0] += 1\n").replace(
            '"Where is order {number}?"', '"{SEEN[0]}"'
        )
    )

    async def through():
        first = counts.reset(0)
        said = [first.task.messages[0]["content"]]
        for seed in range(1, 8):
            episode = counts.reset(seed)
            said.append(episode.task.messages[0]["content"])
            await episode.close()
        assert len(module._ROOMS) + len(module._OLD) == 2
        step = await first.step(Action(text="call status id=0"))  # the box that it began in is there still
        assert step.messages
        await first.close()
        assert not module._OLD
        return said

    assert asyncio.run(through()) == ["1", "2", "3", "1", "2", "3", "1", "2"]


def test_an_old_sandbox_is_renewed_and_takes_no_open_episode_along(monkeypatch):
    monkeypatch.setattr(module, "LIFE_S", 0.0)

    async def through():
        first, second = SOUND.reset(0), SOUND.reset(1)
        assert len(module._OLD) == 1
        for episode, seed in ((first, 0), (second, 1)):
            for action in SOUND.reference(seed):
                step = await episode.step(action)
            assert step.reward.value == 1.0
            await episode.close()

    asyncio.run(through())
