"""What the clerk can do: the share of held-out questions it answers exactly, a family each.

An answer is right when the most probable token is the right one at each of its places, its end included: that is when
writing greedily gives exactly this answer, and needs one forward pass instead of one a token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from dayjob.lab.clerk_course import ASKED, held_out
from dayjob.lab.clerk_text import Example
from dayjob.lab.clerk_tokens import batches, encode, padded


@torch.inference_mode()
def share_right(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, *, examples: Iterable[Example]) -> float:
    """Share of the examples whose last answer the model would write, greedily and in FP32."""
    rows = encode(tokenizer, list(examples))
    model.eval()
    right = 0
    for group in batches(rows, tokens=8192):
        ids_BT, _ = padded(group, pad=tokenizer.pad_token_id, prompt_weight=1.0)
        best_BT = model(input_ids=ids_BT[:, :-1], use_cache=False).logits.argmax(-1)
        hit_BT = best_BT == ids_BT[:, 1:]
        right += sum(bool(hit_BT[at, row.answer_from - 1 : len(row.ids) - 1].all()) for at, row in enumerate(group))
    return right / len(rows)


def measure(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, *, count: int) -> Mapping[str, float]:
    """Every family's share, over ``count`` held-out questions each."""
    return {name: share_right(model, tokenizer, examples=_asked(name, count)) for name in ASKED}


@cache
def _asked(name: str, count: int) -> tuple[Example, ...]:
    return tuple(held_out(name, count=count))


def open_model(folder: Path) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast]:
    """A saved clerk, in FP32."""
    model = Qwen3ForCausalLM.from_pretrained(folder, local_files_only=True)
    return model.eval(), PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
