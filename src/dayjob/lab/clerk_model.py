"""The clerk's network: Qwen3's shape, small, from scratch; saved as any model of the hub is."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

SAME = 0.15  # of the median row's distance to the next: rows that are nearer to another were hardly trained
APART = 0.5  # of the median row's length: what sets such rows apart


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Width, depth and vocabulary. Heads are 32 wide; three of them share a key."""

    width: int = 192
    layers: int = 6
    inner: int = 512
    vocabulary: int = 2048
    context: int = 1024  # tokens; training text is shorter than 300


def new_model(shape: Shape, *, seed: int) -> Qwen3ForCausalLM:
    """Fresh weights: equal seeds give equal ones. Depth-scaled start of what is added to the stream."""
    torch.manual_seed(seed)
    heads = shape.width // 32
    config = Qwen3Config(
        vocab_size=shape.vocabulary, hidden_size=shape.width, num_hidden_layers=shape.layers,
        intermediate_size=shape.inner, num_attention_heads=heads, num_key_value_heads=max(1, heads // 3),
        head_dim=32, tie_word_embeddings=True, max_position_embeddings=shape.context,
        # On CPU the fused kernel's backward pass takes a third of a step at these lengths; plain products do not.
        attn_implementation="eager",
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.div_(math.sqrt(2 * shape.layers))
    return model


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, *, folder: Path) -> int:
    """Float16 on disk, float32 when loaded, with all tokens ``set_apart``; returns the bytes of the weights. What was
    there is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    half = Qwen3ForCausalLM(model.config)
    half.load_state_dict(model.state_dict())
    with torch.no_grad():
        row_VD = half.model.embed_tokens.weight
        row_VD.copy_(set_apart(row_VD))
    half.half().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["dtype"] = "float32"
    config["pad_token_id"], config["eos_token_id"] = tokenizer.pad_token_id, tokenizer.eos_token_id
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    ends = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False)
    ends.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return (folder / "model.safetensors").stat().st_size


def set_apart(row_VD: Tensor) -> Tensor:
    """The embedding with a direction of its own added to each row that is nearly another's. Equal rows, equal result.

    Tokens that no training text held were only ever pushed away from what came, all in the same direction, until their
    rows in the embedding, which is the output matrix too, were all but one. ``=``, ``<`` and ``{`` are among them:
    the output matrix is frozen under an adapter, so no night could have taught a call, where any of some hundred tokens
    came out for its ``=``. A model of the hub has met the signs of its calls.
    """
    nearest_VV = torch.cdist(row_VD.float(), row_VD.float(), compute_mode="donot_use_mm_for_euclid_dist")
    nearest_V = nearest_VV.fill_diagonal_(torch.inf).min(dim=1).values
    noise_VD = torch.randn(row_VD.shape, generator=torch.Generator().manual_seed(0))
    noise_VD = APART * row_VD.float().norm(dim=1).median() * torch.nn.functional.normalize(noise_VD, dim=1)
    same_V1 = (nearest_V < SAME * nearest_V.median())[:, None]
    return torch.where(same_V1, row_VD.float() + noise_VD, row_VD.float()).to(row_VD.dtype)
