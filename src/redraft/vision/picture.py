"""A picture in memory, whatever it came from: a file, bytes, a Pillow image or an array."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from redraft.core.checks import shown
from redraft.core.errors import ImageError
from redraft.vision.files import FORMATS, Limits, read_bytes, why_unread

if TYPE_CHECKING:
    from PIL.Image import Image

# What makes pixels of a file. Another version of it may make others, which are then another picture.
_VERSION = b"redraft picture 1"


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """What a person sees of a picture: upright, on white, in red, green and blue.

    Attributes:
        pixels: [H, W, 3], 0..255; read-only.
        first_of_several: whether its file holds more frames, of which this is the first.
    """

    pixels: UInt8[np.ndarray, "H W 3"]
    first_of_several: bool = False

    def __post_init__(self) -> None:
        # The digest is of what it was made with.
        pixels = self.pixels.view()
        pixels.setflags(write=False)
        object.__setattr__(self, "pixels", pixels)

    @cached_property
    def digest(self) -> bytes:
        """Tells pictures apart: equal where sizes and all pixels are."""
        height, width = self.pixels.shape[:2]
        digest = hashlib.sha256(_VERSION + height.to_bytes(8, "little") + width.to_bytes(8, "little"))
        digest.update(self.pixels.tobytes())
        return digest.digest()


def picture_of(
    given: Any, *, formats: tuple[str, ...] = FORMATS, limits: Limits | None = None, where: str = ""
) -> Picture:
    """The picture that somebody gave.

    Args:
        given: a path, a file's bytes, a Pillow image, or an array [H, W, 3] of uint8. A string is a path.
        formats: which kinds of file are read, of `FORMATS`; what comes over a network should be of `WEB_FORMATS`.
        limits: how large it may be.
        where: what errors call it; a path names itself.

    Raises:
        ImageError: it cannot be read, or is larger than that.
    """
    limits = limits or Limits()
    if isinstance(given, Picture):
        return given
    if isinstance(given, str | os.PathLike):
        where = where or os.fspath(given)
        given = read_bytes(given, limits, where)
    if isinstance(given, bytes | bytearray | memoryview):
        data = bytes(given)
        if len(data) > limits.nbytes:
            raise ImageError(f"{len(data):,} bytes, at most {limits.nbytes:,}", where)
        if (reason := why_unread(data, formats)) is not None:
            raise ImageError(reason, where)
        from redraft.vision.decode import decoded

        pixels, first_of_several = decoded(data, formats, limits, where)
        return Picture(pixels=pixels, first_of_several=first_of_several)
    if isinstance(given, np.ndarray):
        return Picture(pixels=_of_array(given, limits, where))
    if _is_pillow(given):
        from redraft.vision.decode import seen

        return Picture(pixels=seen(given, limits, where))
    raise ImageError(
        f"a picture is a path, bytes, a Pillow image or an array [height, width, 3] of uint8, got {shown(given)}", where
    )


def _of_array(given: np.ndarray, limits: Limits, where: str) -> np.ndarray:
    if given.ndim != 3 or given.shape[2] != 3 or given.dtype != np.uint8:
        # Numbers in 0..1 would be taken for black.
        raise ImageError(
            f"an array must be [height, width, 3] of uint8, got {list(given.shape)} of {given.dtype}", where
        )
    limits.check_size(given.shape[1], given.shape[0], where)
    return np.ascontiguousarray(given).copy()


def _is_pillow(given: object) -> bool:
    """Whether it is a Pillow image, without importing Pillow for what is none."""
    if not any(kind.__module__.partition(".")[0] == "PIL" for kind in type(given).__mro__):
        return False
    from PIL import Image as pillow

    image: type[Image] = pillow.Image
    return isinstance(given, image)
