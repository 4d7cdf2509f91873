"""Adapters on disk: plain PEFT folders, read and checked without PEFT.

A folder holds ``adapter_config.json`` and ``adapter_model.safetensors``, as ``PeftModel.save_pretrained`` writes them
and transformers and vLLM load them. Each file is opened once, no link is followed, and the very bytes that were hashed
are used. An adapter is read whole or not at all; pickled weights (``adapter_model.bin``) are never opened.

Only what is served exactly is accepted: LoRA on linear layers, one rank and one alpha, with or without rank-stabilised
scaling. Everything else that PEFT can write down (DoRA, biases, trained embeddings, starts that change the base model)
is refused by name. LoRA: Hu et al., ICLR 2022; rank-stabilised: Kalajdzievski, 2023.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from dayjob.endings import Damaged
from dayjob.policies.engine_protocol import VersionRef

CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"
PREFIX: Final = "base_model.model."
MAX_CONFIG_BYTES: Final = 1 << 20
MAX_WEIGHT_BYTES: Final = 4 << 30
_DTYPES: Final = (torch.float32, torch.float16, torch.bfloat16)
# Fields of the config that change nothing about how finished weights are applied, or are read below.
_READ: Final = {"peft_type", "task_type", "r", "lora_alpha", "use_rslora", "target_modules", "init_lora_weights"}
_HARMLESS: Final = {
    "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode", "lora_dropout",
    "megatron_core", "qalora_group_size",
}  # fmt: skip
# Ways to start that leave the base model's own weights alone.
_STARTS: Final = (True, False, "gaussian", "orthogonal", None)

Shapes = Mapping[str, tuple[int, int]]  # linear layer, as the model names it -> (inputs, outputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What an adapter adds to one linear layer: ``x a' b'``, the scaling already in ``b``. FP32."""

    a_RI: Tensor
    b_OR: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """One version in memory. The base model is an adapter without parts."""

    ref: VersionRef
    parts: Mapping[str, Part]

    @property
    def size(self) -> int:
        """Of its weights, bytes."""
        return sum(one.nbytes for part in self.parts.values() for one in (part.a_RI, part.b_OR))


def read_adapter(ref: VersionRef, shapes: Shapes, *, max_rank: int, device: torch.device | None = None) -> Adapter:
    """Read and check the folder of ``ref`` against the linear layers that the model has.

    Raises Damaged, naming the remedy, for a folder that is absent, foreign, broken, not what its digests say, of a
    higher rank than ``max_rank``, or made for another model.
    """
    if ref.folder is None:
        return Adapter(ref=ref, parts={})
    expected = dict(ref.files)
    config = _parse(_read(ref, CONFIG, digest=expected.get(CONFIG), limit=MAX_CONFIG_BYTES), ref)
    scaling = _scaling(config, ref, max_rank=max_rank)
    data = _read(ref, WEIGHTS, digest=expected.get(WEIGHTS), limit=MAX_WEIGHT_BYTES)
    try:
        tensors = safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise _damaged(ref, f"{WEIGHTS} is not a whole safetensors file ({error})") from error
    targets = _targets(config, shapes, ref=ref)
    parts = {}
    for name in sorted(targets):
        inputs, outputs = shapes[name]
        a_RI = _take(tensors, f"{PREFIX}{name}.lora_A.weight", shape=(config["r"], inputs), ref=ref)
        b_OR = scaling * _take(tensors, f"{PREFIX}{name}.lora_B.weight", shape=(outputs, config["r"]), ref=ref)
        # Other versions share the product with these numbers: 0 times infinity would be theirs too.
        if not torch.isfinite(b_OR).all():
            raise _damaged(ref, f"the weights of {name!r} overflow when they are scaled")
        parts[name] = Part(a_RI=a_RI.to(device), b_OR=b_OR.to(device))
    if tensors:
        raise _damaged(ref, f"{WEIGHTS} holds {sorted(tensors)[0]!r}, which is no part of a LoRA on this model")
    return Adapter(ref=ref, parts=parts)


def check_files(ref: VersionRef) -> None:
    """Raises Damaged unless the folder's files are those that ``ref.files`` speaks of. For backends that read folders
    themselves."""
    if ref.folder is not None:
        for name, limit in ((CONFIG, MAX_CONFIG_BYTES), (WEIGHTS, MAX_WEIGHT_BYTES)):
            _read(ref, name, digest=dict(ref.files).get(name), limit=limit)


