"""The engine on transformers: one causal model, many adapters, one batch. On the CPU or a GPU.

:class:`TransformersEngine` is the async face of :class:`dayjob.policies.engine_worker.Worker`; see there for how
requests share the model, and :mod:`dayjob.policies.engine_protocol` for what is promised.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from dayjob.endings import DayjobError, Invalid, Overloaded
from dayjob.policies.adapters import Adapter
from dayjob.policies.engine_batch import Batch
from dayjob.policies.engine_jobs import EngineLimits, LoadJob, ScoreJob, Ticket
from dayjob.policies.engine_protocol import Chunk, InFlight, Prompt, Sampling, Scored, VersionRef
from dayjob.policies.engine_worker import Worker
from dayjob.policies.model_folder import check_model, first_line
from dayjob.policies.tokens import Tokens


def load_model(folder: Path, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Any:
    """A causal model from a folder of its own: safetensors only, no remote code, nothing fetched.

    Raises Invalid when the folder holds none, or not all of it: what is missing would be made up.
    """
    check_model(folder)
    remedy = "save one there with save_pretrained"
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, trust_remote_code=False, use_safetensors=True,
            attn_implementation="sdpa", output_loading_info=True,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        message = f"{folder} holds no causal model that can be loaded ({first_line(error)}): {remedy}"
        raise Invalid(message, param="base") from error
    missing = sorted(map(str, report["missing_keys"])) + sorted(map(str, report["mismatched_keys"]))
    if missing:
        raise Invalid(f"{folder} lacks {missing[0]} and {len(missing) - 1} more: {remedy}, whole", param="base")
    return model.to(device).eval()


class TransformersEngine:
    """An :class:`~dayjob.policies.engine_protocol.Engine`. It owns the model from now on."""

    def __init__(self, model: Any, tokens: Tokens, *, limits: EngineLimits | None = None) -> None:
        """``model``: of ``AutoModelForCausalLM``, in evaluation mode. Raises Invalid if it cannot be served exactly."""
        self.limits = limits or EngineLimits()
        longest = longest_context(model.config)
        if longest is not None and self.limits.context_tokens > longest:
            message = f"context_tokens is {self.limits.context_tokens}, and this model reads {longest}: set no more"
            raise Invalid(message, param="context_tokens")
        batch = Batch(model, slots=self.limits.slots, max_tokens=self.limits.context_tokens)
        self._vocabulary = batch.vocabulary
        self._open_requests = 0
        self._closed = False
        self.worker = Worker(batch, tokens, limits=self.limits)
        self.worker.start()

    async def generate(self, prompt: Prompt, version: str, *, sampling: Sampling) -> AsyncGenerator[Chunk, None]:
        """See the protocol. A chunk a token."""
        self._check(prompt.token_ids, room=1)
        loop = asyncio.get_running_loop()
        ticket = Ticket(prompt=prompt, version=version, sampling=sampling, loop=loop, inbox=asyncio.Queue())
        with self._place():
            try:
                self.worker.post(lambda: self.worker.submit(ticket))
                ended = False
                while not ended:
                    item = await ticket.inbox.get()
                    if isinstance(item, BaseException):
                        raise item
                    ended = item.ending is not None
                    yield item
            finally:
                self.worker.post(lambda: self.worker.abort(ticket))

    async def score(self, prompt: Prompt, version: str, *, token_ids: Sequence[int], top_logprobs: int = 0) -> Scored:
        """See the protocol."""
        both = (*prompt.token_ids, *token_ids)
        self._check(prompt.token_ids, room=len(token_ids))
        self._check(both, room=0)
        result: Future[Scored] = Future()
        start = len(prompt.token_ids)
        job = ScoreJob(version=version, token_ids=both, start=start, top=top_logprobs, result=result)
        with self._place():
            self.worker.post(lambda: self.worker.score(job))
            return await asyncio.wrap_future(result)

    async def load(self, ref: VersionRef, *, now: bool = True) -> None:
        """See the protocol."""
        if now:
            await self._load(ref, lambda _: None)
        else:
            await self._call(lambda: self.worker.registry.know(ref))

    async def swap(self, alias: str, ref: VersionRef, *, in_flight: InFlight = InFlight.FINISH) -> None:
        """See the protocol. ``MOVE`` computes the answers so far anew under the new version."""
        await self._load(ref, lambda adapter: self.worker.point(alias, adapter, in_flight=in_flight))

    async def drop(self, version: str) -> None:
        """See the protocol."""
        await self._call(lambda: self.worker.drop(version))

    async def forget(self, salt: str) -> None:
        """See the protocol."""
        await self._call(lambda: self.worker.forget(salt))

    def versions(self) -> Mapping[str, str]:
        """See the protocol."""
        return self.worker.registry.names()

    async def close(self) -> None:
        """See the protocol."""
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self.worker.stop)

    async def _load(self, ref: VersionRef, then: Callable[[Adapter], None]) -> None:
        self._check_open()
        result: Future[None] = Future()
        self.worker.post(lambda: self.worker.load(LoadJob(ref=ref, then=then, result=result)))
        await asyncio.wrap_future(result)

    async def _call(self, command: Callable[[], None]) -> None:
        """Run a command on the worker's thread and wait for it."""
        self._check_open()
        result: Future[None] = Future()

        def run() -> None:
            result.set_running_or_notify_cancel()
            try:
                command()
            except DayjobError as error:
                result.set_exception(error)
            else:
                result.set_result(None)

        self.worker.post(run)
        await asyncio.wrap_future(result)

    @contextmanager
    def _place(self) -> Iterator[None]:
        """One of the places of those who are served or wait. Raises Overloaded when all are taken."""
        if self._open_requests >= self.limits.slots + self.limits.waiting:
            raise Overloaded(f"{self._open_requests} requests are being served or wait: try again in a moment")
        self._open_requests += 1
        try:
            yield
        finally:
            self._open_requests -= 1

    def _check(self, token_ids: Sequence[int], *, room: int) -> None:
        self._check_open()
        if not token_ids:
            raise Invalid("the prompt is empty: give it at least one token", param="prompt")
        if len(token_ids) + room > self.limits.context_tokens:
            message = f"{len(token_ids)} tokens leave no room for an answer in {self.limits.context_tokens}: shorten it"
            raise Invalid(message, param="prompt")
        if not 0 <= min(token_ids) <= max(token_ids) < self._vocabulary:
            raise Invalid(f"token ids must be from 0 to {self._vocabulary - 1}", param="prompt")

    def _check_open(self) -> None:
        if self._closed:
            raise Invalid("this engine was closed: open another")


def longest_context(config: Any) -> int | None:
    """Tokens that every layer of the model sees at once: its positions, or its attention's window if it has one."""
    found = [getattr(config, "max_position_embeddings", None)]
    # Some configs name a window that no layer uses; those that list no layer types use it in all.
    if "sliding_attention" in (getattr(config, "layer_types", None) or ["sliding_attention"]):
        found.append(getattr(config, "sliding_window", None))
    return min((size for size in found if size), default=None)
