"""The clerk's tokenizer, trained on generated text, and conversations as token ids with what is to be learned of them.

Byte-level BPE: any text can be written. Digits stand alone, so that numbers are read place by place. A message is its
role's token, its text and an end token, as the chat template in the model's folder has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from dayjob.lab.clerk_text import Example

PAD, END = "<|pad|>", "<|end|>"
ROLES = {role: f"<|{role}|>" for role in ("system", "user", "assistant", "tool")}
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role not in ['system', 'user', 'assistant', 'tool'] %}"
    "{{ raise_exception('roles are system, user, assistant and tool') }}{% endif %}"
    "<|{{ message.role }}|>{{ message.content }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def train_tokenizer(texts: Iterable[str], *, vocabulary: int) -> PreTrainedTokenizerFast:
    """A tokenizer of at most ``vocabulary`` entries, special ones included. Equal texts give an equal tokenizer."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[PAD, END, *ROLES.values()], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    raw.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token=PAD, eos_token=END, chat_template=TEMPLATE, clean_up_tokenization_spaces=False,
        additional_special_tokens=list(ROLES.values()),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One conversation. ``answer_from``: where the last answer's first token stands."""

    ids: tuple[int, ...]
    spoken: tuple[bool, ...]  # tokens that the assistant decides: its texts and their ends
    answer_from: int


def encode(tokenizer: PreTrainedTokenizerFast, examples: Sequence[Example]) -> list[Encoded]:
    """As the chat template would, in one call for all texts."""
    role_id = {role: tokenizer.convert_tokens_to_ids(token) for role, token in ROLES.items()}
    texts = [text for example in examples for _, text in example.messages]
    coded = iter(tokenizer(texts, add_special_tokens=False)["input_ids"])
    result = []
    for example in examples:
        ids: list[int] = []
        spoken: list[bool] = []
        start = 0
        for role, _ in example.messages:
            body = [*next(coded), tokenizer.eos_token_id]
            ids += [role_id[role], *body]
            start = len(ids) - len(body)
            spoken += [False] + [role == "assistant"] * len(body)
        result.append(Encoded(ids=tuple(ids), spoken=tuple(spoken), answer_from=start))
    return result


def batches(rows: Sequence[Encoded], *, tokens: int) -> list[list[Encoded]]:
    """Rows of like length together, so that a batch, padded, has at most ``tokens`` (or one row)."""
    groups: list[list[Encoded]] = []
    for row in sorted(rows, key=lambda row: len(row.ids)):
        if groups and (len(groups[-1]) + 1) * len(row.ids) <= tokens:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def padded(rows: Sequence[Encoded], *, pad: int, prompt_weight: float) -> tuple[Tensor, Tensor]:
    """(ids_BT, weight_BT): weight 1 where the assistant decides, ``prompt_weight`` elsewhere, 0 on padding and on each
    first token, which nothing foretells."""
    width = max(len(row.ids) for row in rows)
    ids_BT = torch.full((len(rows), width), pad, dtype=torch.int64)
    weight_BT = torch.zeros((len(rows), width))
    for at, row in enumerate(rows):
        ids_BT[at, : len(row.ids)] = torch.tensor(row.ids)
        spoken_T = torch.tensor(row.spoken, dtype=torch.float32)
        weight_BT[at, : len(row.ids)] = spoken_T + prompt_weight * (1 - spoken_T)
    weight_BT[:, 0] = 0
    return ids_BT, weight_BT
