"""What an engine's worker is asked to do, and what it keeps of a request while it is being written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dayjob.policies.adapters import Adapter
from dayjob.policies.engine_batch import Scoring
from dayjob.policies.engine_protocol import Chunk, Prompt, Sampling, Scored, VersionRef
from dayjob.policies.tokens import TextStream


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """What one engine may hold."""

    slots: int = 16  # requests written at once
    waiting: int = 256  # requests that may wait for a slot
    context_tokens: int = 4096  # of one request, prompt and answer
    prompt_share: int = 512  # tokens of new prompts computed between two tokens of the others
    adapters: int = 32  # in memory; any number on disk
    max_rank: int = 64
    prompt_cache_bytes: int = 256 << 20


@dataclass(slots=True, kw_only=True, eq=False)
class Ticket:
    """One request, and where its chunks go."""

    prompt: Prompt
    version: str
    sampling: Sampling
    loop: asyncio.AbstractEventLoop
    inbox: asyncio.Queue[Chunk | BaseException]
    keeps: bool = True  # whether the prompt cache may have what is computed for it


@dataclass(slots=True, kw_only=True, eq=False)
class ScoreJob:
    """Tokens to score: those of ``token_ids`` from ``start`` on. ``begun`` once its version was settled."""

    version: str
    token_ids: tuple[int, ...]
    start: int
    top: int
    result: Future[Scored]
    begun: tuple[Adapter, Scoring] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadJob:
    """A version to read; ``then`` is told the adapter, on the worker's thread."""

    ref: VersionRef
    then: Callable[[Adapter], None]
    result: Future[None]


@dataclass(slots=True, kw_only=True, eq=False)
class Running:
    """One request in the batch; its row is its place in the list of running requests."""

    ticket: Ticket
    adapter: Adapter
    ids: list[int]  # prompt and answer
    computed: int  # how many of them have their keys and values in the slots
    uniform: npt.NDArray[np.float64]
    text: TextStream
    cached: int  # tokens of the prompt that the prompt cache had; told in the first chunk
    written: int = 0  # tokens of the answer

    @property
    def missing(self) -> int:
        return len(self.ids) - self.computed

    def salt(self) -> tuple[str, ...]:
        return (self.adapter.ref.name, self.adapter.ref.digest, self.ticket.prompt.salt)
