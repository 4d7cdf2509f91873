"""Checks on entry. A wrong shape is our mistake, so these assert; the message names the argument."""

from __future__ import annotations

import torch
from torch import Tensor

Stats = dict[str, Tensor]


def check_rank(name: str, tensor: Tensor, *, rank: int) -> None:
    """``tensor`` has ``rank`` axes."""
    assert tensor.ndim == rank, f"{name} has {tensor.ndim} axes, not {rank}"


def check_same(**tensors: Tensor) -> None:
    """All have one shape."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert len(set(shapes.values())) <= 1, f"shapes differ: {shapes}"


def check_integer(name: str, tensor: Tensor) -> None:
    """``tensor`` holds integers of 64 bits, as torch's indexing wants."""
    assert tensor.dtype == torch.int64, f"{name} is {tensor.dtype}, not int64"


def mean_where(value_B: Tensor, mask_B: Tensor) -> Tensor:
    """Mean of ``value_B`` where ``mask_B``; 0 (with a gradient of 0) when nothing is."""
    return torch.where(mask_B, value_B, 0.0).sum() / mask_B.sum().clamp_min(1)
