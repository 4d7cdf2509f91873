"""Photo in, GeoCLIP's image embedding out: 512 numbers comparable with the gallery's location embeddings.

CLIP ViT-L/14's image tower with its projection, then GeoCLIP's own two layers (their weights are in the ``geoclip``
wheel; the package is read, not imported). CLIP's weights are 1.7 GB, never downloaded unless asked for by name.
"""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from geospot.gallery import GEOCLIP_REMEDY, geoclip_folder

if TYPE_CHECKING:
    import torch
    from PIL import Image

F32 = npt.NDArray[np.float32]

CLIP_NAME = "openai/clip-vit-large-patch14"
CLIP_REMEDY = (
    f"GeoCLIP needs the weights of {CLIP_NAME} (1.7 GB, once). "
    f"With a network: start with --clip {CLIP_NAME} and they are downloaded. "
    f"Without one: on a machine that has a network run `hf download {CLIP_NAME} config.json model.safetensors "
    "preprocessor_config.json --local-dir clip`, copy that folder here and start with --clip path/to/clip."
)
MLP_FILE = "image_encoder_mlp_weights.pth"

PHOTO_FORMATS = ("JPEG", "PNG", "WEBP")
MAX_PIXELS = 50_000_000  # a 50-megapixel camera; decoded, 150 MB
WORKING_EDGE = 1024  # CLIP looks at 224 pixels: more than this is only memory


class NoPhoto(ValueError):
    """These bytes are not a photo that we take; the message says what to send."""


def open_photo(data: bytes) -> Image.Image:
    """An RGB image, upright, at most WORKING_EDGE long, from JPEG, PNG or WebP bytes. Metadata (GPS too) is dropped.

    The size is read from the header and refused before anything is decoded. Raises NoPhoto.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit follows, and is smaller
            file = Image.open(io.BytesIO(data), formats=PHOTO_FORMATS)
        width, height = file.size
        if width * height > MAX_PIXELS:
            raise NoPhoto(f"The photo has {width} x {height} pixels; send at most {MAX_PIXELS // 10**6} megapixels.")
        file.draft("RGB", (WORKING_EDGE, WORKING_EDGE))  # JPEG only: decodes at a smaller scale
        upright = ImageOps.exif_transpose(file)
        upright.thumbnail((WORKING_EDGE, WORKING_EDGE))
        pixels = upright.convert("RGB")
        return Image.frombytes("RGB", pixels.size, pixels.tobytes())  # a new image: convert would carry the GPS along
    except NoPhoto:
        raise
    except Exception as error:  # Pillow's decoders raise whatever a damaged file makes them raise
        raise NoPhoto("This is not a photo that can be read; send a JPEG, PNG or WebP file.") from error


@dataclass(frozen=True, slots=True)
class Folder:
    """Where CLIP comes from: a local folder in Hugging Face format, or a hub's name that may be downloaded."""

    source: str
    local: bool

    @classmethod
    def of(cls, clip: str | None) -> Folder:
        """``clip`` as given by the user; None means: only what an earlier download left in the cache."""
        if clip is None:
            _find_in_cache(CLIP_NAME)
            return cls(CLIP_NAME, local=True)
        if Path(clip).is_dir():
            return cls(clip, local=True)
        if clip.startswith((".", os.sep, "~")) or clip.count("/") != 1:
            raise ValueError(f"There is no folder {clip}. {CLIP_REMEDY}")
        return cls(clip, local=False)


def _find_in_cache(name: str) -> None:
    """Raises ValueError when no earlier download of ``name`` is here; far quicker than to import what would load it."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError as error:
        raise ValueError(f"transformers 5 is not installed ({error}): pip install 'dayjob[geospot]'.") from error
    if not isinstance(try_to_load_from_cache(name, "config.json"), str):
        raise ValueError(f"CLIP could not be loaded from {name}. {CLIP_REMEDY}")


class ImageEncoder:
    """GeoCLIP's image encoder, ready to use; build it with ``load_image_encoder``. Threads may share it."""

    def __init__(self, tower: Any, processor: Any, mlp: torch.nn.Module) -> None:
        self._tower = tower
        self._processor = processor
        self._mlp = mlp
        self._one_at_a_time = threading.Lock()  # two photos at once only fight for the same cores

    def encode(self, images: Sequence[Image.Image]) -> F32:
        """Unit embeddings, shape (N, 512), of N RGB images."""
        import torch

        pixels = self._processor(images=list(images), return_tensors="pt")["pixel_values"]
        with self._one_at_a_time, torch.inference_mode():
            z_ND = self._mlp(self._tower(pixel_values=pixels).image_embeds)
            return np.asarray(torch.nn.functional.normalize(z_ND, dim=1).numpy(), dtype=np.float32)


def load_image_encoder(clip: str | None = None, *, geoclip: Path | None = None) -> ImageEncoder:
    """CLIP from a folder or a hub's name (None: only if an earlier download left it here), and GeoCLIP's layers on top.

    ``geoclip`` is the installed package's ``model`` folder unless given. Safetensors only, no remote code.
    Raises ValueError that says what to do when anything is missing, incomplete or of another shape.
    """
    where = Folder.of(clip)
    mlp, width = _load_mlp((geoclip or geoclip_folder()) / "weights" / MLP_FILE)
    tower, processor = _load_clip(where)
    given = tower.config.projection_dim
    if given != width:
        raise ValueError(f"{where.source} gives {given} numbers a photo, GeoCLIP takes {width}. {CLIP_REMEDY}")
    return ImageEncoder(tower.eval(), processor, mlp.eval())


def _load_clip(where: Folder) -> tuple[Any, Any]:
    try:
        from transformers import CLIPVisionModelWithProjection
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
        from transformers.utils import logging
    except ImportError as error:
        raise ValueError(f"transformers 5 is not installed ({error}): pip install 'dayjob[geospot]'.") from error
    options = {"local_files_only": where.local}
    loudness = logging.get_verbosity()
    logging.set_verbosity_error()  # it reports the text tower's weights, which are not wanted, as unexpected
    try:
        processor = CLIPImageProcessorPil.from_pretrained(where.source, **options)
        tower, found = CLIPVisionModelWithProjection.from_pretrained(
            where.source, output_loading_info=True, use_safetensors=True, **options
        )
    except (OSError, ValueError) as error:
        raise ValueError(f"CLIP could not be loaded from {where.source}. {CLIP_REMEDY}") from error
    finally:
        logging.set_verbosity(loudness)
    # transformers fills what is missing with random numbers and a warning: such a tower would answer, and be wrong
    if found["missing_keys"] or found["mismatched_keys"]:
        lacking = sorted(str(key) for key in (*found["missing_keys"], *found["mismatched_keys"]))
        raise ValueError(f"{where.source} lacks {len(lacking)} weights, {lacking[0]} among them. {CLIP_REMEDY}")
    return tower, processor


def _load_mlp(path: Path) -> tuple[torch.nn.Module, int]:
    """GeoCLIP's two layers and the number of inputs they take."""
    import torch

    if not path.is_file():
        raise ValueError(f"{path} is missing from the geoclip package. {GEOCLIP_REMEDY}")
    state = torch.load(path, map_location="cpu", weights_only=True)
    hidden, width = state["0.weight"].shape
    mlp = torch.nn.Sequential(
        torch.nn.Linear(width, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, len(state["2.weight"]))
    )
    mlp.load_state_dict(state)
    return mlp, width
