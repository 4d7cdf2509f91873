"""Speed of a language engine: many clients with different adapters at once, against one-by-one ``generate``.

Both sides write the same number of tokens from the same prompts with the same adapters on the same model: ours in one
batch, the other as transformers and PEFT do it, a request after another. The mark is a ratio, taken side by side.
"""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dayjob.lab.speed_rows import Row, row
from dayjob.lab.speed_teach import Size, make_model
from dayjob.policies.adapters import file_digests
from dayjob.policies.engine_jobs import EngineLimits
from dayjob.policies.engine_protocol import Prompt, Sampling, VersionRef
from dayjob.policies.engine_transformers import TransformersEngine, load_model
from dayjob.policies.language_train import LoraShape, TrainableLora, adapter_files
from dayjob.policies.tokens import Tokens

ADAPTERS = 4
ABSENT = "PEFT is not installed: pip install peft"


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


def measure(root: Path, *, size: Size, load: Load, rounds: int, seed: int) -> list[Row]:
    """Tokens a second of both sides in every round, and their ratio within it. Adapters of rank 16 on every layer."""
    folder = root / f"talk-{size.name}"
    make_model(folder, size, seed=seed)
    refs = [_adapter(folder, root / f"adapter{n}", seed=n) for n in range(ADAPTERS)]
    told = f"{load.clients} clients, {ADAPTERS} adapters, Qwen3 of {size.name}"
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(rounds):
        ours.append(engine_speed(load_model(folder), _endless(folder), refs=refs, load=load).tokens_s)
        peft_model = _peft_model(folder, refs)
        if peft_model is not None:
            names = [ref.name for ref in refs]
            theirs.append(generate_speed(peft_model, names=names, load=load).tokens_s)
    rows = [row(f"{told}: ours", ours, unit="tokens/s")]
    if not theirs:
        return [*rows, row(f"{told}: ours / one by one", (), mark=">= 4", note=ABSENT)]
    shares = [one / other for one, other in zip(ours, theirs, strict=True)]
    rows.append(row(f"{told}: `generate`, one by one", theirs, unit="tokens/s"))
    return [*rows, row(f"{told}: ours / one by one", shares, mark=">= 4")]


def _endless(folder: Path) -> Tokens:
    """The folder's tokenizer without an end token: every answer is as long as it was asked to be."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    tokenizer.eos_token = None
    return Tokens(tokenizer)


def random_adapter(base: Path, *, shape: LoraShape, seed: int) -> dict[str, bytes]:
    """The files of a PEFT folder with weights of no meaning."""
    model = load_model(base)
    lora = TrainableLora(model, head=model.get_output_embeddings(), shape=shape, seed=seed)
    draw = torch.Generator().manual_seed(seed)
    for _, up_OR in lora.factors.values():
        up_OR.data.normal_(0.0, 0.02, generator=draw)
    return adapter_files(lora.state(), shape=shape, base=base.name)


def _adapter(base: Path, folder: Path, *, seed: int) -> VersionRef:
    folder.mkdir()
    for name, data in random_adapter(base, shape=LoraShape(), seed=seed).items():
        (folder / name).write_bytes(data)
    files = file_digests(folder)
    return VersionRef(name=folder.name, digest=files[1][1], folder=folder, files=files)


def _peft_model(folder: Path, refs: Sequence[VersionRef]) -> Any:
    """The model with every adapter as PEFT loads them, None where it is not installed."""
    try:
        from peft import PeftModel
    except ImportError:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that later versions of either library will not know
        base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        first, *others = refs
        model = PeftModel.from_pretrained(base, str(first.folder), adapter_name=first.name).eval()
        for ref in others:
            model.load_adapter(str(ref.folder), adapter_name=ref.name)
    return model
