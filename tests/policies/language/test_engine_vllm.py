"""The vLLM client against a stand-in that speaks vLLM's documented wire. It has not met a real vLLM here."""

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from dayjob.endings import Damaged, DayjobError, Invalid, NotFound
from dayjob.policies.engine_vllm import VllmEngine
from tests.contracts.check_engine import CHECKS, PROMPTS, Rig, ask
from tests.policies.language.fake_vllm import MODEL, FakeVllm, named, running
from tests.policies.language.worlds import BASE, World


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return named(World.make("qwen3", tmp_path_factory.mktemp("vllm")))


@asynccontextmanager
async def opened(world, seen=None, **limits):
    fake = FakeVllm(world, **{"slots": 4, "adapters": 8, **limits})
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
    assert body["model"] == world.adapters[0].name
    assert body["prompt"] == list(PROMPTS[1])
    assert (body["top_k"], body["min_p"], body["repetition_penalty"]) == (0, 0.0, 1.0)
    assert body["seed"] == -1
    assert body["cache_salt"].startswith(world.adapters[0].digest)
    assert str(world.folder) not in json.dumps(seen), "no path travels"


def test_a_version_must_lie_where_the_server_looks_for_it(world, tmp_path):
    async def go():
        async with opened(world) as engine:
            for name in ("../v1-qwen3", ".", "a/b", "v1-other"):
                with pytest.raises(Invalid, match="folder of its own name"):
                    await engine.load(replace(world.adapters[0], name=name))
            elsewhere = tmp_path / "v7-elsewhere"
            elsewhere.symlink_to(world.adapters[0].folder)
            with pytest.raises(NotFound, match="VLLM_LORA_RESOLVER_CACHE_DIR"):
                await engine.load(replace(world.adapters[0], name="v7-elsewhere", folder=elsewhere))
            (config, _), (weights, _) = world.adapters[0].files
            with pytest.raises(Damaged, match="SHA-256"):
                await engine.load(replace(world.adapters[0], files=((config, "00" * 32), (weights, "00" * 32))))
            assert list(engine.versions()) == [BASE.name]

    asyncio.run(go())


def test_an_absent_server_is_said_to_be_absent():
    async def go():
        engine = VllmEngine("http://127.0.0.1:9", MODEL)
        with pytest.raises(DayjobError, match="start it"):
            await engine.load(BASE)
        await engine.close()

    asyncio.run(go())
