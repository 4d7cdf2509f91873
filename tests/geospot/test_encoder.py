"""The real loading code, with a tiny CLIP made on the spot and GeoCLIP's own layers from the wheel."""

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from geospot.encoder import MAX_PIXELS, WORKING_EDGE, NoPhoto, load_image_encoder, open_photo
from geospot.gallery import geoclip_folder
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

SaveClip = Callable[..., Path]


def photo(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, size=(size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def as_bytes(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def test_embeddings_are_geoclips_own(clip: Path) -> None:
    """The same numbers as GeoCLIP's formula, computed here from the files by other means."""
    images = [photo(1), photo(2, (40, 90))]
    mlp = torch.load(geoclip_folder() / "weights" / "image_encoder_mlp_weights.pth", weights_only=True)
    whole = CLIPModel.from_pretrained(clip).eval()
    pixels = CLIPImageProcessorPil.from_pretrained(clip)(images=images, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        features = whole.get_image_features(pixel_values=pixels).pooler_output
        hidden = torch.relu(features @ mlp["0.weight"].T + mlp["0.bias"])
        expected = hidden @ mlp["2.weight"].T + mlp["2.bias"]
    expected = expected / expected.norm(dim=1, keepdim=True)
    z_ND = load_image_encoder(str(clip)).encode(images)
    assert z_ND.shape == (2, 512)
    assert z_ND.dtype == np.float32
    np.testing.assert_allclose(z_ND, expected.numpy(), atol=1e-5)
    assert abs(float(z_ND[0] @ z_ND[1])) < 0.999999  # two photos, two embeddings


def test_the_tower_alone_is_enough(clip: Path, save_clip: SaveClip, tmp_path: Path) -> None:
    alone = load_image_encoder(str(save_clip(tmp_path / "tower", vision_only=True)))
    np.testing.assert_allclose(alone.encode([photo(1)]), load_image_encoder(str(clip)).encode([photo(1)]), atol=1e-6)


def test_a_file_that_lacks_weights_is_refused(save_clip: SaveClip, tmp_path: Path) -> None:
    """transformers alone would fill the gap with random numbers."""
    folder = save_clip(tmp_path / "gap")
    weights = load_file(folder / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 weights, visual_projection\.weight"):
        load_image_encoder(str(folder))


def test_another_clip_is_refused(save_clip: SaveClip, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gives 512 numbers a photo, GeoCLIP takes 768"):
        load_image_encoder(str(save_clip(tmp_path / "other", projection=512)))


@pytest.mark.parametrize("clip", ["/no/such/folder", "./clip", "a/b/c", "clip"])
def test_a_folder_that_is_not_there(clip: str) -> None:
    with pytest.raises(ValueError, match=r"There is no folder .*--clip path/to/clip"):
        load_image_encoder(clip)


def test_without_clip_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"could not be loaded from openai/clip-vit-large-patch14.*hf download"):
        load_image_encoder()


def test_a_pickle_is_never_read(clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).write_bytes((clip / name).read_bytes())
    torch.save(load_file(clip / "model.safetensors"), folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="could not be loaded"):
        load_image_encoder(str(folder))


def test_geoclips_weights_missing(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"missing from the geoclip package.*pip install --no-deps"):
        load_image_encoder(str(clip), geoclip=tmp_path)


# ---- photos ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_the_three_formats(format: str) -> None:
    image = open_photo(as_bytes(photo(1), format))
    assert (image.mode, image.size) == ("RGB", (64, 48))


@pytest.mark.parametrize("format", ["GIF", "BMP", "TIFF", "PPM"])
def test_other_formats_are_refused(format: str) -> None:
    with pytest.raises(NoPhoto, match="send a JPEG, PNG or WebP"):
        open_photo(as_bytes(photo(1), format))


def test_damaged_photos_are_refused() -> None:
    """Every truncation and many flipped bytes: a photo or NoPhoto, never another exception."""
    whole = as_bytes(photo(1, (16, 16)), "PNG")
    rng = np.random.default_rng(0)
    damaged = [whole[:cut] for cut in range(len(whole) - 12)]
    for _ in range(200):
        broken = bytearray(whole)
        broken[int(rng.integers(len(whole)))] ^= int(rng.integers(1, 256))
        damaged.append(bytes(broken))
    refused = 0
    for data in [b"", b"GIF89a", json.dumps({}).encode(), *damaged]:
        try:
            open_photo(data)
        except NoPhoto:
            refused += 1
    assert refused > len(whole) - 12


def test_a_bomb_is_refused_by_its_header() -> None:
    honest = as_bytes(photo(1), "PNG")
    for side in (MAX_PIXELS // 10_000 + 1, 100_000, 2**31 - 1):  # beyond our limit, and beyond Pillow's own
        header = b"IHDR" + struct.pack(">II", 10_000, side) + honest[24:29]
        bomb = honest[:12] + header + struct.pack(">I", zlib.crc32(header)) + honest[33:]
        with pytest.raises(NoPhoto, match="at most 50 megapixels" if side < 100_000 else "JPEG"):
            open_photo(bomb)


def test_photos_come_upright_small_and_without_metadata() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: the camera was turned
    exif.get_ifd(0x8825)[1] = "N"  # GPS
    image = open_photo(as_bytes(photo(1, (3000, 200)), "JPEG", exif=exif))
    assert image.height == WORKING_EDGE
    assert image.width < image.height
    assert image.info == {}
    assert not image.getexif().get_ifd(0x8825)
