"""The transformers engine: the contract of every engine, and what is its own."""

import asyncio
import shutil
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from transformers import AutoModelForCausalLM, MistralConfig

from dayjob.endings import Damaged, Ending, Invalid, Overloaded
from dayjob.policies.adapters import WEIGHTS
from dayjob.policies.engine_batch import Batch
from dayjob.policies.engine_jobs import EngineLimits
from dayjob.policies.engine_protocol import InFlight, Prompt, Sampling, VersionRef
from dayjob.policies.engine_transformers import TransformersEngine, load_model
from tests.contracts.check_engine import CHECKS, NUMBERS, PROMPTS, Rig, ask, close_to, whole
from tests.policies.language.worlds import BASE, RECIPES, SIZES, tiny_model, write_adapter

LONG = tuple((11 * j) % 256 for j in range(70))
MANY = 200


@asynccontextmanager
async def opened(world, **limits):
    wanted = EngineLimits(**{"context_tokens": 512, "prompt_share": 16, **limits})
    engine = TransformersEngine(tiny_model(world.kind), world.tokens, limits=wanted)
    try:
        await engine.load(BASE)
        yield engine
    finally:
        await engine.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(check, qwen):
    rig = Rig(make=lambda **limits: opened(qwen, **limits), world=qwen, moves=True)
    asyncio.run(asyncio.wait_for(check(rig), timeout=120))


@pytest.mark.parametrize("check", NUMBERS, ids=lambda check: check.__name__)
def test_contract_of_another_architecture(check, llama):
    rig = Rig(make=lambda **limits: opened(llama, **limits), world=llama, moves=True)
    asyncio.run(asyncio.wait_for(check(rig), timeout=120))


def test_served_log_probabilities_are_those_of_one_by_one_forwards_to_four_digits(world):
    """Prompts of 1 to 70 tokens, computed 16 tokens a turn at most, while others are written."""

    async def go():
        async with opened(world, slots=6) as engine:
            cases = [(ref, prompt) for ref in world.adapters[:2] for prompt in (*PROMPTS, LONG)]
            for ref in world.adapters[:2]:
                await engine.load(ref)
            answers = await asyncio.gather(
                *(ask(engine, ref.name, prompt, seed=n, max_tokens=20) for n, (ref, prompt) in enumerate(cases))
            )
            assert engine.worker.counts.most_rows == 6
            return list(zip(cases, answers, strict=True))

    for (ref, prompt), answer in asyncio.run(go()):
        close_to(answer.model, world.logprobs(ref, prompt, answer.ids), atol=1e-4)


def test_one_pass_serves_everybody(qwen):
    """Sixteen answers of twelve tokens, four adapters: thirteen passes and a few to join, not sixteen times twelve."""

    async def go():
        async with opened(qwen, slots=16, prompt_share=512) as engine:
            for ref in qwen.adapters:
                await engine.load(ref)
            before = engine.worker.counts.forwards
            await asyncio.gather(*(ask(engine, qwen.adapters[n % 4].name, seed=n, max_tokens=12) for n in range(16)))
            return engine.worker.counts.forwards - before

    assert asyncio.run(go()) <= 20


def test_the_prompt_cache_gives_the_same_answers_and_keeps_versions_and_tenants_apart(qwen):
    first, second = qwen.adapters[:2]

    async def go():
        async with opened(qwen, slots=4) as engine:
            for ref in (first, second):
                await engine.load(ref)

            async def say(ref, ids, salt):
                wanted = Sampling(max_tokens=6)
                stream = engine.generate(Prompt(token_ids=ids, salt=salt), ref.name, sampling=wanted)
                return whole([chunk async for chunk in stream])

            cold = await say(first, LONG, "a")
            answers = [
                (first, LONG, await say(first, LONG, "a")),
                (first, (*LONG[:40], *LONG[:9]), await say(first, (*LONG[:40], *LONG[:9]), "a")),
                (second, LONG, await say(second, LONG, "a")),
                (first, LONG, await say(first, LONG, "b")),
                # What was answered is known too, for the next turn of a conversation.
                (first, (*LONG, *cold.ids, 5, 6), await say(first, (*LONG, *cold.ids, 5, 6), "a")),
                (first, LONG[:64], await say(first, LONG[:64], "a")),
            ]
            # 70 tokens hold four blocks of 16, the shared 40 hold two; the last token is always computed.
            assert [answer.cached for _, _, answer in answers] == [64, 32, 0, 0, 64, 48]
            assert engine.worker.cache.hit_tokens == 64 + 32 + 64 + 48
            assert answers[0][2].ids == cold.ids
            return answers

    for ref, ids, answer in asyncio.run(go()):
        close_to(answer.model, qwen.logprobs(ref, ids, answer.ids), atol=1e-4)


