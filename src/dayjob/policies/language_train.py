"""The trainable side of an adapter: LoRA on the linear layers of a causal model, and the PEFT folder it becomes.

The same sum as :mod:`dayjob.policies.engine_lora` serves, ``output + scaling (x A') B'`` in FP32, by forward hooks, so
the model itself stays as it is and with the hooks *off* it is the base model to the last bit. LoRA: Hu et al., ICLR
2022; rank-stabilised scaling: Kalajdzievski, 2023.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
from torch import Tensor, nn

from dayjob.endings import Invalid
from dayjob.policies.adapters import CONFIG, PREFIX, WEIGHTS

EVERY_LAYER: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraShape:
    """Rank, scaling and place of an adapter. ``layers`` are names of linear layers or their ends, as PEFT's
    ``target_modules``; none: every linear layer but the output matrix. Scaling is alpha / rank, or alpha / sqrt(rank)
    with ``stabilised``."""

    rank: int = 16
    alpha: float = 32.0
    stabilised: bool = False
    layers: tuple[str, ...] = EVERY_LAYER

    @property
    def scaling(self) -> float:
        return self.alpha / (self.rank**0.5 if self.stabilised else self.rank)


class TrainableLora:
    """An adapter whose factors learn, hooked into one model until :meth:`close`. Begins as no change at all: A uniform
    (Kaiming, as PEFT), B zero."""

    def __init__(self, model: nn.Module, *, head: nn.Module, shape: LoraShape, seed: int) -> None:
        """``head`` (the output matrix) is left alone. The model's own weights are frozen.

        Raises Invalid for a rank below 1 or a layer that the model does not have.
        """
        if shape.rank < 1:
            raise Invalid(f"the adapter's rank is {shape.rank}: give 1 or more", param="rank")
        self.shape = shape
        # By layer the matrix (O, I) that :meth:`averaged` adds to it instead, kept by whoever teaches with it.
        self.average: dict[str, Tensor] = {}
        self._mode: Literal["on", "off", "averaged"] = "on"
        model.requires_grad_(False)
        layers = _chosen(model, head=head, ends=shape.layers)
        generator = torch.Generator().manual_seed(seed)
        self.factors: dict[str, tuple[Tensor, Tensor]] = {}  # layer -> A (R, I), B (O, R)
        self._hooks = []
        for name, layer in layers.items():
            bound = layer.in_features**-0.5
            down_RI = torch.empty(shape.rank, layer.in_features).uniform_(-bound, bound, generator=generator)
            up_OR = torch.zeros(layer.out_features, shape.rank)
            device = layer.weight.device
            self.factors[name] = (down_RI.to(device).requires_grad_(), up_OR.to(device).requires_grad_())
            self._hooks.append(layer.register_forward_hook(self._hook(name)))

    def parameters(self) -> list[Tensor]:
        """Every factor, layer by layer, A before B."""
        return [one for pair in self.factors.values() for one in pair]

    def off(self) -> AbstractContextManager[None]:
        """The base model, for as long as this lasts."""
        return self._as("off")

    def averaged(self) -> AbstractContextManager[None]:
        """The base model with :attr:`average` in place of the adapter, for as long as this lasts."""
        return self._as("averaged")

    @contextmanager
    def _as(self, mode: Literal["off", "averaged"]) -> Iterator[None]:
        before, self._mode = self._mode, mode
        try:
            yield
        finally:
            self._mode = before

    def state(self) -> dict[str, Tensor]:
        """Copies of the factors under PEFT's names, on the CPU."""
        return {
            f"{PREFIX}{name}.lora_{letter}.weight": one.detach().cpu().clone()
            for name, pair in self.factors.items()
            for letter, one in zip("AB", pair, strict=True)
        }

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of :meth:`state`."""
        for name, pair in self.factors.items():
            for letter, one in zip("AB", pair, strict=True):
                one.copy_(state[f"{PREFIX}{name}.lora_{letter}.weight"])

    def close(self) -> None:
        """Take the adapter off the model."""
        for hook in self._hooks:
            hook.remove()

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]:
        def _add(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            if self._mode == "off":
                return None
            if self._mode == "averaged":
                return (output + inputs[0].to(torch.float32) @ self.average[name].T).to(output.dtype)
            down_RI, up_OR = self.factors[name]
            added = inputs[0].to(torch.float32) @ down_RI.T @ (self.shape.scaling * up_OR).T
            return (output + added).to(output.dtype)

        return _add


def adapter_files(state: Mapping[str, Tensor], *, shape: LoraShape, base: str) -> dict[str, bytes]:
    """``state`` as the files of a PEFT folder. ``base``: what the base model is called where the adapter is served.

    The weights' bytes depend on nothing but the numbers, so equal nights have equal digests.
    """
    ends = sorted({name.removeprefix(PREFIX).rpartition(".lora_")[0] for name in state})
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "inference_mode": True,
        "r": shape.rank, "lora_alpha": shape.alpha, "lora_dropout": 0.0, "use_rslora": shape.stabilised,
        "bias": "none", "target_modules": ends,
    }  # fmt: skip
    weights = safetensors.torch.save({name: state[name].contiguous() for name in sorted(state)})
    return {WEIGHTS: weights, CONFIG: json.dumps(config, indent=2, sort_keys=True).encode()}


def write_adapter(folder: Path, state: Mapping[str, Tensor], *, shape: LoraShape, base: str) -> None:
    """Write ``state`` as a PEFT folder (:func:`adapter_files`). Both files are on the disk before this returns; whoever
    publishes the folder renames it into its place."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in adapter_files(state, shape=shape, base=base).items():
        _write(folder / name, data)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _chosen(model: nn.Module, *, head: nn.Module, ends: Sequence[str]) -> dict[str, nn.Linear]:
    found = {name: one for name, one in model.named_modules() if isinstance(one, nn.Linear) and one is not head}
    for end in ends:
        if not any(name == end or name.endswith(f".{end}") for name in found):
            known = ", ".join(sorted({name.rpartition(".")[2] for name in found}))
            raise Invalid(f"the model has no linear layer {end!r} to adapt: it has {known}", param="layers")
    wanted = tuple(ends)
    return {
        name: one
        for name, one in found.items()
        if not wanted or any(name == end or name.endswith(f".{end}") for end in wanted)
    }
