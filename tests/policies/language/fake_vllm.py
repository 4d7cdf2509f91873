"""A stand-in for vLLM's server: its completions wire as documented, over our own engine on a real socket.

It speaks only the part that :mod:`dayjob.policies.engine_vllm` uses, and finds adapters as vLLM's file-system resolver
does: a folder of the asked name in one directory, whose config names the base model.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import replace

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from dayjob.endings import DayjobError
from dayjob.policies.engine_jobs import EngineLimits
from dayjob.policies.engine_protocol import Chunk, Prompt, Sampling, VersionRef
from dayjob.policies.engine_transformers import TransformersEngine
from tests.policies.language.worlds import BASE, World, tiny_model

MODEL = "base-model"


def refusal(status: int, message: str) -> Response:
    return JSONResponse({"error": {"message": message, "type": "BadRequestError", "code": status}}, status)


def wire(chunk: Chunk) -> dict[str, object]:
    """One streamed choice."""
    tops = [
        {f"token_id:{token}": value for token, value in ((own, logprob), *top)}
        for own, logprob, top in zip(chunk.token_ids, chunk.model_logprobs, chunk.top_logprobs, strict=True)
    ]
    reason = {"stop": "stop", "length": "length", "aborted": "abort"}
    return {
        "index": 0,
        "text": chunk.text,
        "token_ids": list(chunk.token_ids),
        "logprobs": {"token_logprobs": list(chunk.model_logprobs), "top_logprobs": tops, "text_offset": []},
        "finish_reason": None if chunk.ending is None else reason[chunk.ending.value],
    }


class FakeVllm:
    """The handlers. ``seen``: the bodies that came."""

    def __init__(self, world: World, *, slots: int, adapters: int) -> None:
        self.world, self.limits = world, EngineLimits(context_tokens=512, slots=slots, adapters=adapters)
        self.seen: list[dict[str, object]] = []

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/v1/completions", self.complete, methods=["POST"])], lifespan=self.live)

    @asynccontextmanager
    async def live(self, _: Starlette) -> AsyncIterator[None]:
        self.engine = TransformersEngine(tiny_model(self.world.kind), self.world.tokens, limits=self.limits)
        await self.engine.load(BASE)
        yield
        await self.engine.close()

    async def version(self, name: str) -> str | None:
        if name == MODEL:
            return BASE.name
        folder = self.world.folder / name
        if not (folder / "adapter_config.json").exists():
            return None
        if json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] != MODEL:
            return None
        await self.engine.load(VersionRef(name=name, digest="", folder=folder), now=False)
        return name

    async def complete(self, request: Request) -> Response:
        body = await request.json()
        self.seen.append(body)
        version = await self.version(body["model"])
        if version is None:
            return refusal(404, f"The model `{body['model']}` does not exist.")
        ids = body["prompt"]
        if any(not 0 <= token < 258 for token in ids) or len(ids) + body["max_tokens"] > 512:
            return refusal(400, "Token id out of vocabulary, or a prompt longer than the model's context")
        prompt = Prompt(token_ids=tuple(ids), salt=body["cache_salt"])
        if "prompt_logprobs" in body:
            first = Prompt(token_ids=prompt.token_ids[:1])
            scored = await self.engine.score(first, version, token_ids=ids[1:], top_logprobs=body["prompt_logprobs"])
            rows = [
                {str(token): {"logprob": value, "decoded_token": "?"} for token, value in ((own, logprob), *top)}
                for own, logprob, top in zip(ids[1:], scored.model_logprobs, scored.top_logprobs, strict=True)
            ]
            return JSONResponse({"choices": [{"index": 0, "text": "", "prompt_logprobs": [None, *rows]}]})
        sampling = Sampling(
            max_tokens=body["max_tokens"],
            temperature=body.get("temperature", 1.0),
            top_p=body.get("top_p", 1.0),
            stop=tuple(body.get("stop", ())),
            seed=body.get("seed", 0) % (1 << 64),
            top_logprobs=body.get("logprobs", 0),
        )
        if not body.get("stream"):
            async for _ in self.engine.generate(prompt, version, sampling=sampling):
                pass
            return JSONResponse({"choices": [{"index": 0, "text": "?"}]})
        return StreamingResponse(self.stream(prompt, version, sampling), media_type="text/event-stream")

    async def stream(self, prompt: Prompt, version: str, sampling: Sampling) -> AsyncIterator[str]:
        try:
            async with aclosing(self.engine.generate(prompt, version, sampling=sampling)) as chunks:
                async for chunk in chunks:
                    yield f"data: {json.dumps({'choices': [wire(chunk)]})}\n\n"
        except DayjobError as error:
            yield f"data: {json.dumps({'error': {'message': str(error)}})}\n\n"
        yield "data: [DONE]\n\n"


@contextmanager
def running(fake: FakeVllm) -> Iterator[str]:
    """Its URL."""
    config = uvicorn.Config(fake.app(), port=0, log_level="error", lifespan="on", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        thread.join(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def named(world: World) -> World:
    """The world with its adapters' configs naming the base model as the server does, as vLLM wants it."""
    from dayjob.policies.adapters import file_digests

    refs = []
    for ref in world.adapters:
        assert ref.folder is not None
        path = ref.folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": MODEL}))
        refs.append(replace(ref, files=file_digests(ref.folder)))
    return replace(world, adapters=tuple(refs))
