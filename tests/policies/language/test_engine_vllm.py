"""The vLLM client against a stand-in that speaks vLLM's documented wire. It has not met a real vLLM here."""

import asyncio
import json
import re
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from dayjob.endings import Damaged, DayjobError, NotFound
from dayjob.policies.engine_protocol import Prompt, Sampling
from dayjob.policies.engine_vllm import VllmEngine, adapter_name
from tests.contracts.check_engine import CHECKS, PROMPTS, Rig, ask
from tests.policies.language.fake_vllm import MODEL, FakeVllm, running
from tests.policies.language.worlds import BASE, World


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World.make("qwen3", tmp_path_factory.mktemp("vllm"))


@asynccontextmanager
async def opened(world, seen=None, fakes=None, **limits):
    fake = FakeVllm(world, **{"slots": 4, "adapters": 8, **limits})
    if fakes is not None:
        fakes.append(fake)
    with running(fake) as url:
        engine = VllmEngine(url, MODEL, end_ids=sorted(world.tokens.end_ids))
        try:
            await engine.load(BASE)
            yield engine
        finally:
            await engine.close()
        if seen is not None:
            seen += fake.seen


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(check, world):
    rig = Rig(make=lambda **limits: opened(world, **limits), world=world, moves=False)
    asyncio.run(asyncio.wait_for(check(rig), timeout=120))


def test_requests_name_versions_and_leave_nothing_to_the_servers_defaults(world):
    seen = []

    async def go():
        async with opened(world, seen) as engine:
            await engine.load(world.adapters[0])
            await ask(engine, world.adapters[0].name, seed=2**64 - 1)

    asyncio.run(go())
    body = seen[-1]
    assert body["model"] == adapter_name(world.adapters[0])
    assert world.adapters[0].name not in json.dumps(seen), "no name of ours travels"
    assert body["prompt"] == list(PROMPTS[1])
    assert (body["top_k"], body["min_p"], body["repetition_penalty"]) == (0, 0.0, 1.0)
    assert body["seed"] == -1
    assert body["cache_salt"].startswith(world.adapters[0].digest)
    assert str(world.folder) not in json.dumps(seen), "no path travels"


def test_names_on_the_server_are_hashes_of_name_and_content(world):
    ref = world.adapters[0]
    names = {adapter_name(one) for one in (ref, replace(ref, name="../a/b"), replace(ref, digest="ab"))}
    assert len(names) == 3
    assert all(re.fullmatch("dayjob-[0-9a-f]{40}", name) for name in names)


def test_a_version_that_is_not_what_was_written_never_gets_to_the_server(world, tmp_path):
    (config, _), (weights, _) = world.adapters[0].files
    other = replace(world.adapters[0], name="v9-other", files=((config, "00" * 32), (weights, "00" * 32)))
    fakes = []

    async def go():
        async with opened(world, fakes=fakes) as engine:
            with pytest.raises(Damaged, match="SHA-256"):
                await engine.load(other)
            assert list(engine.versions()) == [BASE.name]
            await engine.load(other, now=False)
            with pytest.raises(Damaged, match="SHA-256"):
                await ask(engine, other.name)
            gone = replace(world.adapters[1], name="v9-gone", folder=tmp_path / "gone")
            with pytest.raises(Damaged, match="cannot be read"):
                await engine.load(gone)
            assert fakes[0].loaded == {}

    asyncio.run(go())


def test_a_version_is_told_once_and_again_to_a_server_that_was_started_anew(world):
    ref, fakes = world.adapters[0], []

    async def go():
        async with opened(world, fakes=fakes) as engine:
            await engine.load(ref)
            first = await ask(engine, ref.name, seed=3)
            assert fakes[0].loaded == {adapter_name(ref): str(ref.folder)}
            asked = len(fakes[0].seen)
            await engine.load(ref)
            assert len(fakes[0].seen) == asked, "of a known version only the files are looked at"
            fakes[0].loaded.clear()
            await fakes[0].engine.drop(adapter_name(ref))
            # Several at once: one of them tells it, the others are not refused for that.
            for again in await asyncio.gather(*(ask(engine, ref.name, seed=3) for _ in range(4))):
                assert again.ids == first.ids
            assert fakes[0].loaded == {adapter_name(ref): str(ref.folder)}

    asyncio.run(go())


def test_a_dropped_version_is_unloaded_there_after_its_last_answer(world):
    first, second = world.adapters[:2]
    fakes = []

    async def go():
        async with opened(world, fakes=fakes) as engine:
            for ref in (first, second):
                await engine.load(ref)
            prompt, sampling = Prompt(token_ids=PROMPTS[1]), Sampling(max_tokens=150, temperature=0)
            stream = engine.generate(prompt, first.name, sampling=sampling)
            await anext(stream)
            await engine.drop(first.name)
            await engine.drop(second.name)
            assert set(fakes[0].loaded) == {adapter_name(first)}, "it is still writing"
            with pytest.raises(NotFound):
                await ask(engine, first.name)
            _ = [chunk async for chunk in stream]
            await asyncio.gather(*engine._unloads)
            assert fakes[0].loaded == {}
            assert not engine._asked
            await engine.load(first)
            assert len((await ask(engine, first.name)).ids) == 8

    asyncio.run(go())


def test_a_server_that_does_not_load_says_how_to_start_it(world, monkeypatch):
    async def go():
        with monkeypatch.context() as patch:
            patch.setattr(FakeVllm, "load", FakeVllm.unload)  # as where it is not allowed: 404
            async with opened(world) as engine:
                with pytest.raises(NotFound, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
                    await engine.load(world.adapters[0])

    asyncio.run(go())


def test_an_absent_server_is_said_to_be_absent():
    async def go():
        engine = VllmEngine("http://127.0.0.1:9/v1", MODEL)
        with pytest.raises(DayjobError, match="start it"):
            await engine.load(BASE)
        await engine.close()

    asyncio.run(go())