def test_the_prompt_cache_is_bounded(qwen):
    async def go():
        token = 2 * 2 * 2 * 8 * 4  # keys and values, layers, heads, width, bytes
        async with opened(qwen, slots=2, prompt_cache_bytes=6 * 16 * token) as engine:
            cache = engine.worker.cache
            for start in range(5):
                await ask(engine, BASE.name, (start, *LONG))
                assert cache.size <= 6 * 16 * token
            assert cache.size == 6 * 16 * token
            assert (await ask(engine, BASE.name, (4, *LONG))).cached == 64, "what was used last is kept"
            assert (await ask(engine, BASE.name, (0, *LONG))).cached == 0

    asyncio.run(go())


def test_memory_holds_as_many_adapters_as_it_may_and_reads_what_is_asked_again(qwen):
    async def go():
        async with opened(qwen, slots=2, adapters=2) as engine:
            shelf = engine.worker.shelf
            for ref in qwen.adapters[:3]:
                await engine.load(ref)
            assert shelf.held() == (qwen.adapters[1].name, qwen.adapters[2].name)
            await ask(engine, qwen.adapters[1].name)
            assert shelf.reads == 3
            await ask(engine, qwen.adapters[0].name)
            assert (shelf.reads, shelf.held()) == (4, (qwen.adapters[1].name, qwen.adapters[0].name))

    asyncio.run(go())


def test_hundreds_on_disk_a_few_in_memory(qwen, tmp_path):
    """Two hundred versions, each in a folder of its own, asked for at once, room for three: everybody gets the right
    one."""
    refs = []
    for n in range(MANY):
        folder = shutil.copytree(qwen.adapters[n % 4].folder, tmp_path / f"v{n}-many")
        refs.append(replace(qwen.adapters[n % 4], name=folder.name, digest=f"{n:064x}", folder=folder))

    async def go():
        async with opened(qwen, slots=8, adapters=3, waiting=MANY) as engine:
            shelf, most = engine.worker.shelf, 0

            async def asked(ref):
                nonlocal most
                answer = await ask(engine, ref.name, max_tokens=2, temperature=0)
                most = max(most, len(shelf.held()))
                return answer

            for ref in refs:
                await engine.load(ref, now=False)
            answers = await asyncio.gather(*map(asked, refs))
            assert most == len(shelf.held()) == 3
            assert shelf.reads == MANY
            return answers

    wanted = [qwen.logits(ref, PROMPTS[1])[-1].argmax().item() for ref in qwen.adapters]
    assert len(set(wanted)) == 4
    for n, answer in enumerate(asyncio.run(go())):
        assert (answer.versions[0], answer.ids[0]) == (f"v{n}-many", wanted[n % 4])


def test_an_adapter_in_use_keeps_its_room(qwen):
    """With room for two, a third is read only when one of the two answers has ended, however short its own is."""
    ended = []

    async def go():
        async with opened(qwen, slots=8, adapters=2) as engine:

            async def timed(number, tokens):
                await ask(engine, qwen.adapters[number].name, max_tokens=tokens, seed=5)
                ended.append(number)

            for ref in qwen.adapters:
                await engine.load(ref, now=False)
            await asyncio.gather(timed(0, 60), timed(1, 90), timed(2, 1), timed(3, 1))

    asyncio.run(go())
    assert ended[0] == 0


def test_a_damaged_version_changes_nothing(qwen):
    first = qwen.adapters[0]

    async def go():
        async with opened(qwen, slots=2) as engine:
            await engine.swap("champion", first)
            for in_flight in InFlight:
                with pytest.raises(Damaged, match="SHA-256"):
                    await engine.swap("champion", qwen.damaged(qwen.adapters[1]), in_flight=in_flight)
            assert set((await ask(engine, "champion")).versions) == {first.name}
            assert set(engine.versions()) == {BASE.name, first.name, "champion"}
            await engine.load(replace(qwen.damaged(first), name="v8-late"), now=False)
            with pytest.raises(Damaged, match="SHA-256"):
                await ask(engine, "v8-late")
            assert len((await ask(engine, "champion")).ids) == 8

    asyncio.run(go())


