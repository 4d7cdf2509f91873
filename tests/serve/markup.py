"""A random model whose every word is a piece of a page: whatever it says must be shown as text."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config

from tests.learn.language.world import CONTROL, TEMPLATE
from tests.serve.eyes import NASTY

SAYS = [f"{NASTY}{number}</p></article>" for number in range(12)]


def save_markup(folder: Path) -> Path:
    """The model and its tokenizer as a Hugging Face folder."""
    vocabulary = {word: at for at, word in enumerate([*CONTROL, *SAYS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=SAYS[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")
    fast.add_special_tokens({"additional_special_tokens": CONTROL[:3]})
    fast.chat_template = TEMPLATE
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(vocabulary), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=3,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder
