"""A learning step without generation: ours beside TRL's trainers, same model, adapter, rows, objective and precision.

A step is forward, backward, clipping and AdamW on LoRA (rank 16, every linear layer) in FP32. TRL runs as its users
run it, its own gradient checkpointing off: that trades time for memory, which we do not do here either. Each of its
steps is timed by a callback, so that what it prepares beforehand is left out; of ours nothing is. A pair's prompt is
read once by ours and twice by theirs; a step's tokens are counted alike, as rows that hold a prompt and an answer each.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config, TrainerCallback

from dayjob.lab.clerk_tokens import train_tokenizer
from dayjob.lab.speed_rows import Row, row
from dayjob.learn.language.forks import Forks
from dayjob.learn.language.recipes import NightRecipe
from dayjob.learn.language.study import Ids, Study
from dayjob.objectives.language.dpo import dpo
from dayjob.objectives.language.sft import sft
from dayjob.objectives.language.weights import per_row, per_token, sequence_logprob

RATE, MAX_GRADIENT, BETA = 1e-3, 1.0, 0.1
WARM = 1  # steps of each side that are not timed
ABSENT = "TRL is not installed: pip install 'trl==1.16.*'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A Qwen3 of this shape, and the rows of a step."""

    name: str
    width: int
    layers: int
    inner: int
    vocabulary: int
    rows: int  # of SFT; DPO has half as many pairs
    prompt: int = 96  # tokens
    answer: int = 32

    @property
    def tokens(self) -> int:
        """Of a step, prompts included."""
        return self.rows * (self.prompt + self.answer)

    def config(self) -> Qwen3Config:
        """Heads are 64 wide, two of them share a key."""
        heads = self.width // 64
        return Qwen3Config(
            vocab_size=self.vocabulary, hidden_size=self.width, num_hidden_layers=self.layers,
            intermediate_size=self.inner, num_attention_heads=heads, num_key_value_heads=max(1, heads // 2),
            head_dim=64, tie_word_embeddings=True, max_position_embeddings=512, eos_token_id=1, pad_token_id=0,
        )  # fmt: skip


SIZES = (
    Size(name="4M", width=256, layers=4, inner=704, vocabulary=4096, rows=16),
    Size(name="60M", width=640, layers=11, inner=1728, vocabulary=16384, rows=8),
)
QUICK_SIZES = (Size(name="0.2M", width=64, layers=2, inner=96, vocabulary=512, rows=4, prompt=6, answer=4),)
_TEXT = {"prompt": ["speed"], "chosen": ["speed"], "rejected": ["speed"]}
Step = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """Prompts with two answers each, all of one length, none ends early."""

    prompts: list[Ids]
    chosen: list[Ids]
    rejected: list[Ids]

    @staticmethod
    def of(size: Size, *, seed: int) -> Material:
        """Random tokens: what they are changes nothing in time."""
        draw = torch.Generator().manual_seed(seed)

        def some(length: int) -> list[Ids]:
            return [
                tuple(torch.randint(2, size.vocabulary, (length,), generator=draw).tolist()) for _ in range(size.rows)
            ]

        return Material(prompts=some(size.prompt), chosen=some(size.answer), rejected=some(size.answer))


def measure(root: Path, *, sizes: Sequence[Size], steps: int, rounds: int, seed: int) -> list[Row]:
    """For each size and objective: tokens a second of each side in every round, and their ratio within it."""
    rows: list[Row] = []
    for size in sizes:
        folder = root / f"teach-{size.name}"
        make_model(folder, size, seed=seed)
        material = Material.of(size, seed=seed)
        for objective in ("SFT", "DPO"):
            ours: list[float] = []
            theirs: list[float] = []
            for _ in range(rounds):
                ours.append(_tokens_s(_our_seconds(folder, material, objective=objective, steps=steps), size))
                theirs += [
                    _tokens_s(found, size)
                    for found in trl_seconds(folder, material, root=root, objective=objective, steps=steps)
                ]
            rows += _rows(size, objective, ours=ours, theirs=theirs)
    return rows


def _rows(size: Size, objective: str, *, ours: Sequence[float], theirs: Sequence[float]) -> list[Row]:
    name = f"{objective} step, Qwen3 of {size.name}, LoRA"
    found = [row(f"{name}: ours", ours, unit="tokens/s")]
    if not theirs:
        return [*found, row(f"{name}: ours / TRL", (), mark=">= 1.5", note=ABSENT)]
    shares = [one / other for one, other in zip(ours, theirs, strict=True)]
    return [
        *found,
        row(f"{name}: TRL", theirs, unit="tokens/s"),
        row(f"{name}: ours / TRL", shares, mark=">= 1.5"),
    ]


def make_model(folder: Path, size: Size, *, seed: int) -> None:
    """A random model in FP32 with a tokenizer, as a folder that both sides open."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(size.config(), dtype=torch.float32)
    model.save_pretrained(folder)
    tokenizer(folder)


def tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The smallest that there is: no text is read here."""
    made = train_tokenizer(["speed"], vocabulary=270)
    made.save_pretrained(folder)
    return made


def our_step(study: Study, material: Material, *, objective: str) -> Step:
    """One update of the adapter in training."""
    optimizer = torch.optim.AdamW(study.lora.parameters(), lr=RATE)

    def loss() -> torch.Tensor:
        if objective == "SFT":
            rows = study.rows(material.prompts, material.chosen)
            return sft(study.logprobs(rows), weight_BT=per_token(rows.mask_BT))[0]
        half = len(material.prompts) // 2
        forks = Forks.of(
            material.prompts[:half], first=material.chosen[:half], second=material.rejected[:half], device=study.device
        )
        now_B = sequence_logprob(study.logprobs(forks), forks.mask_BT)
        base_B = sequence_logprob(study.base_logprobs(forks), forks.mask_BT)
        return dpo(
            now_B[:half], now_B[half:], chosen_reference_B=base_B[:half], rejected_reference_B=base_B[half:],
            weight_B=per_row(torch.ones(half)), beta=BETA,
        )[0]  # fmt: skip

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(loss())
        torch.nn.utils.clip_grad_norm_(study.lora.parameters(), MAX_GRADIENT)
        optimizer.step()

    return step


def _our_seconds(folder: Path, material: Material, *, objective: str, steps: int) -> float:
    """Of a step, the mean over ``steps``."""
    recipe = NightRecipe(method="published-sft", context_tokens=512)
    study = Study(folder, recipe, seed=0)
    step = our_step(study, material, objective=objective)
    for _ in range(WARM):
        step()
    began = time.perf_counter()
    for _ in range(steps):
        step()
    took = time.perf_counter() - began
    study.lora.close()
    return took / steps


class _Clock(TrainerCallback):  # type: ignore[misc]
    """When each step of a trainer ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Called by the trainer."""
        self.ends.append(time.perf_counter())


def trl_seconds(folder: Path, material: Material, *, root: Path, objective: str, steps: int) -> list[float]:
    """Of a step of TRL's trainer, the mean over ``steps``: one number, or none where TRL is not installed."""
    try:
        import trl
        from datasets import Dataset
        from peft import LoraConfig
    except ImportError:
        return []
    clock = _Clock()
    count = len(material.prompts) if objective == "SFT" else len(material.prompts) // 2
    with _quiet():
        config = getattr(trl, f"{objective}Config")(
            output_dir=str(root / "trl"), report_to="none", use_cpu=True, bf16=False, save_strategy="no",
            disable_tqdm=True, logging_strategy="no", per_device_train_batch_size=count, max_steps=WARM + steps,
            activation_checkpointing=False, learning_rate=RATE, lr_scheduler_type="constant",
            max_grad_norm=MAX_GRADIENT,
            max_length=512, optim="adamw_torch", **({"beta": BETA} if objective == "DPO" else {}),
        )  # fmt: skip
        trainer = getattr(trl, f"{objective}Trainer")(
            model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True),
            args=config,
            train_dataset=Dataset.from_dict(
                _columns(material, objective, times=WARM + steps) if objective == "SFT" else _TEXT
            ),
            processing_class=tokenizer(root / "trl-tokenizer"),
            peft_config=LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear"),
            callbacks=[clock],
        )
        if objective == "DPO":  # its trainer takes text alone, and makes these columns of it
            trainer.train_dataset = Dataset.from_dict(_columns(material, objective, times=WARM + steps))
        trainer.train()
    return [(clock.ends[-1] - clock.ends[WARM - 1]) / steps]


def _columns(material: Material, objective: str, *, times: int) -> dict[str, list[list[int]]]:
    """The rows of one step, so many times over, in the shape TRL takes as tokenised already."""
    if objective == "SFT":
        pairs = list(zip(material.prompts, material.chosen, strict=True)) * times
        return {
            "input_ids": [[*prompt, *answer] for prompt, answer in pairs],
            "labels": [[-100] * len(prompt) + list(answer) for prompt, answer in pairs],
        }
    half = len(material.prompts) // 2
    return {
        "prompt_ids": [list(one) for one in material.prompts[:half]] * times,
        "chosen_ids": [list(one) for one in material.chosen[:half]] * times,
        "rejected_ids": [list(one) for one in material.rejected[:half]] * times,
    }


def _tokens_s(seconds: float, size: Size) -> float:
    return size.tokens / seconds


@contextmanager
def _quiet() -> Iterator[None]:
    """What other people's trainers warn of is not about speed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
