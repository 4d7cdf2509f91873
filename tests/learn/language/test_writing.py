"""What is written at night is what would have been served, with the log-probabilities of the learner's own forward."""

import asyncio

import pytest
import torch

from dayjob.learn.language.study import Rows
from dayjob.learn.language.writing import Writer, seeds_of
from dayjob.policies.engine_batch import Batch
from dayjob.policies.engine_jobs import EngineLimits
from dayjob.policies.engine_protocol import Prompt, Sampling
from dayjob.policies.engine_transformers import TransformersEngine
from tests.policies.language.worlds import BASE, World, tiny_model

PROMPTS = [(5, 80, 33), (60, 9, 12, 71, 44, 2), (7,), (20, 21)]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World.make("qwen3", tmp_path_factory.mktemp("writing"))


def writer(world, *, slots=3):
    batch = Batch(tiny_model("qwen3"), slots=slots, max_tokens=64)
    return Writer(batch, end_ids=world.tokens.end_ids, slots=slots, context_tokens=64)


def test_written_tokens_and_log_probabilities_are_the_engines_and_the_models(world):
    seeds = seeds_of(1, count=len(PROMPTS))
    written = writer(world).write(PROMPTS, seeds=seeds, max_tokens=12, temperature=0.8)

    async def served():
        engine = TransformersEngine(tiny_model("qwen3"), world.tokens, limits=EngineLimits(context_tokens=64))
        await engine.load(BASE)
        answers = []
        for prompt, seed in zip(PROMPTS, seeds, strict=True):
            sampling = Sampling(max_tokens=12, temperature=0.8, seed=seed)
            chunks = [one async for one in engine.generate(Prompt(token_ids=prompt), BASE.name, sampling=sampling)]
            answers.append(tuple(token for one in chunks for token in one.token_ids))
        await engine.close()
        return answers

    assert [one.token_ids for one in written] == asyncio.run(served())
    for prompt, one in zip(PROMPTS, written, strict=True):
        own = world.logprobs(BASE, prompt, one.token_ids, temperature=0.8)
        assert torch.tensor(one.logprobs) == pytest.approx(own, abs=1e-4)
        assert one.ended == (one.token_ids[-1] in world.tokens.end_ids)


def test_an_answer_does_not_depend_on_who_else_is_written(world):
    seeds = seeds_of(1, count=len(PROMPTS))
    together = writer(world, slots=4).write(PROMPTS, seeds=seeds, max_tokens=10)
    for prompt, seed, one in zip(PROMPTS, seeds, together, strict=True):
        (alone,) = writer(world).write([prompt], seeds=[seed], max_tokens=10)
        assert alone.token_ids == one.token_ids
    other = writer(world).write(PROMPTS, seeds=seeds_of(2, count=len(PROMPTS)), max_tokens=10)
    assert [one.token_ids for one in other] != [one.token_ids for one in together]


def test_rows_keep_each_completion_at_the_places_that_predict_it():
    rows = Rows.of([(1, 2, 3), (4,)], [(5,), (6, 7, 8)], device=torch.device("cpu"))
    assert rows.ids_BL.tolist() == [[1, 2, 3, 5], [4, 6, 7, 8]]
    assert rows.token_BT.tolist() == [[5, 0, 0], [6, 7, 8]]
    assert rows.mask_BT.tolist() == [[True, False, False], [True, True, True]]
    assert rows.place_BT.tolist() == [[2, 3, 3], [0, 1, 2]]
    assert rows.cut(slice(1, 2)).ids_BL.tolist() == [[4, 6, 7, 8]]


def test_a_prompt_without_room_is_refused(world):
    with pytest.raises(ValueError, match="from 1 to 63"):
        writer(world).write([(1,) * 64], seeds=[0], max_tokens=1)
