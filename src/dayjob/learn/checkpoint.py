"""What a killed learner goes on from: arrays in one safetensors file, replaced in one step, bound to what they belong
to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from dayjob.learn.recipes import Recipe
from dayjob.learn.replay import Replay

Arrays = dict[str, npt.NDArray[Any]]
MARK = "fingerprint"


def fingerprint(replay: Replay, recipe: Recipe, *, seed: int, hidden: tuple[int, ...]) -> str:
    """SHA-256 of the data, the recipe, the sizes and the seed: a checkpoint of anything else is not gone on from."""
    digest = hashlib.sha256(json.dumps([asdict(recipe), seed, hidden], sort_keys=True).encode())
    for field in fields(replay):
        value = getattr(replay, field.name)
        digest.update(field.name.encode())
        if value is not None:
            digest.update(repr((value.shape, value.dtype.str)).encode())
            digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()


def save(path: Path, arrays: Mapping[str, npt.NDArray[Any]], *, mark: str) -> None:
    """Write all arrays; a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, partial, metadata={MARK: mark})
    partial.replace(path)


def load(path: Path, *, mark: str) -> Arrays:
    """The arrays saved under ``mark``; nothing when there is no file, another mark, or a damaged file."""
    if not path.is_file():
        return {}
    try:
        with safe_open(path, framework="numpy") as stored:
            if (stored.metadata() or {}).get(MARK) != mark:
                return {}
            return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError:
        return {}
