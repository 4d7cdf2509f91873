"""The engine on a vLLM server, through its OpenAI-compatible completions.

Prompts go as token ids and answers come as token ids (``return_token_ids``), so nothing is tokenised twice. A version's
name is the model's name on the server: the operator points vLLM's file-system resolver at the folder that holds the
versions' PEFT folders (``docs/engine.md`` has the commands), and vLLM finds an adapter there by name when it is first
asked for, also after it was put out of memory. No path ever travels.

The server must report log-probabilities of the model itself (``--logprobs-mode raw_logprobs``, its default). Those of
the distribution drawn from are then known where the two agree (temperature 1 and top_p 1), and of greedy answers.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx2

from dayjob.endings import DayjobError, Ending, Invalid, NotFound, Overloaded
from dayjob.policies.adapters import check_files
from dayjob.policies.engine_protocol import Alternatives, Chunk, InFlight, Prompt, Sampling, Scored, VersionRef
from dayjob.policies.engine_registry import Registry
from dayjob.records import Json

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")  # a folder's name, never a path
_ENDINGS: Final = {"stop": Ending.STOP, "length": Ending.LENGTH, "abort": Ending.ABORTED}
# Said outright: what is left out, vLLM takes from the model's generation_config.json.
_PLAIN: Final = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}


class VllmEngine:
    """An :class:`~dayjob.policies.engine_protocol.Engine` whose model lives in a vLLM server.

    ``MOVE`` is refused: vLLM binds a request to its adapter.
    """

    def __init__(self, url: str, base: str, *, key: str | None = None, end_ids: Sequence[int] = ()) -> None:
        """``url``: of the server, without ``/v1``. ``base``: the base model's name there. ``key``: its API key."""
        self._base = base
        self._end_ids = sorted(end_ids)
        self._registry = Registry()
        self._http = httpx2.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(30.0, read=600.0),
            limits=httpx2.Limits(max_connections=None),
        )

    async def generate(self, prompt: Prompt, version: str, *, sampling: Sampling) -> AsyncGenerator[Chunk, None]:
        """See the protocol. Leaving closes the connection, on which vLLM drops the request."""
        ref = self._resolve(prompt, version)
        body = self._body(ref, prompt.token_ids, salt=prompt.salt) | {
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stop": list(sampling.stop),
            "seed": sampling.seed - (1 << 64 if sampling.seed >= 1 << 63 else 0),  # theirs is signed
            "logprobs": sampling.top_logprobs,
            "stream": True,
        }
        async with self._post(body) as response:
            async for event in _events(response):
                for choice in event["choices"]:
                    chunk = _chunk(choice, ref.name, sampling=sampling)
                    yield chunk
                    if chunk.ending is not None:
                        return
        raise DayjobError("the vLLM server ended an answer without saying why: see its log")

    async def score(self, prompt: Prompt, version: str, *, token_ids: Sequence[int], top_logprobs: int = 0) -> Scored:
        """See the protocol."""
        ref = self._resolve(prompt, version)
        both = (*prompt.token_ids, *token_ids)
        body = self._body(ref, both, salt=prompt.salt) | {"max_tokens": 1, "prompt_logprobs": top_logprobs}
        async with self._post(body) as response:
            choice = json.loads(await response.aread())["choices"][0]
        found = choice["prompt_logprobs"][len(prompt.token_ids) :]
        assert len(found) == len(token_ids), "one entry a token of the prompt"
        rows = [{int(token): entry["logprob"] for token, entry in row.items()} for row in found]
        return Scored(
            model_logprobs=tuple(row[token] for row, token in zip(rows, token_ids, strict=True)),
            top_logprobs=tuple(_most(row, top_logprobs) for row in rows),
            version=ref.name,
        )

    async def load(self, ref: VersionRef, *, now: bool = True) -> None:
        """See the protocol. ``now`` checks the folder against its digests and has the server write a token with it."""
        if ref.folder is not None and not (_NAME.fullmatch(ref.name) and ref.folder.name == ref.name):
            message = f"a version that vLLM serves lies in a folder of its own name; {ref.name!r} lies in {ref.folder}"
            raise Invalid(message, param="version")
        self._registry.check(ref)
        if now:
            check_files(ref)
            body = self._body(ref, (0,), salt="") | {"max_tokens": 1}
            async with self._post(body) as response:
                await response.aread()
        self._registry.know(ref)

    async def swap(self, alias: str, ref: VersionRef, *, in_flight: InFlight = InFlight.FINISH) -> None:
        """See the protocol. Raises Invalid for MOVE."""
        if in_flight is InFlight.MOVE:
            message = "vLLM cannot move an answer that is being written: swap with in_flight FINISH"
            raise Invalid(message, param="in_flight")
        await self.load(ref)
        self._registry.point(alias, ref)

    async def drop(self, version: str) -> None:
        """See the protocol. The server puts the adapter out of memory when it needs the room."""
        self._registry.drop(version)

    def versions(self) -> Mapping[str, str]:
        """See the protocol."""
        return self._registry.names()

    async def close(self) -> None:
        """Close the connections; the server goes on."""
        await self._http.aclose()

    def _resolve(self, prompt: Prompt, version: str) -> VersionRef:
        if not prompt.token_ids:
            raise Invalid("the prompt is empty: give it at least one token", param="prompt")
        return self._registry.resolve(version)

    def _body(self, ref: VersionRef, token_ids: Sequence[int], *, salt: str) -> Json:
        model = self._base if ref.folder is None else ref.name
        return {
            "model": model,
            "prompt": list(token_ids),
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            "stop_token_ids": self._end_ids,
            **_PLAIN,
            # By digest too: a prefix computed by one version is never another's.
            "cache_salt": f"{ref.digest}:{salt}",
        }

    @asynccontextmanager
    async def _post(self, body: Json) -> AsyncIterator[httpx2.Response]:
        """The response to a request that was accepted; errors of the server as ours."""
        try:
            async with self._http.stream("POST", "/v1/completions", json=body) as response:
                if response.status_code != 200:
                    raise _refusal(response.status_code, await response.aread(), str(body["model"]))
                yield response
        except httpx2.TransportError as error:
            where = self._http.base_url
            raise DayjobError(
                f"the vLLM server at {where} does not answer ({error}): start it, or correct the URL"
            ) from error


