"""A small but real Geospot: GeoCLIP's own encoder over the first places of its gallery, and a real dayjob beside it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from geospot.encoder import ImageEncoder, load_image_encoder
from geospot.gallery import Gallery, geoclip_folder, load_encoder, read_coordinates
from geospot.world import World
from transformers import CLIPConfig, CLIPModel, CLIPVisionModelWithProjection
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from dayjob.lab.server import running

PLACES = 1500
SIZE = 28  # pixels a side of the tiny tower, in four patches


@pytest.fixture(scope="session")
def world() -> World:
    """Simulated photos over PLACES real gallery points, retrieved among these only."""
    encoder = load_encoder()
    coords_G2 = read_coordinates(geoclip_folder() / "gps_gallery" / "coordinates_100K.csv")[:PLACES]
    gallery = Gallery(
        coords_G2=coords_G2, embedding_GD=encoder.encode(coords_G2), similarity_scale=40.0, encoder=encoder
    )
    return World(gallery)


@pytest.fixture(scope="session")
def dayjob_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real dayjob, without learner and judge."""
    with running(tmp_path_factory.mktemp("dayjob") / "data") as server:
        yield server.url


def _save_clip(folder: Path, *, projection: int = 768, vision_only: bool = False) -> Path:
    """A tiny CLIP in Hugging Face format: the whole model as a hub has it, or its image tower alone."""
    torch.manual_seed(3)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = tower | {"patch_size": 14, "image_size": SIZE, "projection_dim": projection}
    text = tower | {"vocab_size": 16, "projection_dim": projection, "bos_token_id": 0, "eos_token_id": 2}
    model = CLIPModel(CLIPConfig(projection_dim=projection, text_config=text, vision_config=vision))
    if vision_only:
        alone = CLIPVisionModelWithProjection(model.config.vision_config)
        alone.load_state_dict({k: v for k, v in model.state_dict().items() if k.startswith("vis")})
        alone.save_pretrained(folder)
    else:
        model.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}).save_pretrained(
        folder
    )
    return folder


@pytest.fixture(scope="session")
def save_clip() -> Callable[..., Path]:
    """``save_clip(folder)`` leaves a tiny CLIP there."""
    return _save_clip


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny CLIP."""
    return _save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def encoder(clip: Path) -> ImageEncoder:
    """GeoCLIP's own layers over the tiny CLIP."""
    return load_image_encoder(str(clip))
