"""One decision of a language policy while it is being written: its choices side by side, and the record they become.

Promise 3 for language: what the model read, every token it wrote with both log-probabilities and the version that
wrote it, how it was drawn and why it ended are in the record, whether the answer was finished or cut short.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import numpy as np

from dayjob.endings import Ending
from dayjob.policies.engine_protocol import Alternatives, Chunk, Prompt, Sampling
from dayjob.records import Choice, Decision
from dayjob.serve.models import Voice


@dataclass(slots=True, kw_only=True)
class Draft:
    """One choice as far as it is written."""

    seed: int
    token_ids: list[int] = field(default_factory=list)
    model_logprobs: list[float] = field(default_factory=list)
    sample_logprobs: list[float] = field(default_factory=list)
    sampled: bool = True  # the engine knows what the tokens were drawn from
    runs: list[tuple[str, int]] = field(default_factory=list)
    alternatives: list[Alternatives] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    ending: Ending = Ending.ABORTED  # until it is told otherwise

    def add(self, chunk: Chunk, voice: Voice) -> Choice:
        """Take a piece; it alone as a choice, for whoever streams it."""
        began = len(self.token_ids)
        self.token_ids += chunk.token_ids
        self.model_logprobs += chunk.model_logprobs
        self.alternatives += chunk.top_logprobs
        self.text.append(chunk.text)
        if chunk.sample_logprobs is None:
            self.sampled = False
        else:
            self.sample_logprobs += chunk.sample_logprobs
        for stamp in chunk.versions:
            version = voice.version_of(stamp)
            if self.runs and self.runs[-1][0] == version:
                self.runs[-1] = version, self.runs[-1][1] + 1
            else:
                self.runs.append((version, 1))
        if chunk.ending is not None:
            self.ending = chunk.ending
        return replace(self.choice(since=began), text=chunk.text)

    def choice(self, *, since: int = 0) -> Choice:
        """The record of it, or of its tokens from ``since`` on."""
        some = self.alternatives[since:]
        return Choice(
            token_ids=np.array(self.token_ids[since:], "<u4").tobytes(),
            model_logprobs=np.array(self.model_logprobs[since:], "<f4").tobytes(),
            sample_logprobs=np.array(self.sample_logprobs[since:], "<f4").tobytes() if self.sampled else b"",
            versions=tuple(self.runs), seed=self.seed, ending=self.ending, text="".join(self.text),
            alternatives=tuple(some) if any(some) else (),
        )  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Writing:
    """A decision being written. ``blank`` is its record with no choices yet."""

    blank: Decision
    voice: Voice
    prompt: Prompt
    sampling: Sampling
    drafts: list[Draft]
    cached_tokens: int = 0

    async def pieces(self) -> AsyncGenerator[tuple[int, Choice], None]:
        """(index, what was added to that choice) as it is written, choices interleaved. Closing this, or cancelling
        whoever reads it, frees the places in the engine."""
        inbox: asyncio.Queue[tuple[int, Chunk] | BaseException | None] = asyncio.Queue()
        tasks = [asyncio.create_task(self._write(index, inbox)) for index in range(len(self.drafts))]
        try:
            left = len(tasks)
            while left:
                item = await inbox.get()
                if isinstance(item, BaseException):
                    raise item
                if item is None:
                    left -= 1
                    continue
                index, chunk = item
                self.cached_tokens = max(self.cached_tokens, chunk.cached_tokens)
                yield index, self.drafts[index].add(chunk, self.voice)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _write(self, index: int, inbox: "asyncio.Queue[tuple[int, Chunk] | BaseException | None]") -> None:
        sampling = replace(self.sampling, seed=self.drafts[index].seed)
        engine = self.voice.base.engine
        try:
            async with aclosing(engine.generate(self.prompt, self.voice.engine_name, sampling=sampling)) as chunks:
                async for chunk in chunks:
                    inbox.put_nowait((index, chunk))
        except Exception as error:
            inbox.put_nowait(error)
        else:
            inbox.put_nowait(None)

    @property
    def cut_short(self) -> bool:
        """Whether a choice has no proper end."""
        return any(draft.ending is Ending.ABORTED for draft in self.drafts)

    def decision(self) -> Decision:
        """The record, as far as it is written."""
        assert self.blank.generation is not None
        generation = replace(
            self.blank.generation,
            choices=tuple(draft.choice() for draft in self.drafts),
            cached_tokens=self.cached_tokens,
        )
        return replace(self.blank, generation=generation)


def seed_of_choice(seed: int, index: int) -> int:
    """The 64-bit seed of one choice: choices of one decision draw apart, and each can be drawn again alone."""
    told = seed.to_bytes(8, "little") + index.to_bytes(4, "little")
    return int.from_bytes(hashlib.blake2b(told, digest_size=8).digest(), "little")
