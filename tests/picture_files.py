"""Picture files of every format and mode that is read, made by Pillow, the same every time."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

BUDGETS = (70, 70, 70, 140, 70, 280, 70, 140)
# (width, height): up and down, thin and thinner, sizes that stay, and one where rounding decides.
SIZES = [
    (37, 91), (120, 50), (1, 1), (2, 3), (64, 64), (640, 480), (31, 1000), (900, 3), (1, 700), (700, 1), (616, 880),
    (384, 384), (333, 77), (48, 48), (1000, 30), (5, 2000), (192, 1008), (257, 129),
]  # fmt: skip
# How a file of a mode is saved: format, mode, options.
KINDS: list[tuple[str, str, dict[str, Any]]] = [
    *(("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
    ("PNG", "P", {"transparency": 3}),
    ("PNG", "P", {"transparency": bytes(range(0, 256))}),
    ("PNG", "L", {"transparency": 255}),
    ("PNG", "RGB", {"transparency": (255, 0, 0)}),
    *(("JPEG", mode, {"quality": 90}) for mode in ("L", "RGB", "CMYK")),
    ("JPEG", "RGB", {"quality": 75, "progressive": True, "subsampling": 0}),
    *(("WEBP", mode, {"lossless": lossless}) for mode in ("RGB", "RGBA") for lossless in (True, False)),
    *(("GIF", mode, {}) for mode in ("1", "L", "P")),
    ("GIF", "P", {"transparency": 3}),
    ("GIF", "P", {"save_all": True}),
    *(("BMP", mode, {}) for mode in ("1", "L", "P", "RGB")),
    *(("TIFF", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB")),
    ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("TIFF", "RGB", {"compression": "tiff_adobe_deflate"}),
]


class Case(NamedTuple):
    """One file, and the budget that it is seen at."""

    name: str
    data: bytes
    image_tokens: int


def drawn(width: int, height: int, seed: int, mode: str = "RGB") -> Image.Image:
    """Noise, a checkerboard and flat parts side by side, in a mode; alpha everywhere where it has some."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (height, width, 4), dtype=np.uint8)
    rows, columns = np.indices((height, width))
    board = ((rows + columns) % 2 * 255).astype(np.uint8)
    pixels[: height // 2, : width // 2] = board[: height // 2, : width // 2, None]
    pixels[height // 2 :, : width // 3] = generator.choice([0, 64, 255], 4)
    if mode in ("RGBA", "LA"):
        return Image.fromarray(pixels, "RGBA").convert(mode)
    image = Image.fromarray(pixels[..., :3].copy())
    if mode == "LAB":
        return Image.frombytes("LAB", image.size, image.tobytes())
    return image.convert(mode)


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    """The bytes of a file."""
    if options.get("save_all"):
        options = {"append_images": [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)], **options}
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def cases(every: int = 1) -> Iterator[Case]:
    """Two hundred files, or one in so many of them: every kind at several sizes, every size in several kinds."""
    for number in range(0, 200, every):
        format, mode, options = KINDS[number % len(KINDS)]
        width, height = SIZES[(number * 7 + number // len(KINDS)) % len(SIZES)]
        image = drawn(width, height, number, mode)
        budget = 1120 if number % 50 == 49 else BUDGETS[number % len(BUDGETS)]
        name = f"{number} {format} {mode} {width} x {height} at {budget}"
        yield Case(name, encoded(image, format, **options), budget)