def test_weights_that_overflow_end_only_their_own_answers(qwen, tmp_path):
    huge = write_adapter("qwen3", tmp_path / "v6-huge", seed=1, recipe=RECIPES[1])
    tensors = safetensors.torch.load_file(huge.folder / WEIGHTS)
    safetensors.torch.save_file({name: one * 1e25 for name, one in tensors.items()}, huge.folder / WEIGHTS)

    async def go():
        async with opened(qwen, slots=4) as engine:
            await engine.load(VersionRef(name=huge.name, digest="66" * 32, folder=huge.folder))
            good = asyncio.gather(*(ask(engine, BASE.name, seed=n, max_tokens=30) for n in range(3)))
            with pytest.raises(Damaged, match="v6-huge gives logits that are not finite"):
                await ask(engine, huge.name)
            return await good

    for answer in asyncio.run(go()):
        close_to(answer.model, qwen.logprobs(BASE, PROMPTS[1], answer.ids), atol=1e-4)


@pytest.fixture
def slow(monkeypatch):
    """A token takes 20 ms: an answer is still being written whenever this process gets a core again."""
    forward = Batch.forward

    def waits(self, *given, **named):
        time.sleep(0.02)
        return forward(self, *given, **named)

    monkeypatch.setattr(Batch, "forward", waits)


@pytest.mark.usefixtures("slow")
def test_nobody_writes_for_those_who_left(qwen):
    async def go():
        async with opened(qwen, slots=2) as engine:
            stream = engine.generate(Prompt(token_ids=PROMPTS[1]), BASE.name, sampling=Sampling(max_tokens=500))
            await anext(stream)
            await stream.aclose()
            await engine.drop(BASE.name)  # done when everything posted before it is
            left = engine.worker.counts.tokens
            await asyncio.sleep(0.2)
            assert left == engine.worker.counts.tokens < 500

    asyncio.run(go())


def test_a_cancelled_score_harms_nobody(qwen):
    async def go():
        async with opened(qwen, slots=2) as engine:
            answer = asyncio.create_task(ask(engine, BASE.name, max_tokens=60))
            for _ in range(3):
                score = asyncio.create_task(engine.score(Prompt(token_ids=LONG), BASE.name, token_ids=LONG))
                load = asyncio.create_task(engine.load(qwen.adapters[0]))
                await asyncio.sleep(0)
                score.cancel()
                load.cancel()
            assert len((await answer).ids) == 60
            assert len((await engine.score(Prompt(token_ids=LONG), BASE.name, token_ids=LONG)).model_logprobs) == 70

    asyncio.run(go())


@pytest.mark.usefixtures("slow")
def test_a_pass_that_fails_ends_its_answers_and_not_the_engine(qwen, monkeypatch):
    async def go():
        async with opened(qwen, slots=2) as engine:
            stream = engine.generate(Prompt(token_ids=PROMPTS[1]), BASE.name, sampling=Sampling(max_tokens=400))
            await anext(stream)

            def fail(*_):
                raise MemoryError("no memory for this pass")

            with monkeypatch.context() as patch:
                patch.setattr(Batch, "forward", fail)
                with pytest.raises(MemoryError, match="this pass"):
                    _ = [chunk async for chunk in stream]
            answer = await ask(engine, BASE.name)
            close_to(answer.model, qwen.logprobs(BASE, PROMPTS[1], answer.ids), atol=1e-4)

    asyncio.run(go())


@pytest.mark.usefixtures("slow")
def test_a_full_queue_says_so_and_empties(qwen):
    async def go():
        async with opened(qwen, slots=1, waiting=2) as engine:
            tasks = [asyncio.create_task(ask(engine, BASE.name, max_tokens=40)) for _ in range(3)]
            await asyncio.sleep(0)
            with pytest.raises(Overloaded, match="try again"):
                await ask(engine, BASE.name)
            await asyncio.gather(*tasks)
            assert len((await ask(engine, BASE.name)).ids) == 8

    asyncio.run(go())