async def _events(response: httpx2.Response) -> AsyncIterator[Json]:
    """The server-sent events of a stream."""
    async for line in response.aiter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                raise DayjobError(f"the vLLM server failed while it wrote: {event['error'].get('message')}")
            yield event


def _chunk(choice: Json, version: str, *, sampling: Sampling) -> Chunk:
    ids: list[int] = choice.get("token_ids") or []
    found: Json = choice.get("logprobs") or {}
    logprobs = tuple(found.get("token_logprobs") or ())
    tops = found.get("top_logprobs") or [{}] * len(ids)
    if not len(ids) == len(logprobs) == len(tops):
        message = "the vLLM server left out token ids or log-probabilities: use a vLLM that knows return_token_ids"
        raise DayjobError(message)
    sample: tuple[float, ...] | None = None
    if sampling.temperature == 0:
        sample = (0.0,) * len(ids)
    elif sampling.temperature == 1 and sampling.top_p == 1:
        sample = logprobs
    named = [{int(name.removeprefix("token_id:")): value for name, value in (top or {}).items()} for top in tops]
    reason = choice.get("finish_reason")
    if reason is not None and reason not in _ENDINGS:
        raise DayjobError(f"the vLLM server ended an answer with {reason!r}: see its log")
    return Chunk(
        token_ids=tuple(ids),
        model_logprobs=logprobs,
        sample_logprobs=sample,
        versions=(version,) * len(ids),
        top_logprobs=tuple(_most(top, sampling.top_logprobs) for top in named),
        text=choice.get("text") or "",
        ending=None if reason is None else _ENDINGS[reason],
    )


def _most(logprob: Mapping[int, float], count: int) -> Alternatives:
    """The server adds the token itself to the most probable ones: only those that were asked for, in order."""
    return tuple(sorted(logprob.items(), key=lambda one: -one[1])[:count])


def _refusal(status: int, data: bytes, model: str) -> DayjobError:
    try:
        parsed: Any = json.loads(data)
        message = str(parsed["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"HTTP {status}"
    if status == 404:
        return NotFound(
            f"the vLLM server has no model {model!r} ({message}): point VLLM_LORA_RESOLVER_CACHE_DIR at the folder "
            "that holds the versions, and see that each adapter_config.json names the base model as the server does"
        )
    if status in (400, 413, 422):
        return Invalid(f"the vLLM server refuses this request: {message}")
    if status in (429, 503):
        return Overloaded(f"the vLLM server is busy: {message}")
    return DayjobError(f"the vLLM server failed: {message}")
