"""The clerk with a vocabulary that it can write: rows of tokens which no training text held are set apart.

In its upbringing such tokens were only ever pushed away from what came, all in the same direction, until their rows in
the embedding, which is its output matrix too, were all but one. ``=``, ``<`` and ``{`` are among them: whatever an
adapter learns, the output matrix is frozen, and a call came out with any of some hundred tokens for its ``=``. A model
of the hub has met the signs of its calls. Nothing else changes, and no row that was trained.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from dayjob.endings import Invalid

EMBEDDING = "model.embed_tokens.weight"
WEIGHTS = "model.safetensors"
SAME = 0.25  # rows that are nearer than this to another were hardly trained; the median row is 1.7 from the next
APART = 1.0  # length of what sets them apart: half of a trained row's


def with_all_tokens(model: Path, folder: Path) -> Path:
    """``model`` as a folder of its own in which every token can be told from every other; made once. Raises Invalid
    for a model whose embedding is somewhere else."""
    source = folder / f"clerk-{digest_of(model)}"
    if source.exists():
        return source
    weights = safetensors.torch.load_file(model / WEIGHTS)
    if EMBEDDING not in weights:
        raise Invalid(f"{model} has no {EMBEDDING}: name a model of the clerk's shape", param="model")
    partial = source.with_name(f"{source.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(model, partial)
    weights[EMBEDDING] = set_apart(weights[EMBEDDING])
    safetensors.torch.save_file(weights, partial / WEIGHTS, metadata={"format": "pt"})
    partial.rename(source)
    return source


def digest_of(model: Path) -> str:
    """Of a model's weights, 16 hex digits."""
    with (model / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def set_apart(row_VD: Tensor) -> Tensor:
    """The rows with a direction of its own added to each that is nearly another's. Equal rows, equal result."""
    apart_VV = torch.cdist(row_VD.float(), row_VD.float(), compute_mode="donot_use_mm_for_euclid_dist")
    apart_VV.fill_diagonal_(torch.inf)
    same_V = apart_VV.min(dim=1).values < SAME
    noise_VD = torch.randn(row_VD.shape, generator=torch.Generator().manual_seed(0))
    noise_VD = APART * torch.nn.functional.normalize(noise_VD, dim=1)
    return torch.where(same_V[:, None], row_VD.float() + noise_VD, row_VD.float()).to(row_VD.dtype)