@pytest.mark.usefixtures("slow")
def test_closing_ends_what_is_being_written(qwen):
    async def go():
        async with opened(qwen, slots=1) as engine:
            tasks = [asyncio.create_task(ask(engine, BASE.name, max_tokens=500)) for _ in range(2)]
            await asyncio.sleep(0.05)
            await engine.close()
            assert [answer.ending for answer in await asyncio.gather(*tasks)] == [Ending.ABORTED] * 2
            with pytest.raises(Invalid, match="closed"):
                await ask(engine, BASE.name)
            with pytest.raises(Invalid, match="closed"):
                await engine.load(BASE)

    asyncio.run(go())


def test_an_answer_ends_at_the_longest_context(qwen):
    async def go():
        async with opened(qwen, slots=1, context_tokens=80) as engine:
            answer = await ask(engine, BASE.name, LONG, max_tokens=400)
            assert (len(answer.ids), answer.ending) == (10, Ending.LENGTH)

    asyncio.run(go())


def mistral(window):
    sizes = {**SIZES, "vocab_size": 258, "sliding_window": window, "bos_token_id": None, "eos_token_id": None}
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(MistralConfig(**sizes), dtype=torch.float32).eval()


def test_a_window_is_as_far_as_a_model_reads(qwen):
    with pytest.raises(Invalid, match="reads 64"):
        TransformersEngine(mistral(64), qwen.tokens, limits=EngineLimits(context_tokens=512))
    with pytest.raises(Invalid, match="vLLM"):
        Batch(mistral(4), slots=2, max_tokens=512)

    async def go():
        engine = TransformersEngine(mistral(64), qwen.tokens, limits=EngineLimits(context_tokens=64))
        await engine.load(BASE)
        answer = await ask(engine, BASE.name, LONG[:50], max_tokens=14)
        await engine.close()
        return answer

    answer = asyncio.run(go())
    with torch.inference_mode():
        logit_TV = mistral(64)(input_ids=torch.tensor([[*LONG[:50], *answer.ids]])).logits[0, 49:-1]
    close_to(answer.model, logit_TV.log_softmax(1).gather(1, torch.tensor(answer.ids)[:, None])[:, 0], atol=1e-4)


def test_more_context_than_the_model_reads_is_refused(qwen):
    with pytest.raises(Invalid, match="reads 512"):
        TransformersEngine(tiny_model("qwen3"), qwen.tokens, limits=EngineLimits(context_tokens=513))


def test_a_folder_is_loaded_as_it_is_or_refused(tmp_path):
    model = tiny_model("llama", seed=4)
    model.save_pretrained(tmp_path / "model")
    ids = torch.tensor([[1, 2, 3]])
    with torch.inference_mode():
        torch.testing.assert_close(load_model(tmp_path / "model")(input_ids=ids).logits, model(input_ids=ids).logits)
    (tmp_path / "empty").mkdir()
    with pytest.raises(Invalid, match="no weights in safetensors"):
        load_model(tmp_path / "empty")


def test_a_model_in_bfloat16_is_served_with_logits_in_full_precision(qwen):
    """The body rounds; what is recorded is still a distribution to FP32."""

    async def go():
        engine = TransformersEngine(
            tiny_model("qwen3").to(torch.bfloat16), qwen.tokens, limits=EngineLimits(context_tokens=512)
        )
        await engine.load(BASE)
        await engine.load(qwen.adapters[0])
        answer = await ask(engine, qwen.adapters[0].name, top_logprobs=20)
        await engine.close()
        return answer

    answer = asyncio.run(go())
    close_to(answer.model, qwen.logprobs(qwen.adapters[0], PROMPTS[1], answer.ids), atol=0.3)
    assert (answer.model != answer.model.bfloat16().float()).any()


def test_the_protocol_needs_no_torch():
    code = (
        "import sys, dayjob.policies.engine_protocol, dayjob.policies.engine_registry; sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


def test_worlds_differ():
    """The reference is worth nothing if the architectures agree by accident."""
    ids = torch.tensor([[1, 2, 3]])
    with torch.inference_mode():
        ours = [tiny_model(kind)(input_ids=ids).logits for kind in ("qwen3", "llama")]
    assert (ours[0] - ours[1]).abs().max() > 0.1
