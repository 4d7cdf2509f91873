"""The model writes: many answers at once, through the very batch that serves, so that log-probabilities are equal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dayjob.endings import Invalid
from dayjob.policies.adapters import Adapter
from dayjob.policies.engine_batch import Batch, Row
from dayjob.policies.engine_protocol import VersionRef
from dayjob.policies.engine_sampling import draw, uniforms

BASE = Adapter(ref=VersionRef(name="base", digest=""), parts={})


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One answer: N tokens (the end token among them), the log-probability each was drawn with, whether it ended, and
    what the model thinks of each token whatever the temperature (`policies.engine_protocol`)."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    ended: bool
    model_logprobs: tuple[float, ...]


class Writer:
    """Writes answers in batches of at most ``slots``."""

    def __init__(self, batch: Batch, *, end_ids: frozenset[int], slots: int, context_tokens: int) -> None:
        self._batch = batch
        self.end_ids = end_ids
        self.slots = slots  # answers at once
        self.context_tokens = context_tokens
        self.told: Callable[[int], None] = lambda _: None  # hears of each batch how many answers were written

    def write(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        seeds: Sequence[int],
        max_tokens: int,
        temperature: float = 1.0,
        adapter: Adapter = BASE,
    ) -> list[Written]:
        """An answer to each prompt. Seeds as the engine's: equal seeds and prompts, equal answers. ``temperature`` 0:
        the most probable tokens. ``adapter``: one that is served; a trainable one that is on comes on top.

        Raises Invalid for a prompt that is empty or leaves no room for an answer.
        """
        for prompt in prompts:
            if not 0 < len(prompt) < self.context_tokens:
                raise Invalid(f"a prompt of {len(prompt)} tokens: from 1 to {self.context_tokens - 1}", param="prompt")
        written: list[Written] = []
        for first in range(0, len(prompts), self.slots):
            part = slice(first, first + self.slots)
            written += self._some(prompts[part], seeds[part], max_tokens=max_tokens, temperature=temperature,
                                  adapter=adapter)  # fmt: skip
            self.told(len(prompts[part]))
        return written

    @torch.inference_mode()
    def _some(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        *,
        max_tokens: int,
        temperature: float,
        adapter: Adapter,
    ) -> list[Written]:
        draws = [uniforms(seed, max_tokens) for seed in seeds]
        new: list[list[int]] = [list(prompt) for prompt in prompts]  # to compute next
        done = [0] * len(prompts)
        tokens: list[list[int]] = [[] for _ in prompts]
        logprobs: list[list[float]] = [[] for _ in prompts]
        thought: list[list[float]] = [[] for _ in prompts]
        ended = [False] * len(prompts)
        open_rows = list(range(len(prompts)))
        while open_rows:
            rows = [Row(row=row, token_ids=new[row], start=done[row], adapter=adapter) for row in open_rows]
            logit_BV = self._batch.forward(rows)
            drawn = draw(
                logit_BV,
                temperature_B=[temperature] * len(rows),
                top_p_B=[1.0] * len(rows),
                uniform_B=[float(draws[row][len(tokens[row])]) for row in open_rows],
                top=[0] * len(rows),
            )
            told = zip(open_rows, drawn.token_B, drawn.sample_logp_B, drawn.model_logp_B, strict=True)
            for row, token, logp, model_logp in told:
                done[row] += len(new[row])
                new[row] = [token]
                tokens[row].append(token)
                logprobs[row].append(logp)
                thought[row].append(model_logp)
                ended[row] = token in self.end_ids
            open_rows = [
                row
                for row in open_rows
                if not ended[row] and len(tokens[row]) < max_tokens and done[row] + 1 < self.context_tokens
            ]
        return [
            Written(token_ids=tuple(ids), logprobs=tuple(logps), ended=end, model_logprobs=tuple(model))
            for ids, logps, end, model in zip(tokens, logprobs, ended, thought, strict=True)
        ]


def seeds_of(seed: int, *path: int, count: int) -> list[int]:
    """``count`` seeds of 64 bits that depend on nothing but the numbers given."""
    return [int(one) for one in np.random.SeedSequence((seed, *path)).generate_state(count, np.uint64)]
