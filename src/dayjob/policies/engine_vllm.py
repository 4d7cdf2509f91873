"""The engine on a vLLM server, through its OpenAI-compatible completions.

Prompts go as token ids and answers come as token ids (``return_token_ids``), so nothing is tokenised twice. A version
is loaded by ``/v1/load_lora_adapter``, which must be allowed there (``docs/engine.md`` has the command), under a name
that is a hash of its name and digest here: nothing of a request, a tenant or a person stands in it, and other content
never has the same. vLLM reads the folder itself, so it must see the data directory under the same path. What it put out
of memory it reads again by itself; a server that was started anew is told again.

The server must report log-probabilities of the model itself (``--logprobs-mode raw_logprobs``, its default). Those of
the distribution drawn from are then known where the two agree (temperature 1 and top_p 1), and of greedy answers.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx2

from dayjob.endings import DayjobError, Ending, Invalid, NotFound, Overloaded
from dayjob.policies.adapters import check_files
from dayjob.policies.engine_protocol import Alternatives, Chunk, InFlight, Prompt, Sampling, Scored, VersionRef
from dayjob.policies.engine_registry import Registry
from dayjob.records import Json

log = logging.getLogger("dayjob.serve")
_ENDINGS: Final = {"stop": Ending.STOP, "length": Ending.LENGTH, "abort": Ending.ABORTED}
# Said outright: what is left out, vLLM takes from the model's generation_config.json.
_PLAIN: Final = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}


class VllmEngine:
    """An :class:`~dayjob.policies.engine_protocol.Engine` whose model lives in a vLLM server.

    ``MOVE`` is refused: vLLM binds a request to its adapter.
    """

    def __init__(self, url: str, base: str, *, key: str | None = None, end_ids: Sequence[int] = ()) -> None:
        """``url``: of the server, ``http(s)://HOST/v1``. ``base``: the base model's name there. ``key``: of its API."""
        self._base = base
        self._end_ids = sorted(end_ids)
        self._registry = Registry()
        self._asked: Counter[str] = Counter()  # requests at the server, by the adapter's name there
        self._dropped: dict[str, VersionRef] = {}  # to be unloaded there after the last of them
        self._unloads: set[asyncio.Task[None]] = set()
        self._http = httpx2.AsyncClient(
            base_url=url,
            headers=_headers(key),
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
        async with self._complete(ref, body) as response:
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
        async with self._complete(ref, body) as response:
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
        """See the protocol. ``now`` checks the folder against its digests and has the server read it, and write a token
        with it; of a version that is known the folder alone is looked at again."""
        self._registry.check(ref)
        if now:
            check_files(ref)
            if self._registry.names().get(ref.name) is None:
                body = self._body(ref, (0,), salt="") | {"max_tokens": 1}
                async with self._complete(ref, body) as response:
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
        """See the protocol. The server is told to unload it, after the last answer that it writes; what its prefix
        cache has of it nobody can ask for, and goes when the room is needed."""
        ref = self._registry.resolve(version)
        self._registry.drop(version)
        if ref.folder is not None:
            self._dropped[adapter_name(ref)] = ref
            await self._put_out(adapter_name(ref))

    async def _put_out(self, adapter: str) -> None:
        """Have the server unload a version that was dropped and writes nothing any more. One that was unloaded under an
        answer would be read again for it, from files that may be gone."""
        ref = self._dropped.get(adapter)
        if ref is None or self._asked[adapter]:
            return
        del self._dropped[adapter]
        if ref.name in self._registry.names():  # loaded again meanwhile
            return
        try:
            async with self._post("unload_lora_adapter", {"lora_name": adapter}) as response:
                await response.aread()
        except NotFound:
            pass  # it was never asked for, or the server was started anew
        except DayjobError as error:
            log.warning("version %s may still be in the memory of the vLLM server: %s", ref.name, error)

    async def forget(self, salt: str) -> None:
        """Nothing to do here: what the server's prefix cache has under a salt is found by nobody without it, and goes
        when the room is needed."""

    def versions(self) -> Mapping[str, str]:
        """See the protocol."""
        return self._registry.names()

    async def close(self) -> None:
        """Close the connections; the server goes on."""
        await asyncio.gather(*self._unloads)
        await self._http.aclose()

    def _resolve(self, prompt: Prompt, version: str) -> VersionRef:
        if not prompt.token_ids:
            raise Invalid("the prompt is empty: give it at least one token", param="prompt")
        return self._registry.resolve(version)

    def _body(self, ref: VersionRef, token_ids: Sequence[int], *, salt: str) -> Json:
        return {
            "model": self._base if ref.folder is None else adapter_name(ref),
            "prompt": list(token_ids),
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            "stop_token_ids": self._end_ids,
            **_PLAIN,
            # By digest too: a prefix computed by one version is never another's.
            "cache_salt": f"{ref.digest}:{salt}",
        }

    @asynccontextmanager
    async def _complete(self, ref: VersionRef, body: Json) -> AsyncIterator[httpx2.Response]:
        """The response to a completion; the server is told of a version that it does not know."""
        name = str(body["model"])
        self._asked[name] += 1
        try:
            async with AsyncExitStack() as stack:
                try:
                    response = await stack.enter_async_context(self._post("completions", body))
                except NotFound:
                    if ref.folder is None:
                        raise
                    await self._tell(ref, ref.folder)
                    response = await stack.enter_async_context(self._post("completions", body))
                yield response
        finally:
            self._asked[name] -= 1
            if not self._asked[name]:
                del self._asked[name]
            if name in self._dropped:  # on its own: whoever asked may be cancelled
                task = asyncio.get_running_loop().create_task(self._put_out(name))
                self._unloads.add(task)
                task.add_done_callback(self._unloads.discard)

    async def _tell(self, ref: VersionRef, folder: Path) -> None:
        """Have the server read a version that it does not know."""
        await asyncio.to_thread(check_files, ref)
        told = {"lora_name": adapter_name(ref), "lora_path": str(folder.absolute())}
        try:
            async with self._post("load_lora_adapter", told) as response:
                await response.aread()
        except Invalid:  # another request told it in the meantime, or it cannot be read there
            if told["lora_name"] not in await self._listed():
                raise

    async def _listed(self) -> set[str]:
        """What the server has."""
        return {str(one["id"]) for one in (await self._http.get("models")).json()["data"]}

    @asynccontextmanager
    async def _post(self, call: str, body: Json) -> AsyncIterator[httpx2.Response]:
        """The response to a request that was accepted; errors of the server as ours."""
        try:
            async with self._http.stream("POST", call, json=body) as response:
                if response.status_code != 200:
                    raise _refusal(response.status_code, await response.aread(), call=call)
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


def adapter_name(ref: VersionRef) -> str:
    """What a version is called on the server."""
    return "dayjob-" + hashlib.sha256(f"{len(ref.name)}:{ref.name}{ref.digest}".encode()).hexdigest()[:40]


def longest_context(url: str, base: str, *, key: str | None = None) -> int | None:
    """Tokens of prompt and answer that the server's model reads; None where it does not say.

    Raises Invalid, with what to do, where the server does not answer or has no such model: for a start.
    """
    try:
        response = httpx2.get(f"{url}/models", headers=_headers(key), timeout=30.0)
        models = {str(one["id"]): one for one in response.json()["data"]} if response.status_code == 200 else None
    except (httpx2.TransportError, ValueError, KeyError, TypeError) as error:
        raise Invalid(f"there is no vLLM server at {url} ({error}): start it first, or correct url") from error
    if models is None:
        raise Invalid(f"the vLLM server at {url} refuses to list its models (HTTP {response.status_code}): see key_env")
    if base not in models:
        known = ", ".join(sorted(models)) or "none"
        raise Invalid(f"the vLLM server at {url} has no model {base!r} (it has {known}): --served-model-name {base}")
    longest = models[base].get("max_model_len")
    return longest if isinstance(longest, int) else None


def _headers(key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def _refusal(status: int, data: bytes, *, call: str) -> DayjobError:
    try:
        parsed: Any = json.loads(data)
        message = str(parsed["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"HTTP {status}"
    if status == 404:
        return NotFound(
            f"the vLLM server has nothing for {call} ({message}): start it with --enable-lora and with "
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1, and let it see the data directory under the same path"
        )
    if status in (400, 413, 422):
        return Invalid(f"the vLLM server refuses this request: {message}")
    if status in (429, 503):
        return Overloaded(f"the vLLM server is busy: {message}")
    return DayjobError(f"the vLLM server failed: {message}")
