"""GeoCLIP's gallery: the 100,000 places it may answer with, and their embeddings.

The location encoder is computed here in numpy from the weights in the installed ``geoclip`` wheel. The package itself
is never imported, so neither torchvision nor transformers is needed, and weights are read with ``weights_only=True``.
Encoder: Vivanco Cepeda, Nayak, Shah, "GeoCLIP", NeurIPS 2023 (Equal Earth projection, random Fourier features at three
scales, one small network each, summed).
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]

CACHE_NAME = "geoclip-gallery-1.npz"  # the number changes with what is stored
ENCODE_BATCH = 4096  # places a pass; keeps the hidden layer of 1,024 under 20 MB
GEOCLIP_REMEDY = (
    "Install it without its dependencies: pip install --no-deps 'geoclip==1.3.0' (torch reads its weights)."
)

# Equal Earth projection (Savric, Patterson, Jenny 2018), with the scale that GeoCLIP trained with.
_A1, _A2, _A3, _A4 = 1.340264, -0.081106, 0.000893, 0.003796
_SCALE = 66.50336 / 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LocationEncoder:
    """GeoCLIP's location encoder.

    ``layers`` holds one entry per scale: the frequencies (256, 2), then the four weight matrices (out, in) and biases.
    """

    layers: tuple[tuple[F32, ...], ...]

    def encode(self, coords_N2: npt.ArrayLike) -> F32:
        """Unit embeddings, shape (N, 512), of latitude and longitude in degrees, shape (N, 2)."""
        coords = np.asarray(coords_N2, dtype=np.float32).reshape(-1, 2)
        parts = [self._encode_batch(coords[i : i + ENCODE_BATCH]) for i in range(0, len(coords), ENCODE_BATCH)]
        embedding_ND = np.concatenate(parts) if parts else np.zeros((0, 512), np.float32)
        norm_N1 = np.linalg.norm(embedding_ND, axis=1, keepdims=True)
        unit_ND: F32 = (embedding_ND / norm_N1).astype(np.float32)
        return unit_ND

    def _encode_batch(self, coords_N2: F32) -> F32:
        plane_N2 = equal_earth(coords_N2)
        total: F32 | None = None
        for frequencies, *dense in self.layers:
            angle = (2 * np.pi * plane_N2) @ frequencies.T
            hidden = np.concatenate([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
            pairs = list(zip(dense[0::2], dense[1::2], strict=True))
            for weight, bias in pairs[:-1]:
                hidden = np.maximum(hidden @ weight.T + bias, 0.0)
            weight, bias = pairs[-1]
            out = hidden @ weight.T + bias
            total = out if total is None else total + out
        assert total is not None
        return total


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """The places that may be answered: ``coords_G2`` degrees (latitude, longitude), ``embedding_GD`` unit vectors.

    ``similarity_scale`` is GeoCLIP's learned inverse temperature of the cosine.
    """

    coords_G2: F32
    embedding_GD: F32
    similarity_scale: float
    encoder: LocationEncoder

    def __len__(self) -> int:
        return len(self.coords_G2)


def equal_earth(coords_N2: F32) -> F32:
    """Equal Earth projection of degrees, shape (N, 2), in GeoCLIP's units."""
    latitude, longitude = np.radians(coords_N2[:, 0]), np.radians(coords_N2[:, 1])
    root3 = np.float32(np.sqrt(3.0))
    theta = np.arcsin(root3 / 2 * np.sin(latitude))
    denominator = 3 * (9 * _A4 * theta**8 + 7 * _A3 * theta**6 + 3 * _A2 * theta**2 + _A1)
    x = 2 * root3 * longitude * np.cos(theta) / denominator
    y = _A4 * theta**9 + _A3 * theta**7 + _A2 * theta**3 + _A1 * theta
    return (np.stack([x, y], axis=1) * _SCALE).astype(np.float32)


def geoclip_folder() -> Path:
    """Where the installed ``geoclip`` package lies; it is located, not imported.

    Raises ValueError with the install line when it is absent.
    """
    spec = importlib.util.find_spec("geoclip")
    if spec is None or spec.origin is None:
        raise ValueError(f"The package geoclip is not installed. {GEOCLIP_REMEDY}")
    return Path(spec.origin).parent / "model"


def load_encoder(folder: Path | None = None) -> LocationEncoder:
    """The location encoder from the wheel's weights (``folder``: the package's ``model`` folder)."""
    import torch  # only here: serving and simulating need numpy alone once the gallery is cached

    state = torch.load(
        _existing((folder or geoclip_folder()) / "weights" / "location_encoder_weights.pth"),
        map_location="cpu",
        weights_only=True,
    )
    scales = sorted({name.split(".")[0] for name in state})
    layers = tuple(tuple(np.ascontiguousarray(state[f"{s}.{n}"].numpy()) for n in _layer_names()) for s in scales)
    return LocationEncoder(layers=layers)


def load_gallery(cache_dir: Path) -> Gallery:
    """The whole gallery, embeddings cached under ``cache_dir`` (about 100 MB; first call a minute, then a second).

    Embeddings are rounded to float16 on the first call too, so every call gives the same numbers.
    """
    folder = geoclip_folder()
    encoder = load_encoder(folder)
    cache = cache_dir / CACHE_NAME
    if not cache.exists():
        coords = read_coordinates(_existing(folder / "gps_gallery" / "coordinates_100K.csv"))
        _write_cache(cache, coords, encoder.encode(coords).astype(np.float16), _similarity_scale(folder))
    with np.load(cache, allow_pickle=False) as stored:
        embedding_GD = stored["embedding"].astype(np.float32)
        embedding_GD /= np.linalg.norm(embedding_GD, axis=1, keepdims=True)
        return Gallery(
            coords_G2=stored["coords"],
            embedding_GD=embedding_GD,
            similarity_scale=float(stored["similarity_scale"]),
            encoder=encoder,
        )


def read_coordinates(path: Path) -> F32:
    """Latitude and longitude in degrees, shape (G, 2), from a CSV with the header ``LAT,LON``."""
    with path.open(encoding="utf-8") as file:
        header = file.readline().strip()
        if header != "LAT,LON":
            raise ValueError(f"{path} should start with the header LAT,LON, not {header!r}. {GEOCLIP_REMEDY}")
        return np.loadtxt(file, delimiter=",", dtype=np.float32, ndmin=2)


def _layer_names() -> list[str]:
    dense = [
        f"{name}.{part}" for name in ("capsule.1", "capsule.3", "capsule.5", "head.0") for part in ("weight", "bias")
    ]
    return ["capsule.0.b", *dense]


def _similarity_scale(folder: Path) -> float:
    import torch

    path = _existing(folder / "weights" / "logit_scale_weights.pth")
    return float(torch.load(path, map_location="cpu", weights_only=True).exp())


def _write_cache(path: Path, coords_G2: F32, embedding_GD: npt.NDArray[np.float16], similarity_scale: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial.npz")  # renamed when whole, so a killed run leaves no half cache
    np.savez(partial, coords=coords_G2, embedding=embedding_GD, similarity_scale=np.float64(similarity_scale))
    partial.replace(path)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"{path} is missing from the geoclip package. {GEOCLIP_REMEDY}")
    return path
