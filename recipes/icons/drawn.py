"""Icons drawn by Pillow, each of one kind and one colour, of any size, place and turn, on a speckled ground."""

from __future__ import annotations

import math
import random

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {
    "red": (214, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 210),
    "yellow": (235, 200, 30),
    "black": (25, 25, 25),
    "purple": (130, 50, 160),
}
KINDS = ("circle", "square", "triangle", "star", "cross", "ring", "bar", "moon")
# Drawn so many times as large, and shrunk: edges are smooth then.
_FINER = 3


def icon(kind: str, colour: str, generator: random.Random) -> np.ndarray:
    """[side, side, 3] of uint8."""
    side = generator.randint(64, 160)
    fine = side * _FINER
    ground = tuple(generator.randint(200, 255) for _ in range(3))
    shape = Image.new("L", (fine, fine), 0)
    radius = fine * generator.uniform(0.22, 0.38)
    reach = fine / 2 - radius - 2
    centre = [fine / 2 + generator.uniform(-reach, reach) for _ in range(2)]
    _draw(ImageDraw.Draw(shape), kind, centre, radius, math.radians(generator.uniform(-25, 25)))
    mask = shape.resize((side, side), Image.Resampling.BOX)
    shade = [min(255, max(0, value + generator.randint(-15, 15))) for value in COLOURS[colour]]
    image = Image.new("RGB", (side, side), ground)
    image.paste(tuple(shade), mask=mask)
    speckles = np.random.default_rng(generator.getrandbits(32)).normal(0, 8, (side, side, 3))
    return np.clip(np.asarray(image) + speckles, 0, 255).astype(np.uint8)


def _draw(draw: ImageDraw.ImageDraw, kind: str, centre: list[float], radius: float, turn: float) -> None:
    x, y = centre

    def disc(r: float, dx: float = 0.0, fill: int = 255) -> None:
        draw.ellipse((x + dx - r, y - r, x + dx + r, y + r), fill=fill)

    def polygon(points: list[tuple[float, float]]) -> None:
        """Corners as (distance in radii, angle in turns from the top)."""
        draw.polygon(
            [
                (x + radius * r * math.sin(2 * math.pi * a + turn), y - radius * r * math.cos(2 * math.pi * a + turn))
                for r, a in points
            ],
            fill=255,
        )

    def box(half_width: float, half_height: float) -> list[tuple[float, float]]:
        corners = [(sx * half_width, sy * half_height) for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
        return [(math.hypot(*c), math.atan2(c[0], -c[1]) / (2 * math.pi)) for c in corners]

    if kind == "circle":
        disc(radius)
    elif kind == "ring":
        disc(radius)
        disc(radius * 0.6, fill=0)
    elif kind == "moon":
        disc(radius)
        disc(radius * 0.85, dx=radius * 0.5, fill=0)
    elif kind == "square":
        polygon(box(0.8, 0.8))
    elif kind == "bar":
        polygon(box(1.0, 0.3))
    elif kind == "cross":
        polygon(box(1.0, 0.28))
        polygon(box(0.28, 1.0))
    elif kind == "triangle":
        polygon([(1.0, number / 3) for number in range(3)])
    else:
        polygon([(1.0 if number % 2 == 0 else 0.42, number / 10) for number in range(10)])
