"""A piece of GeoCLIP's gallery, embedded by its own encoder: small enough for tests, real all the same."""

import pytest
from geospot.gallery import Gallery, geoclip_folder, load_encoder, read_coordinates

PLACES = 1500


@pytest.fixture(scope="session")
def small_gallery() -> Gallery:
    """The first PLACES places."""
    encoder = load_encoder()
    coords_G2 = read_coordinates(geoclip_folder() / "gps_gallery" / "coordinates_100K.csv")[:PLACES]
    return Gallery(coords_G2=coords_G2, embedding_GD=encoder.encode(coords_G2), similarity_scale=40.0, encoder=encoder)
