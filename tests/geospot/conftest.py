"""A small but real Geospot: GeoCLIP's own encoder over the first places of its gallery, and a real dayjob beside it."""

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from geospot.gallery import Gallery, geoclip_folder, load_encoder, read_coordinates
from geospot.world import World

from dayjob.client import Client

PLACES = 1500
START_S = 40.0


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
    """The address of `dayjob serve` as a process of its own, without learner and judge."""
    data: Path = tmp_path_factory.mktemp("dayjob") / "data"
    command = [
        sys.executable,
        "-m",
        "dayjob",
        "serve",
        "--data",
        str(data),
        "--port",
        "0",
        "--no-learner",
        "--no-judge",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    watch = threading.Timer(START_S, process.kill)
    watch.start()
    try:
        assert process.stdout is not None
        url = next((found[0] for line in process.stdout if (found := re.search(r"http://\S+", line))), None)
        assert url, "dayjob serve ended without saying where it serves"
        with Client(url) as client:
            client.wait_ready()
        yield url
    finally:
        watch.cancel()
        process.terminate()
        process.wait(timeout=15)
        if process.stdout is not None:
            process.stdout.close()
