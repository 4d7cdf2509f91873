"""What leaves an engine's memory, and when; and that scoring is done in pieces."""

import asyncio
import threading
from contextlib import asynccontextmanager

import pytest
import torch

from dayjob.endings import Conflict, NotFound
from dayjob.policies.engine_batch import Batch
from dayjob.policies.engine_jobs import EngineLimits
from dayjob.policies.engine_protocol import Prompt, Sampling, salt_of
from dayjob.policies.engine_transformers import TransformersEngine
from tests.contracts.check_engine import PROMPTS, ask, close_to, whole
from tests.policies.language.worlds import BASE, tiny_model

LONG = tuple((11 * j) % 256 for j in range(70))
ANN, BOB = salt_of("office", "ann"), salt_of("office", "bob")


@asynccontextmanager
async def opened(world, **limits):
    wanted = EngineLimits(**{"context_tokens": 512, "slots": 3, **limits})
    engine = TransformersEngine(tiny_model(world.kind), world.tokens, limits=wanted)
    try:
        await engine.load(BASE)
        yield engine
    finally:
        await engine.close()


def begin(engine, version, *, salt="", tokens=40, seed=0):
    prompt = Prompt(token_ids=LONG, salt=salt)
    return engine.generate(prompt, version, sampling=Sampling(max_tokens=tokens, seed=seed))


async def settled(engine):
    """The worker did everything that was posted before, and what follows of it."""
    await engine._call(lambda: None)
    await engine._call(lambda: None)


def test_a_version_that_is_dropped_leaves_the_memory_at_once_or_with_its_last_answer(qwen):
    idle, busy, other = qwen.adapters[:3]

    async def go():
        async with opened(qwen) as engine:
            worker = engine.worker
            for ref in (idle, busy, other):
                await engine.load(ref)
                await ask(engine, ref.name, LONG)
            blocks = worker.cache.size
            stream = begin(engine, busy.name)
            first = await anext(stream)
            await engine.drop(idle.name)
            assert set(worker.shelf.held()) == {busy.name, other.name}
            assert worker.cache.size <= blocks * 2 / 3
            await engine.drop(busy.name)
            assert set(worker.shelf.held()) == {busy.name, other.name}, "it is still writing"
            with pytest.raises(NotFound):
                await ask(engine, busy.name)
            answer = whole([first, *[chunk async for chunk in stream]])
            await settled(engine)
            assert set(worker.shelf.held()) == {other.name}
            assert {salts[0] for _, salts in worker.cache._blocks.values()} == {other.name}
            held = [ref for layout in worker._batch.adapters._layouts for ref in layout]
            assert busy not in held
            assert worker._batch.adapters._layout is None
            await engine.load(busy)  # who is known again is kept
            again = whole([chunk async for chunk in begin(engine, busy.name)])
            await settled(engine)
            assert busy.name in worker.shelf.held()
            return answer, again

    answer, again = asyncio.run(go())
    close_to(answer.model, qwen.logprobs(busy, LONG, answer.ids), atol=1e-4)
    assert answer.ids == again.ids
    assert again.cached == 0


def test_a_version_loaded_again_while_its_last_answer_is_written_stays(qwen):
    ref = qwen.adapters[0]

    async def go():
        async with opened(qwen) as engine:
            await engine.load(ref)
            stream = begin(engine, ref.name)
            await anext(stream)
            await engine.drop(ref.name)
            await engine.load(ref)
            _ = [chunk async for chunk in stream]
            await settled(engine)
            assert engine.worker.shelf.held() == (ref.name,)
            await engine.swap("champion", ref)
            with pytest.raises(Conflict):
                await engine.drop(ref.name)

    asyncio.run(go())


def test_a_version_that_is_dropped_while_it_is_read_never_arrives(qwen):
    ref, dropped = qwen.adapters[0], threading.Event()

    async def go():
        async with opened(qwen) as engine:
            engine.worker.shelf._reader.submit(dropped.wait, 60)  # reading takes its time
            load = asyncio.create_task(engine.load(ref))
            await settled(engine)
            with pytest.raises(NotFound, match="one of those that are listed"):
                await engine.drop(ref.name)
            dropped.set()
            with pytest.raises(NotFound, match="dropped while it was read"):
                await load
            await asyncio.sleep(0.1)
            await settled(engine)
            assert engine.worker.shelf.held() == ()
            assert engine.worker.shelf._reading == {}
            assert ref.name not in engine.versions()

    asyncio.run(go())


def test_what_was_computed_for_somebody_who_is_forgotten_is_gone_and_others_keep_theirs(qwen):
    async def go():
        async with opened(qwen) as engine:
            cache, slots = engine.worker.cache, engine.worker._batch.slots
            for salt in (ANN, BOB):
                _ = [chunk async for chunk in begin(engine, BASE.name, salt=salt, tokens=2)]
            writing = begin(engine, BASE.name, salt=ANN, tokens=60)
            assert (await anext(writing)).cached_tokens == 64
            bobs = begin(engine, BASE.name, salt=BOB, tokens=200)
            await anext(bobs)
            await engine.forget(ANN)
            assert {salts[2] for _, salts in cache._blocks.values()} == {BOB}
            _ = [chunk async for chunk in writing]  # what was being written is written, and leaves nothing
            await settled(engine)
            assert {salts[2] for _, salts in cache._blocks.values()} == {BOB}
            assert not slots._kv[:, :, 1:].any(), "no row but Bob's holds anything"
            answer = [chunk async for chunk in bobs]
            assert answer[-1].ending is not None
            assert (await anext(begin(engine, BASE.name, salt=BOB))).cached_tokens == 64
            assert (await anext(begin(engine, BASE.name, salt=ANN))).cached_tokens == 0

    asyncio.run(go())


def test_nobody_takes_over_what_was_computed_for_another_person():
    pairs = [("a", None), ("a", "b"), ("a/b", None), ("a", "b/c"), ("a/b", "c")]
    assert len({salt_of(*pair) for pair in pairs}) == len(pairs)


def test_a_long_score_lets_the_others_write_between_its_pieces(qwen, monkeypatch):
    pieces = []
    go_on = Batch.go_on

    async def go():
        async with opened(qwen, prompt_share=16) as engine:
            ref = qwen.adapters[0]
            await engine.load(ref)

            def spied(batch, scoring, *, adapter, part):
                before = scoring.read
                done = go_on(batch, scoring, adapter=adapter, part=part)
                pieces.append((scoring.read - before, engine.worker.counts.tokens))
                return done

            monkeypatch.setattr(Batch, "go_on", spied)
            stream = begin(engine, BASE.name, tokens=60)
            await anext(stream)
            alone = await engine.score(Prompt(token_ids=PROMPTS[2]), ref.name, token_ids=LONG, top_logprobs=2)
            _ = [chunk async for chunk in stream]
            empty = await engine.score(Prompt(token_ids=PROMPTS[2]), ref.name, token_ids=())
            return alone, empty

    scored, empty = asyncio.run(go())
    close_to(torch.tensor(scored.model_logprobs), qwen.logprobs(qwen.adapters[0], PROMPTS[2], LONG), atol=1e-4)
    assert empty.model_logprobs == () == empty.top_logprobs
    read = [size for size, _ in pieces]
    assert sum(read) == len(PROMPTS[2]) + len(LONG) - 1
    assert max(read) <= 16
    written = [tokens for _, tokens in pieces[: len(pieces) - 1]]
    assert len(set(written)) == len(written), "between two pieces somebody else got a token"
