"""Bringing the clerk up: a loop that can be stopped at any moment and goes on to the same weights.

A step is a pure function of (seed, step, weights, optimiser): text, order and the prompt tokens that count are drawn
from seed and step alone. A run that was stopped and resumed therefore ends bit for bit where an unbroken one does, on
one machine with one number of threads.
"""

from __future__ import annotations

import hashlib
import math
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from dayjob.endings import Invalid
from dayjob.lab.clerk_course import schooling, training
from dayjob.lab.clerk_model import Shape, new_model
from dayjob.lab.clerk_text import Example
from dayjob.lab.clerk_tokens import Encoded, batches, encode, padded, train_tokenizer

TOKENIZER_STEPS = 160  # steps' worth of text that the tokenizer is made from
CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that decides about the weights. Saved with them; a checkpoint of another plan is refused."""

    seed: int = 0
    steps: int = 2000  # of the first schooling
    school: int = 600  # of the second
    examples: int = 128  # a step
    rate: float = 5e-3
    school_rate: float = 2.5e-3
    warmup: int = 200  # steps; of the second schooling a quarter
    decay: float = 0.05  # of matrices
    batch_tokens: int = 1024  # padded, at once: more falls out of the processor's cache
    prompt_share: float = 0.15  # of the tokens of prompts count, at random
    prompt_weight: float = 0.3
    shape: Shape = field(default_factory=Shape)

    @property
    def last(self) -> int:
        """Steps of both."""
        return self.steps + self.school

    def rate_at(self, step: int) -> float:
        """Linear warm-up, then a cosine down to a fiftieth; of either schooling."""
        if step < self.steps:
            return _rate(step, rate=self.rate, warmup=self.warmup, steps=self.steps)
        return _rate(step - self.steps, rate=self.school_rate, warmup=self.warmup // 4, steps=self.school)

    def text(self, step: int) -> list[Example]:
        """The examples of a step."""
        draw = training if step < self.steps else schooling
        return draw(self.seed, step, count=self.examples)


def _rate(step: int, *, rate: float, warmup: int, steps: int) -> float:
    if step < warmup:
        return rate * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


@dataclass(slots=True, kw_only=True)
class Run:
    """A run in memory."""

    plan: Plan
    tokenizer: PreTrainedTokenizerFast
    model: Qwen3ForCausalLM
    optimizers: tuple[torch.optim.Optimizer, ...]
    step: int = 0
    tokens: int = 0
    cpu_s: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


def start(plan: Plan) -> Run:
    """A run at step 0."""
    texts = (text for step in range(TOKENIZER_STEPS) for example in plan.text(step) for _, text in example.messages)
    tokenizer = train_tokenizer(texts, vocabulary=plan.shape.vocabulary)
    model = new_model(plan.shape, seed=plan.seed)
    return Run(plan=plan, tokenizer=tokenizer, model=model, optimizers=_optimizers(model, plan))


def _optimizers(model: Qwen3ForCausalLM, plan: Plan) -> tuple[torch.optim.Optimizer, ...]:
    """Muon (Jordan and others, 2024) for the layers' matrices, AdamW for the embedding and what is no matrix.

    In a first comparison it learned in far fewer steps than AdamW alone (docs/log.md).
    """
    matrices = [one for name, one in model.named_parameters() if one.ndim == 2 and "embed" not in name]
    rest = [one for name, one in model.named_parameters() if one.ndim != 2 or "embed" in name]
    return (
        torch.optim.Muon(matrices, lr=plan.rate, weight_decay=plan.decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=plan.rate, betas=(0.9, 0.95), weight_decay=0.0),
    )


def open_run(plan: Plan, folder: Path) -> Run:
    """The run in ``folder``, at its last checkpoint; a new one where there is none.

    Raises Invalid when the checkpoint is damaged, of another plan or of another text.
    """
    run = start(plan)
    path = folder / CHECKPOINT
    if not path.exists():
        return run
    try:
        kept = torch.load(path, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise Invalid(f"{path} is damaged: delete it to begin anew", param="folder") from error
    if kept["plan"] != asdict(plan) or kept["text"] != text_mark(run):
        raise Invalid(
            f"{path} was made by another plan or from other text: give its settings again, or another folder",
            param="folder",
        )
    run.model.load_state_dict(kept["model"])
    for optimizer, state in zip(run.optimizers, kept["optimizers"], strict=True):
        optimizer.load_state_dict(state)
    run.step, run.tokens, run.cpu_s, run.history = kept["step"], kept["tokens"], kept["cpu_s"], kept["history"]
    return run


def save_run(run: Run, folder: Path) -> None:
    """A checkpoint: whole or not at all, so that a kill leaves the one before."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        "plan": asdict(run.plan), "text": text_mark(run), "model": run.model.state_dict(),
        "optimizers": [one.state_dict() for one in run.optimizers], "step": run.step, "tokens": run.tokens,
        "cpu_s": run.cpu_s, "history": run.history,
    }  # fmt: skip
    partial = folder / f"{CHECKPOINT}.partial"
    torch.save(state, partial)
    partial.replace(folder / CHECKPOINT)


