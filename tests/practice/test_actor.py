"""Actors: a real engine with a real model, and those that need none."""

import asyncio

import pytest

from dayjob.endings import Ending, EpisodeEnding, Invalid, Overloaded
from dayjob.fakes_practice import FakeEnvironment
from dayjob.policies.engine_protocol import Chunk
from dayjob.practice.actor import EngineActor, RandomActor, ReferenceActor, ScriptedActor, SilentActor
from dayjob.practice.protocol import Action
from dayjob.practice.registry import make
from dayjob.practice.rollout import roll


class SpellingEngine:
    """Says the characters of the last prompt backward; remembers what it was asked."""

    def __init__(self, *, busy=0, logprobs=True):
        self.busy, self.logprobs, self.asked, self.closed = busy, logprobs, [], 0

    async def generate(self, prompt, version, *, sampling):
        self.asked.append((prompt, version, sampling))
        if self.busy:
            self.busy -= 1
            raise Overloaded("full", retry_after_s=0.001)
        try:
            ids = list(reversed(prompt.token_ids))[: sampling.max_tokens]
            for place, one in enumerate(ids):
                await asyncio.sleep(0)
                yield Chunk(
                    token_ids=(one,), model_logprobs=(-0.5,), sample_logprobs=(-0.25,) if self.logprobs else None,
                    versions=(f"{version}.{place}",), top_logprobs=((),), text=chr(one),
                    ending=Ending.LENGTH if place == len(ids) - 1 else None,
                )  # fmt: skip
        finally:
            self.closed += 1


def render(messages, tools):
    assert tools == ()
    return tuple(ord(letter) for letter in messages[-1]["content"])


def act(actor, text="abc", **settings):
    settings = {"tools": (), "max_tokens": 8, "seed": 5} | settings
    return asyncio.run(actor.act([{"role": "user", "content": text}], **settings))


def test_every_token_keeps_its_logprob_and_version():
    engine = SpellingEngine()
    acted = act(EngineActor(engine, "v", render=render, context_tokens=100, temperature=0.7, salt="s"))
    assert (acted.text, acted.prompt_ids, acted.token_ids) == ("cba", (97, 98, 99), (99, 98, 97))
    assert (acted.logprobs, acted.versions, acted.ended) == ((-0.25,) * 3, ("v.0", "v.1", "v.2"), Ending.LENGTH)
    prompt, version, sampling = engine.asked[0]
    assert (prompt.salt, version, sampling.temperature, sampling.seed, sampling.max_tokens) == ("s", "v", 0.7, 5, 8)


def test_an_answer_is_cut_to_the_room_there_is():
    engine = SpellingEngine()
    assert act(EngineActor(engine, "v", render=render, context_tokens=5)).token_ids == (99, 98)
    assert act(EngineActor(engine, "v", render=render, context_tokens=3)) is None
    assert len(engine.asked) == 1


def test_a_full_engine_is_asked_again():
    engine = SpellingEngine(busy=2)
    assert act(EngineActor(engine, "v", render=render, context_tokens=100)).text == "cba"
    assert len(engine.asked) == 3


def test_an_engine_that_cannot_tell_probabilities_is_refused():
    engine = SpellingEngine(logprobs=False)
    with pytest.raises(Invalid, match=r"temperature 1.*practise at 1"):
        act(EngineActor(engine, "v", render=render, context_tokens=100))
    assert engine.closed == 1
    with pytest.raises(Invalid, match="room"):
        EngineActor(engine, "v", render=render, context_tokens=1)


def test_the_reference_solves_tasks_told_apart_by_what_is_said():
    environment = make({"env": "lookup", "hops": 2})

    async def run():
        office = make({"env": "office"})  # whose tasks all begin alike
        actor = await ReferenceActor.of(office, range(20))
        assert all([one.reward == 1 async for one in roll(office, range(20), actor=actor)])
        actor = await ReferenceActor.of(environment, range(20))
        found = [one async for one in roll(environment, range(20), actor=actor)]
        with pytest.raises(Invalid, match="none of those"):
            await actor.act(environment.reset(21).task.messages, tools=(), max_tokens=1, seed=0)
        return found

    assert all(one.reward == 1 for one in asyncio.run(run()))


def test_tasks_that_begin_alike_and_are_solved_differently_are_refused():
    class Alike(FakeEnvironment):
        def reference(self, seed):
            return (Action(text=str(seed)),)

    # Six numbers are asked about, so of ten seeds some begin alike.
    with pytest.raises(Invalid, match="solved otherwise"):
        asyncio.run(ReferenceActor.of(Alike(), range(10)))


def test_scripted_actors_say_nothing_when_they_are_through():
    actor = ScriptedActor([Action(text="one")])
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "one"}]
    assert act(actor).text == "one"
    assert asyncio.run(actor.act(messages, tools=(), max_tokens=9, seed=1)).text == ""


def test_random_words_come_from_the_task_and_depend_on_the_seed_alone():
    said = {seed: act(RandomActor(), "four words are here", seed=seed).text for seed in range(50)}
    assert len(set(said.values())) > 20
    assert all(0 < len(text.split()) <= 4 for text in said.values())
    assert {word for text in said.values() for word in text.split()} == {"four", "words", "are", "here"}
    assert act(RandomActor(), "four words are here", seed=3).text == said[3]
    assert act(RandomActor(), "").text == ""


@pytest.mark.parametrize("spec", [{"env": "arithmetic"}, {"env": "strings"}, {"env": "lookup"}])
def test_silence_and_chance_earn_next_to_nothing(spec):
    async def run(actor):
        return [one async for one in roll(make(spec), range(30), actor=actor, attempts=3)]

    assert not any(one.reward for one in asyncio.run(run(SilentActor())))
    by_chance = asyncio.run(run(RandomActor()))
    assert sum(one.reward for one in by_chance) <= 3
    assert {one.ending for one in by_chance} <= {EpisodeEnding.DONE, EpisodeEnding.UNREADABLE, EpisodeEnding.TURNS}
