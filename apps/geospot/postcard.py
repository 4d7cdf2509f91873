"""What stands in for a simulated photo: a drawn card. It is art from a seed, not a picture of the place.

The climate and the postmark come from the true place, so that a person who plays has something to go by; the
coordinates stay hidden until the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

WIDTH, HEIGHT = 600, 420
GROUND = 250  # where the farthest hills stand
LAYERS = 4
STEP = 12  # pixels between two points of a hill's line


@dataclass(frozen=True, slots=True)
class Climate:
    """The colours of a belt of latitude: sky from above to the horizon (3), sun, hills from far to near (LAYERS)."""

    sky: str
    sun: str
    hills: str
    rough: float  # how jagged the hills are, pixels


BELTS: tuple[tuple[float, Climate], ...] = (  # up to this many degrees from the equator
    (16, Climate("#1f6f8b #5fb3b3 #f6d186", sun="#fff3c9", hills="#3f8f7f #2c7a62 #1d5f49 #123f33", rough=14)),
    (33, Climate("#b5543c #e58a4f #fbd6a0", sun="#fff0cf", hills="#d79a62 #bd7a48 #965836 #5f3626", rough=9)),
    (56, Climate("#4b77a3 #8fb4cf #f3e3cf", sun="#fff7e0", hills="#8aa68a #628a66 #416c4d #264736", rough=18)),
    (91, Climate("#24385f #5d7ea8 #d9d7ea", sun="#ffffff", hills="#c3d2e3 #94abc6 #64809f #33475f", rough=30)),
)


def climate(latitude: float) -> Climate:
    """The belt that a latitude in degrees lies in."""
    return next(belt for limit, belt in BELTS if abs(latitude) < limit)


def postcard(seed: int, *, latitude: float, postmark: str) -> str:
    """An SVG card. The same seed, latitude and postmark give the same card."""
    rng = np.random.default_rng(seed)
    belt = climate(latitude)
    sun_x, sun_y = rng.uniform(90, WIDTH - 200), rng.uniform(90, 190)
    stops = "".join(
        f'<stop offset="{at}" stop-color="{c}"/>' for at, c in zip((0, 0.6, 1), belt.sky.split(), strict=True)
    )
    hills = "".join(_hill(rng, layer, belt) for layer in range(LAYERS))
    birds = "".join(_bird(rng) for _ in range(int(rng.integers(2, 6))))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        f"<title>A drawn card in place of a simulated photo, postmarked {escape(postmark)}</title>"
        f'<defs><linearGradient id="sky" x1="0" y1="0" x2="0" y2="1">{stops}</linearGradient></defs>'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="url(#sky)"/>'
        f'<circle cx="{sun_x:.0f}" cy="{sun_y:.0f}" r="64" fill="{belt.sun}" opacity=".25"/>'
        f'<circle cx="{sun_x:.0f}" cy="{sun_y:.0f}" r="38" fill="{belt.sun}"/>'
        f"{birds}{hills}{_postmark(rng, postmark)}</svg>"
    )


def _hill(rng: np.random.Generator, layer: int, belt: Climate) -> str:
    x = np.arange(0, WIDTH + STEP, STEP, dtype=np.float64)
    y = np.full_like(x, GROUND + layer * 44)
    for wave in range(1, 6):
        height = belt.rough * (1 + layer * 0.25) / wave
        y += height * np.sin(x / WIDTH * wave * rng.uniform(2.5, 5.5) + rng.uniform(0, 6.3))
    line = " ".join(f"{a:.0f},{b:.0f}" for a, b in zip(x, y, strict=True))
    return f'<polygon points="0,{HEIGHT} {line} {WIDTH},{HEIGHT}" fill="{belt.hills.split()[layer]}"/>'


def _bird(rng: np.random.Generator) -> str:
    x, y, size = rng.uniform(60, WIDTH - 220), rng.uniform(40, 200), rng.uniform(5, 10)
    wings = f"M{x - size:.0f} {y:.0f}q{size / 2:.0f} {-size:.0f} {size:.0f} 0q{size / 2:.0f} {-size:.0f} {size:.0f} 0"
    return f'<path d="{wings}" fill="none" stroke="#1b2430" stroke-width="2" opacity=".55"/>'


def _postmark(rng: np.random.Generator, postmark: str) -> str:
    """A round stamp with wavy lines, a little askew."""
    words = _lines(postmark.upper())
    size = 17 if max(map(len, words)) <= 12 else 13
    top = 5 - (len(words) - 1) * size * 0.6
    text = "".join(
        f'<text y="{top + i * size * 1.2:.0f}" font-size="{size}">{escape(w)}</text>' for i, w in enumerate(words)
    )
    waves = "".join(f'<path d="M-178 {y}q14 -9 28 0t28 0t28 0" fill="none"/>' for y in (-26, -8, 10, 28))
    return (
        f'<g transform="translate({WIDTH - 108} 100) rotate({rng.uniform(-14, 10):.0f})" stroke="#fffdf6" '
        f'stroke-width="3" opacity=".95">{waves}<circle r="82" fill="#14202b" fill-opacity=".55"/>'
        '<circle r="70" fill="none" stroke-width="1.5"/><g fill="#fffdf6" stroke="none" text-anchor="middle" '
        f'font-family="Georgia, serif" font-weight="700" letter-spacing="1">{text}'
        '<text y="-42" font-size="11">SIMULATED</text><text y="52" font-size="11">GEOSPOT</text></g></g>'
    )


def _lines(words: str) -> list[str]:
    """Words broken into lines of at most 12 letters, where they can be; at most three lines."""
    lines = [""]
    for word in words.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > 12:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return [*lines[:2], " ".join(lines[2:])] if len(lines) > 3 else lines