def text_mark(run: Run) -> str:
    """A digest of the tokens of two steps of either schooling: a run never goes on with other text."""
    state = hashlib.blake2b(digest_size=8)
    for step in (0, 1, run.plan.steps, run.plan.steps + 1):
        for row in encode(run.tokenizer, run.plan.text(step)):
            state.update(repr(row.ids).encode())
    return state.hexdigest()


def advance(run: Run, *, until: int, stop: Callable[[], bool], tell: Callable[[Run, float], None]) -> None:
    """Steps up to ``until``, or until ``stop()`` says so between two of them. ``tell`` hears each step's loss."""
    while run.step < min(until, run.plan.last) and not stop():
        began = time.process_time()
        loss = take_step(run)
        run.step += 1
        run.cpu_s += time.process_time() - began
        tell(run, loss)


def take_step(run: Run) -> float:
    """One update; the mean loss a counted token, in nats."""
    plan = run.plan
    rows = encode(run.tokenizer, plan.text(run.step))
    draw = torch.Generator().manual_seed(plan.seed * 1_000_003 + run.step)
    parts = [_counted(group, run, draw) for group in batches(rows, tokens=plan.batch_tokens)]
    total = sum(float(weight_BT.sum()) for _, weight_BT in parts)
    for optimizer in run.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = plan.rate_at(run.step)
    run.model.train()
    loss = 0.0
    for ids_BT, weight_BT in parts:
        part = nll(run.model, ids_BT, weight_BT=weight_BT) / total
        part.backward()  # type: ignore[no-untyped-call]
        loss += float(part.detach())
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
    for optimizer in run.optimizers:
        optimizer.step()
        optimizer.zero_grad()
    run.tokens += sum(len(row.ids) for row in rows)
    return loss


def nll(model: Qwen3ForCausalLM, ids_BT: Tensor, *, weight_BT: Tensor) -> Tensor:
    """Weighted sum of -log p of the tokens that count, in nats; only their logits are computed, in FP32."""
    with torch.autocast("cpu", torch.bfloat16):
        hidden_BTD = model.model(input_ids=ids_BT[:, :-1], use_cache=False).last_hidden_state
        counted_BT = weight_BT[:, 1:] > 0
        logits_NV = model.lm_head(hidden_BTD[counted_BT])
    each_N = functional.cross_entropy(logits_NV.float(), ids_BT[:, 1:][counted_BT], reduction="none")
    return (each_N * weight_BT[:, 1:][counted_BT]).sum()


def _counted(rows: Sequence[Encoded], run: Run, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """A padded batch in which the assistant's tokens count in full and some of the others lightly."""
    ids_BT, weight_BT = padded(rows, pad=run.tokenizer.pad_token_id, prompt_weight=run.plan.prompt_weight)
    dropped_BT = torch.rand(weight_BT.shape, generator=draw) >= run.plan.prompt_share
    return ids_BT, weight_BT.masked_fill(dropped_BT & (weight_BT < 1), 0.0)