def file_digests(folder: Path) -> tuple[tuple[str, str], ...]:
    """``VersionRef.files`` of a folder that was just written, for whoever writes the version's manifest."""
    return tuple((name, hashlib.sha256((folder / name).read_bytes()).hexdigest()) for name in (CONFIG, WEIGHTS))


def _scaling(config: Mapping[str, Any], ref: VersionRef, *, max_rank: int) -> float:
    """alpha / r, or alpha / sqrt(r); after everything else in the config was found to be served exactly."""
    if config.get("peft_type") != "LORA" or config.get("task_type") not in (None, "CAUSAL_LM"):
        kind = f"{config.get('peft_type')!r} for {config.get('task_type')!r}"
        raise _damaged(ref, f"{CONFIG} describes {kind}; a LORA adapter for CAUSAL_LM is served")
    for name, value in config.items():
        if name not in _READ | _HARMLESS and value and value != "none":
            raise _damaged(ref, f"{CONFIG} sets {name!r}, which is not served: train the adapter without it")
    if config.get("init_lora_weights", True) not in _STARTS:
        start = config["init_lora_weights"]
        raise _damaged(ref, f"its start {start!r} changed the base model: convert it to a plain LoRA first")
    rank: Any = config.get("r")
    alpha: Any = config.get("lora_alpha")
    if type(rank) is not int or not 1 <= rank <= max_rank:
        raise _damaged(ref, f"its rank is {rank!r}: this engine serves ranks from 1 to {max_rank}")
    if type(alpha) not in (int, float) or not math.isfinite(alpha):
        raise _damaged(ref, f"its lora_alpha is {alpha!r}, not a number")
    return float(alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank)


def _targets(config: Mapping[str, Any], shapes: Shapes, *, ref: VersionRef) -> set[str]:
    """The model's layers that the config means: whole names or their ends, as PEFT matches them."""
    ends = config.get("target_modules")
    if not isinstance(ends, list) or not ends or not all(isinstance(end, str) for end in ends):
        message = f"target_modules is {ends!r}; a list of layer names is served (a pattern in a file is never run)"
        raise _damaged(ref, message)
    found = {end: {name for name in shapes if name == end or name.endswith(f".{end}")} for end in ends}
    foreign = [end for end, names in found.items() if not names]
    if foreign:
        raise _damaged(ref, f"it adapts {foreign[0]!r}, which this model has no linear layer for: another base model?")
    return set().union(*found.values())


def _take(tensors: dict[str, Tensor], name: str, *, shape: tuple[int, int], ref: VersionRef) -> Tensor:
    tensor = tensors.pop(name, None)
    if tensor is None:
        raise _damaged(ref, f"{WEIGHTS} lacks {name!r}")
    if tuple(tensor.shape) != shape or tensor.dtype not in _DTYPES:
        found = f"{tuple(tensor.shape)} {tensor.dtype}"
        raise _damaged(ref, f"{name!r} is {found}, not {shape} of floating point numbers: another base model?")
    if not torch.isfinite(tensor).all():
        raise _damaged(ref, f"{name!r} holds numbers that are not finite")
    return tensor.float()


def _parse(data: bytes, ref: VersionRef) -> dict[str, Any]:
    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _damaged(ref, f"{CONFIG} is not JSON") from error
    if not isinstance(config, dict):
        raise _damaged(ref, f"{CONFIG} is not a JSON object")
    return config


def _read(ref: VersionRef, name: str, *, digest: str | None, limit: int) -> bytes:
    """The bytes of one file, opened once; a link, a device or a longer file than ``limit`` is refused."""
    assert ref.folder is not None
    try:
        handle = os.open(ref.folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        pickled = name == WEIGHTS and (ref.folder / "adapter_model.bin").exists()
        why = "its weights are a pickle, which is never opened: save them as safetensors" if pickled else error.strerror
        raise _damaged(ref, f"{name} cannot be read ({why})") from error
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise _damaged(ref, f"{name} is not a plain file")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise _damaged(ref, f"{name} is longer than {limit} bytes")
    if digest is not None and hashlib.sha256(data).hexdigest() != digest:
        raise _damaged(ref, f"{name} is not what was written: its SHA-256 differs from the manifest's")
    return data


def _damaged(ref: VersionRef, what: str) -> Damaged:
    return Damaged(f"version {ref.name} will not serve: {what}; roll back to another version, or learn this one anew")
