"""GeoCLIP's gallery, read from the installed wheel."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from geospot import gallery
from geospot.gallery import equal_earth, geoclip_folder, load_encoder, read_coordinates

SOME = np.array([[48.8584, 2.2945], [-33.8568, 151.2153], [0.0, 0.0], [-89.0, -179.5]], np.float32)


def reference(coords: np.ndarray) -> np.ndarray:
    """GeoCLIP's location encoder written in torch from its published definition."""
    state = torch.load(geoclip_folder() / "weights" / "location_encoder_weights.pth", weights_only=True)
    plane, total = torch.from_numpy(equal_earth(coords)).double(), 0
    for number in range(3):
        part = {k.partition(".")[2]: v.double() for k, v in state.items() if k.startswith(f"LocEnc{number}.")}
        angle = 2 * np.pi * plane @ part["capsule.0.b"].T
        hidden = torch.cat([angle.cos(), angle.sin()], dim=1)
        for layer in (1, 3, 5):
            hidden = torch.relu(hidden @ part[f"capsule.{layer}.weight"].T + part[f"capsule.{layer}.bias"])
        total = total + hidden @ part["head.0.weight"].T + part["head.0.bias"]
    return torch.nn.functional.normalize(total, dim=1).numpy()


def test_the_encoder_is_geoclips():
    found = load_encoder().encode(SOME)
    assert np.abs(found - reference(SOME)).max() < 1e-4
    assert np.linalg.norm(found, axis=1) == pytest.approx(1.0, abs=1e-5)


def test_equal_earth_by_hand():
    # On the equator x = 2 sqrt(3) longitude / (3 A1), in GeoCLIP's scale; the poles lie at the published height.
    plane = equal_earth(np.array([[0.0, 90.0], [90.0, 0.0]], np.float32))
    assert plane[0] == pytest.approx([2 * np.sqrt(3) * np.pi / 2 / (3 * 1.340264) * 66.50336 / 180, 0.0], rel=1e-5)
    assert plane[1] == pytest.approx([0.0, 1.3173627591574 * 66.50336 / 180], rel=1e-5)


def test_the_cache_gives_the_same_numbers_as_the_first_call(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "read_coordinates", lambda path: read_coordinates(path)[:300])
    first = gallery.load_gallery(tmp_path / "cache")
    monkeypatch.setattr(gallery.LocationEncoder, "encode", None)  # the second call must not compute
    second = gallery.load_gallery(tmp_path / "cache")
    assert len(first) == 300
    assert (first.embedding_GD == second.embedding_GD).all()
    assert (first.coords_G2 == second.coords_G2).all()
    assert second.similarity_scale == pytest.approx(39.687, abs=1e-3)
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [gallery.CACHE_NAME]


def test_absent_package_names_the_install_line(monkeypatch):
    monkeypatch.setattr(gallery.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match="pip install --no-deps 'geoclip"):
        geoclip_folder()


def test_neither_geoclip_nor_torchvision_is_imported():
    code = (
        "import sys; from geospot.gallery import load_encoder; load_encoder().encode([[1.0, 2.0]]);"
        "assert not {'geoclip', 'torchvision', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def test_another_header_is_refused(tmp_path):
    path = tmp_path / "coordinates.csv"
    path.write_text("lat,lon\n1,2\n")
    with pytest.raises(ValueError, match="LAT,LON"):
        read_coordinates(path)
