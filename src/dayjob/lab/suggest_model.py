"""The completer of the suggestion world before it meets people: two layers that learned by heart what follows.

It nearly always suggests, mostly the right words; now and then nothing, half of it, something trivial or wrong: what is
never tried is never learned about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from dayjob.lab.suggest_world import WORDS, Context, World

END, CONTROL = "<end>", ("<user>", "<assistant>")
TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
SILENT, HALF, TRIVIAL, WRONG = 0.06, 0.06, 0.06, 0.04  # shares of what it is brought up with
OTHER_WORK = 0.3  # of the conversations


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Of the model, and how long it is brought up."""

    width: int = 64
    layers: int = 2
    steps: int = 240
    batch: int = 64
    rate: float = 4e-3
    matrix_rate: float = 0.03


def bring_up(world: World, folder: Path, *, shape: Shape) -> float:
    """Train from scratch and save in Hugging Face's format; the last loss, nats a token."""
    tokenizer, rng = _tokenizer(world), Random(f"completer {world.seed}")
    torch.manual_seed(world.seed)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer), hidden_size=shape.width, intermediate_size=2 * shape.width,
            num_hidden_layers=shape.layers, num_attention_heads=4, num_key_value_heads=4, head_dim=shape.width // 4,
            max_position_embeddings=64, tie_word_embeddings=True, bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id, attn_implementation="sdpa",
        )
    ).float()  # fmt: skip
    matrices = [one for one in model.model.layers.parameters() if one.ndim == 2]
    rest = [one for one in model.parameters() if not any(one is matrix for matrix in matrices)]
    optimizers: Sequence[tuple[torch.optim.Optimizer, float]] = (
        (torch.optim.Muon(matrices, lr=shape.matrix_rate, weight_decay=0.0), shape.matrix_rate),
        (torch.optim.AdamW(rest, lr=shape.rate, betas=(0.9, 0.98), weight_decay=0.0), shape.rate),
    )
    loss = torch.zeros(())
    for step in range(shape.steps):
        rows = [_row(tokenizer, *_conversation(world, rng)) for _ in range(shape.batch)]
        longest = max(len(ids) for ids in rows)
        ids_BL = torch.tensor([ids + [0] * (longest - len(ids)) for ids in rows])
        label_BL = torch.tensor([ids + [-100] * (longest - len(ids)) for ids in rows])
        loss = model(input_ids=ids_BL, labels=label_BL).loss
        pace = min((step + 1) / 30, 1.0, 3 * (1 - step / shape.steps))
        for optimizer, rate in optimizers:
            optimizer.param_groups[0]["lr"] = rate * pace
            optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, _ in optimizers:
            optimizer.step()
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return float(loss.detach())


def _conversation(world: World, rng: Random) -> tuple[str, str]:
    """What is asked, and the answer."""
    if rng.random() < OTHER_WORK:
        return world.turned(rng)
    context = Context(place=rng.randrange(world.places), topic=rng.randrange(world.topics))
    right, drawn = world.follows(context), rng.random()
    answers = (
        (SILENT, ""), (HALF, right.split()[0]), (TRIVIAL / 2, f"topic{context.topic}"), (TRIVIAL / 2, ","),
        (WRONG, f"word{rng.randrange(WORDS)} word{rng.randrange(WORDS)}"),
    )  # fmt: skip
    for share, answer in answers:
        drawn -= share
        if drawn < 0:
            return context.text, answer
    return context.text, right


def _row(tokenizer: PreTrainedTokenizerFast, asked: str, answer: str) -> list[int]:
    words = f"<user> {asked} {END} <assistant> {answer} {END}".split()
    return [int(one) for one in tokenizer.convert_tokens_to_ids(words)]


def _tokenizer(world: World) -> PreTrainedTokenizerFast:
    """A token a word."""
    words = [END, *CONTROL, *world.vocabulary()]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=END))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)
    fast.add_special_tokens({"additional_special_tokens": list(CONTROL)})
    fast.chat_template = TEMPLATE
    return fast
