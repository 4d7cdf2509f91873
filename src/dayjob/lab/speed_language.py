"""Speed of a language engine: many clients with different adapters at once, against one-by-one ``generate``.

Both sides write the same number of tokens from the same prompts with the same adapters on the same model: ours in one
batch, the other as transformers and PEFT do it, a request after another. The mark is a ratio, taken side by side.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dayjob.policies.engine_jobs import EngineLimits
from dayjob.policies.engine_protocol import Prompt, Sampling, VersionRef
from dayjob.policies.engine_transformers import TransformersEngine
from dayjob.policies.tokens import Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is asked: ``clients`` requests at once, each ``prompt_tokens`` in and ``answer_tokens`` out."""

    clients: int = 16
    prompt_tokens: int = 32
    answer_tokens: int = 64
    rounds: int = 2

    def prompts(self, vocabulary: int) -> list[tuple[int, ...]]:
        """Different for every client, so that no cache helps."""
        spread = range(1, self.prompt_tokens + 1)
        return [
            tuple((31 * client + 7 * place * place) % vocabulary for place in spread) for client in range(self.clients)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Tokens of answers, in all, a second, and a second of CPU."""

    written: int
    tokens_s: float
    tokens_cpu_s: float


def engine_speed(model: Any, tokens: Tokens, *, refs: Sequence[VersionRef], load: Load) -> Speed:
    """Ours: all clients at once, client i with adapter i modulo their number. ``tokens`` must end no answer early."""

    async def go() -> Speed:
        limits = EngineLimits(
            slots=load.clients,
            context_tokens=load.prompt_tokens + load.answer_tokens,
            prompt_cache_bytes=0,
            adapters=len(refs),
        )
        engine = TransformersEngine(model, tokens, limits=limits)
        for ref in refs:
            await engine.load(ref)
        prompts = load.prompts(model.config.vocab_size)

        async def ask(client: int) -> int:
            sampling = Sampling(max_tokens=load.answer_tokens, seed=client)
            prompt, name = Prompt(token_ids=prompts[client]), refs[client % len(refs)].name
            return sum([len(chunk.token_ids) async for chunk in engine.generate(prompt, name, sampling=sampling)])

        await ask(0)  # first passes are slower on both sides
        start = time.perf_counter(), time.process_time()
        written = 0
        for _ in range(load.rounds):
            written += sum(await asyncio.gather(*(ask(client) for client in range(load.clients))))
        speed = _speed(written, start)
        await engine.close()
        return speed

    return asyncio.run(go())


@torch.inference_mode()
def generate_speed(peft_model: Any, *, names: Sequence[str], load: Load) -> Speed:
    """Theirs: ``generate`` for a client after another. ``names``: of the adapters that the PEFT model has loaded."""
    prompts = load.prompts(peft_model.config.vocab_size)

    def ask(client: int) -> int:
        peft_model.set_adapter(names[client % len(names)])
        ids = torch.tensor([prompts[client]], device=peft_model.device)
        answer = peft_model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=0,
            min_new_tokens=load.answer_tokens, max_new_tokens=load.answer_tokens, pad_token_id=0,
        )  # fmt: skip
        return int(answer.shape[1] - ids.shape[1])

    ask(0)
    start = time.perf_counter(), time.process_time()
    written = sum(ask(client) for client in range(load.clients))
    return _speed(written, start)


def _speed(written: int, start: tuple[float, float]) -> Speed:
    wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    return Speed(written=written, tokens_s=written / wall, tokens_cpu_s=written / cpu)
