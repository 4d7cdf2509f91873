"""A real engine with a real, tiny model in the loop: what trajectories say of tokens is what the model says."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from dayjob.endings import EpisodeEnding
from dayjob.fakes_practice import FakeEnvironment
from dayjob.policies.engine_jobs import EngineLimits
from dayjob.policies.engine_protocol import Prompt
from dayjob.policies.engine_transformers import TransformersEngine
from dayjob.policies.tokens import Tokens
from dayjob.practice.actor import EngineActor
from dayjob.practice.rollout import Lost, roll
from tests.policies.language.worlds import BASE, byte_tokenizer, tiny_model


@pytest.fixture(scope="module")
def tokens():
    return Tokens(byte_tokenizer())


@asynccontextmanager
async def acting(tokens, *, context_tokens=512, temperature=1.0, **limits):
    engine = TransformersEngine(
        tiny_model("qwen3"), tokens, limits=EngineLimits(context_tokens=context_tokens, **limits)
    )

    def render(messages, tools):
        return tokens.render(messages, tools=tools)

    try:
        await engine.load(BASE)
        actor = EngineActor(engine, BASE.name, render=render, context_tokens=context_tokens, temperature=temperature)
        yield engine, actor
    finally:
        await engine.close()


def test_logprobs_of_turns_are_those_of_the_version_that_is_stamped(tokens):
    async def run():
        async with acting(tokens) as (engine, actor):
            rolled = roll(FakeEnvironment(turns=3), range(3), actor=actor, attempts=2, seed=5)
            found = [one async for one in rolled]
            again = [
                one async for one in roll(FakeEnvironment(turns=3), [1], actor=actor, attempts=2, seed=5, parallel=1)
            ]
            for one in found:
                for turn in one.turns:
                    scored = await engine.score(Prompt(token_ids=turn.prompt_ids), BASE.name, token_ids=turn.token_ids)
                    assert turn.logprobs == pytest.approx(scored.model_logprobs, abs=1e-3)
                    assert turn.versions == (BASE.name,) * len(turn.token_ids)
                    assert 1 <= len(turn.token_ids) <= 8
            return found, again

    found, again = asyncio.run(run())
    assert len(found) == 6
    assert all(len(one.turns) == 3 and one.ending is EpisodeEnding.DONE for one in found)
    # Later turns were read behind everything before.
    assert all(len(one.turns[2].prompt_ids) > len(one.turns[1].prompt_ids) for one in found)
    of_one = sorted([turn.token_ids for turn in one.turns] for one in found if one.seed == 1)
    assert of_one == sorted([turn.token_ids for turn in one.turns] for one in again)
    assert of_one[0] != of_one[1]


def test_many_more_episodes_than_the_engine_takes_at_once_all_end(tokens):
    async def run():
        async with acting(tokens, slots=2, waiting=2) as (_, actor):
            return [one async for one in roll(FakeEnvironment(), range(12), actor=actor, parallel=12)]

    assert len(asyncio.run(run())) == 12


def test_a_conversation_that_outgrows_the_context_ends_for_want_of_tokens(tokens):
    async def run():
        async with acting(tokens, context_tokens=100) as (_, actor):
            return [one async for one in roll(FakeEnvironment(turns=50), [0], actor=actor)]

    (one,) = asyncio.run(run())
    assert (one.ending, one.reward) == (EpisodeEnding.TOKENS, 0.0)
    assert 1 <= len(one.turns) < 50
    assert len(one.turns[-1].prompt_ids) + len(one.turns[-1].token_ids) <= 100


def test_a_control_token_that_somebody_spelt_out_ends_the_episode_and_not_the_run(tokens):
    said = [{"role": "user", "content": "After 2 comes?"}, {"role": "assistant", "content": "<|end|>"}]

    async def run():
        async with acting(tokens) as (_, actor):
            assert await actor.act(said, tools=(), max_tokens=4, seed=0) is None
            with pytest.raises(Lost, match=r"cannot be put to this model.*control token"):
                await actor.act([{"role": "user", "content": "<|end|>"}], tools=(), max_tokens=4, seed=0)

    asyncio.run(run())
