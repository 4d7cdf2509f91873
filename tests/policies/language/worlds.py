"""Tiny random language models, tokenizers and adapters, made on the spot, with PEFT's own forward as the reference."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast, Qwen3Config

from dayjob.policies.adapters import file_digests
from dayjob.policies.engine_protocol import VersionRef
from dayjob.policies.tokens import Tokens

BASE = VersionRef(name="v0-base", digest="00" * 32)
TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
# As Qwen3's: unless it is told not to, the model thinks aloud before it answers.
_SILENT = "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
THINKING = TEMPLATE.replace("assistant\n{% endif %}", "assistant\n" + _SILENT + "{% endif %}")
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,  # wide enough that what stands before a token matters
}
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
# (rank, alpha, rank-stabilised, layers) of the adapters that every world has.
RECIPES = [
    (4, 8, False, ["q_proj", "v_proj"]),
    (8, 16, True, [*ATTENTION, "gate_proj", "up_proj", "down_proj"]),
    (2, 2, False, ["down_proj"]),
    (16, 4, False, ATTENTION),
]


@contextmanager
def peft_of_today() -> Iterator[None]:
    """PEFT 0.21 asks transformers 5.23 for a property by the name it will lose in version 6."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A token a byte, and the control tokens of a conversation."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")
    fast.add_special_tokens({"additional_special_tokens": ["<|start|>"]})
    fast.chat_template = TEMPLATE
    return fast


def tiny_model(kind: str, *, seed: int = 0) -> torch.nn.Module:
    """A random "qwen3" or "llama" in FP32 with the vocabulary of the byte tokenizer."""
    torch.manual_seed(seed)
    ids = {"vocab_size": len(byte_tokenizer()), "bos_token_id": None, "eos_token_id": None}
    config = (Qwen3Config if kind == "qwen3" else LlamaConfig)(**SIZES, **ids, tie_word_embeddings=kind == "qwen3")
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32).eval()


def write_adapter(
    kind: str, folder: Path, *, seed: int, recipe: tuple[int, int, bool, list[str]], strength: float = 0.5
) -> VersionRef:
    """A random adapter as PEFT saves it, in a folder of its own name."""
    rank, alpha, stabilised, layers = recipe
    config = LoraConfig(r=rank, lora_alpha=alpha, use_rslora=stabilised, target_modules=layers, task_type="CAUSAL_LM")
    with peft_of_today():
        model = get_peft_model(tiny_model(kind), config)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data = strength * torch.randn(weight.shape, generator=generator)
        elif "lora_A" in name:
            weight.data = torch.randn(weight.shape, generator=generator) / weight.shape[1] ** 0.5
    model.save_pretrained(folder)
    files = file_digests(folder)
    return VersionRef(name=folder.name, digest=files[1][1], folder=folder, files=files)


@dataclass(frozen=True, kw_only=True)
class World:
    """A base model, the versions made of it, and what each of them says."""

    kind: str
    folder: Path
    tokens: Tokens
    adapters: tuple[VersionRef, ...]

    @staticmethod
    def make(kind: str, folder: Path) -> "World":
        refs = [
            write_adapter(kind, folder / f"v{number}-{kind}", seed=number, recipe=recipe)
            for number, recipe in enumerate(RECIPES, start=1)
        ]
        return World(kind=kind, folder=folder, tokens=Tokens(byte_tokenizer()), adapters=tuple(refs))

    @property
    def versions(self) -> tuple[VersionRef, ...]:
        return (BASE, *self.adapters)

    def damaged(self, ref: VersionRef) -> VersionRef:
        """The same folder, said to hold other weights than it does."""
        config, (name, _) = ref.files
        return replace(ref, digest="ff" * 32, files=(config, (name, "00" * 32)))

    def plain_model(self, ref: VersionRef) -> torch.nn.Module:
        """The version as transformers and PEFT load it."""
        model = tiny_model(self.kind)
        with peft_of_today():
            return model if ref.folder is None else PeftModel.from_pretrained(model, ref.folder).eval()

    @torch.inference_mode()
    def logits(self, ref: VersionRef, ids: tuple[int, ...]) -> torch.Tensor:
        """(T, V) of the version's plain forward over all of ``ids`` at once."""
        return self.plain_model(ref)(input_ids=torch.tensor([ids])).logits[0]

    def logprobs(
        self, ref: VersionRef, prompt: tuple[int, ...], answer: tuple[int, ...], *, temperature: float = 1.0
    ) -> torch.Tensor:
        """log softmax(logits / temperature) of each token of the answer."""
        logit_TV = self.logits(ref, (*prompt, *answer))[len(prompt) - 1 : -1] / temperature
        return logit_TV.log_softmax(1).gather(1, torch.tensor(answer)[:, None])[:, 0]
