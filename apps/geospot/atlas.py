"""The map: Natural Earth's outlines as SVG paths in the Equal Earth projection, and the words for where a place lies.

The outlines are vendored as TopoJSON (static/NATURAL-EARTH.txt says whose they are) and decoded here: arcs are lists of
integer steps, shared between neighbours (TopoJSON specification 1.0). Map units: the equator is 2,000 long
and (0, 0) is in the middle; y grows southwards, as in SVG.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from geospot.gallery import equal_earth
from geospot.world import haversine_km

F64 = npt.NDArray[np.float64]

OUTLINES = Path(__file__).parent / "static" / "countries-110m.json"
HALF_WIDTH = 1000.0  # map units from the middle to 180 degrees east on the equator
TENTHS = 10  # paths are written in tenths of a map unit, as integers
COAST_KM = 60.0  # the outlines are coarse: this close to a country is in it
SMALL_DEGREES = 6.0  # a country smaller than this has no parts worth naming

FULL_NAMES = {
    "Bosnia and Herz.": "Bosnia and Herzegovina",
    "Central African Rep.": "Central African Republic",
    "Congo": "Republic of the Congo",
    "Dem. Rep. Congo": "DR Congo",
    "Dominican Rep.": "Dominican Republic",
    "Eq. Guinea": "Equatorial Guinea",
    "Falkland Is.": "Falkland Islands",
    "Fr. S. Antarctic Lands": "French Southern Lands",
    "Macedonia": "North Macedonia",
    "N. Cyprus": "Northern Cyprus",
    "S. Sudan": "South Sudan",
    "Solomon Is.": "Solomon Islands",
    "United States of America": "United States",
    "W. Sahara": "Western Sahara",
    "eSwatini": "Eswatini",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Country:
    """A name and its rings, each (P, 2) of longitude and latitude in degrees, first point repeated at the end."""

    name: str
    rings: tuple[F64, ...]

    @property
    def mainland(self) -> F64:
        """The ring with the largest box."""
        return max(self.rings, key=lambda ring: float(np.prod(np.ptp(ring, axis=0))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Atlas:
    """All countries, and the lines between two of them."""

    countries: tuple[Country, ...]
    borders: tuple[F64, ...]


def load_atlas(path: Path = OUTLINES) -> Atlas:
    """The vendored outlines."""
    data = json.loads(path.read_text(encoding="utf-8"))
    step, origin = np.array(data["transform"]["scale"]), np.array(data["transform"]["translate"])
    arcs = [np.cumsum(np.array(arc, dtype=np.float64), axis=0) * step + origin for arc in data["arcs"]]
    uses: Counter[int] = Counter()
    countries = []
    for shape in data["objects"]["countries"]["geometries"]:
        polygons = shape["arcs"] if shape["type"] == "MultiPolygon" else [shape["arcs"]]
        rings = [ring for polygon in polygons for ring in polygon]
        uses.update(~arc if arc < 0 else arc for ring in rings for arc in ring)
        name = shape["properties"]["name"]
        countries.append(
            Country(
                name=FULL_NAMES.get(name, name),
                rings=tuple(piece for numbers in rings for piece in cut(_ring(arcs, numbers))),
            )
        )
    return Atlas(countries=tuple(countries), borders=tuple(arcs[arc] for arc, count in uses.items() if count > 1))


def _ring(arcs: list[F64], numbers: Iterable[int]) -> F64:
    """Arcs end to end; a negative number ~n is arc n backwards. Each begins where the one before ended."""
    parts = [arcs[~number][::-1] if number < 0 else arcs[number] for number in numbers]
    return np.concatenate([parts[0], *(part[1:] for part in parts[1:])])


def cut(ring: F64) -> list[F64]:
    """A ring cut where it crosses 180 degrees, into rings within -180 to 180. One around a pole goes over it."""
    longitude, latitude = np.unwrap(ring[:, 0], period=360.0), ring[:, 1]
    if abs(longitude[-1] - longitude[0]) > 180:
        pole = np.copysign(90.0, latitude.mean())
        longitude = np.concatenate([longitude, longitude[[-1, 0, 0]]])
        latitude = np.concatenate([latitude, [pole, pole, latitude[0]]])
    pieces = []
    for turn in (-360.0, 0.0, 360.0):
        piece = np.stack([longitude + turn, latitude], axis=1)
        for side in (1.0, -1.0):
            piece = _inside(piece, side)
        if len(piece) > 3:
            pieces.append(piece)
    return pieces


def _inside(ring: F64, side: float) -> F64:
    """The part of a closed ring with side x longitude <= 180 (Sutherland and Hodgman's clipping), closed again."""
    kept: list[F64] = []
    for start, end in pairwise(ring):
        here, there = 180.0 - side * start[0], 180.0 - side * end[0]
        if here >= 0:
            kept.append(start)
        if here * there < 0:
            kept.append(start + (end - start) * here / (here - there))
    return np.array([*kept, kept[0]]) if kept else np.empty((0, 2))


# ---- the picture -----------------------------------------------------------------------------------------------


def project(lonlat_P2: F64) -> F64:
    """Map units (P, 2) of longitude and latitude in degrees."""
    edge = equal_earth(np.array([[0.0, 180.0]], dtype=np.float32))[0, 0]
    xy_P2 = equal_earth(lonlat_P2[:, ::-1].astype(np.float64)).astype(np.float64) * (HALF_WIDTH / edge)
    return np.asarray(xy_P2 * [1.0, -1.0])


def svg_path(lines: Iterable[F64], *, closed: bool) -> str:
    """One SVG path of many lines, in tenths of map units, as integer steps; steps that come to nothing are left out."""
    parts = []
    for line in lines:
        at = np.rint(project(line) * TENTHS).astype(int)
        moves = np.diff(at, axis=0)
        moves = moves[np.any(moves != 0, axis=1)]
        if len(moves):
            steps = " ".join(f"{x} {y}" for x, y in moves.tolist()).replace(" -", "-")
            parts.append(f"M{at[0, 0]} {at[0, 1]}l{steps}{'z' if closed else ''}")
    return "".join(parts)


def pictures(atlas: Atlas) -> dict[str, str]:
    """The paths of the map: ``sea`` (the outline of the earth), ``grid``, ``land``, ``borders``."""
    side = np.arange(-90.0, 90.5, 1.0)
    east, west = (np.stack([np.full_like(side, x), side], axis=1) for x in (180.0, -180.0))
    across = np.arange(-180.0, 181.0, 2.0)
    grid = [np.stack([np.full_like(side, x), side], axis=1) for x in range(-150, 180, 30)]
    grid += [np.stack([across, np.full_like(across, y)], axis=1) for y in range(-60, 90, 30)]
    return {
        "sea": svg_path([np.concatenate([east, west[::-1]])], closed=True),
        "grid": svg_path(grid, closed=False),
        "land": svg_path((ring for country in atlas.countries for ring in country.rings), closed=True),
        "borders": svg_path(atlas.borders, closed=False),
    }


# ---- the words -------------------------------------------------------------------------------------------------


def coordinates(place: tuple[float, float]) -> str:
    """Latitude and longitude as people write them.

    >>> coordinates((-33.45, 151.2))
    '33.45° S, 151.20° E'
    """
    latitude, longitude = place
    return f"{abs(latitude):.2f}° {'S' if latitude < 0 else 'N'}, {abs(longitude):.2f}° {'W' if longitude < 0 else 'E'}"


def country_at(atlas: Atlas, place: tuple[float, float]) -> Country | None:
    """The country whose outline holds (latitude, longitude), by the even-odd rule."""
    for country in atlas.countries:
        if sum(_crossings(ring, place) for ring in country.rings) % 2:
            return country
    return None


def _crossings(ring: F64, place: tuple[float, float]) -> int:
    """How many sides of the ring a ray eastwards from the place meets."""
    latitude, longitude = place
    (x0, y0), (x1, y1) = ring[:-1].T, ring[1:].T
    across = (y0 > latitude) != (y1 > latitude)
    rise = np.where(y1 == y0, 1.0, y1 - y0)
    return int(np.count_nonzero(across & (longitude < x0 + (x1 - x0) * (latitude - y0) / rise)))


def nearest_country(atlas: Atlas, place: tuple[float, float]) -> tuple[Country, float]:
    """The country with the nearest outline point, and how many km that is."""
    best: tuple[float, Country] = (float("inf"), atlas.countries[0])
    for country in atlas.countries:
        km = min(float(haversine_km(ring[:, ::-1], place).min()) for ring in country.rings)
        best = min(best, (km, country), key=lambda pair: pair[0])
    return best[1], best[0]


def where(atlas: Atlas, place: tuple[float, float]) -> str:
    """Where a place lies, in words: "north-east Brazil", "Belgium", "420 km off Chile"."""
    country = country_at(atlas, place)
    if country is None:
        country, km = nearest_country(atlas, place)
        if km > COAST_KM:
            return f"{round(km, -1):,.0f} km off {country.name}"
    part = part_of(country.mainland, place)
    return f"{part} {country.name}" if part else country.name


def part_of(ring: F64, place: tuple[float, float]) -> str:
    """Which part of a ring's box: "north", "south-west", "central"; "" for a small one."""
    low, high = ring.min(axis=0), ring.max(axis=0)
    middle, half = (low + high) / 2, (high - low) / 2
    if 2 * half.max() < SMALL_DEGREES:
        return ""
    longitude = place[1] + 360.0 * round((middle[0] - place[1]) / 360.0)  # east of 180 is still the east
    east, north = (np.array([longitude, place[0]]) - middle) / half
    third = 1 / 3
    words = ["north" if north > third else "south" if north < -third else ""]
    words.append("east" if east > third else "west" if east < -third else "")
    return "-".join(word for word in words if word) or "central"
