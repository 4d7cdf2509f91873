"""A stand-in for vLLM's server: its completions wire as documented, over our own engine on a real socket.

It speaks only the part that :mod:`dayjob.policies.engine_vllm` uses: completions, models, and the two calls by which
adapters come and go.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path

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
    """The handlers. ``seen``: the bodies of completions that came, ``loaded``: adapters by name, with their folders."""

    def __init__(self, world: World, *, slots: int, adapters: int, model: str = MODEL, key: str = "") -> None:
        self.world, self.limits = world, EngineLimits(context_tokens=512, slots=slots, adapters=adapters)
        self.model, self.key = model, key
        self.seen: list[dict[str, object]] = []
        self.loaded: dict[str, str] = {}

    def app(self) -> Starlette:
        routes = [
            Route("/v1/completions", self.complete, methods=["POST"]),
            Route("/v1/models", self.models),
            Route("/v1/load_lora_adapter", self.load, methods=["POST"]),
            Route("/v1/unload_lora_adapter", self.unload, methods=["POST"]),
        ]
        return Starlette(routes=routes, lifespan=self.live)

    @asynccontextmanager
    async def live(self, _: Starlette) -> AsyncIterator[None]:
        self.engine = TransformersEngine(tiny_model(self.world.kind), self.world.tokens, limits=self.limits)
        await self.engine.load(BASE)
        yield
        await self.engine.close()

    async def models(self, request: Request) -> Response:
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return JSONResponse({"error": "Unauthorized"}, 401)
        base = {"id": self.model, "object": "model", "max_model_len": self.limits.context_tokens}
        return JSONResponse({"object": "list", "data": [base, *({"id": name} for name in self.loaded)]})

    async def load(self, request: Request) -> Response:
        body = await request.json()
        name, path = body["lora_name"], body["lora_path"]
        if name in self.loaded:
            return refusal(400, f"The lora adapter '{name}' has already been loaded.")
        try:
            await self.engine.load(VersionRef(name=name, digest="", folder=Path(path)))
        except DayjobError as error:
            return refusal(404, f"Loading lora {name} failed: No adapter found for {path} ({error})")
        self.loaded[name] = path
        return Response(f"Success: LoRA adapter '{name}' added successfully.")

    async def unload(self, request: Request) -> Response:
        name = (await request.json())["lora_name"]
        if self.loaded.pop(name, None) is None:
            return refusal(404, f"The lora adapter '{name}' cannot be found.")
        await self.engine.drop(name)
        return Response(f"Success: LoRA adapter '{name}' removed successfully.")

    async def complete(self, request: Request) -> Response:
        body = await request.json()
        self.seen.append(body)
        version = BASE.name if body["model"] == self.model else body["model"]
        if version != BASE.name and version not in self.loaded:
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
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join()
