"""Decoding with Pillow: of every format and mode, what a person sees."""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFile

from redraft.core.errors import ImageError
from redraft.vision.files import Limits, claimed_size

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DAMAGED = "the picture is damaged or cut off"
_WHITE = 255
# A file's frames, for whoever asks what else there is. A photo's second picture is a preview or the other eye's.
_ANIMATED = ("GIF", "PNG", "WEBP")
# One picture is decoded at a time, whoever asks: the largest takes some 660 MB on the way, and what Pillow has to say
# beside its errors is held back for the whole process while it does.
_TURN = threading.Lock()


def decoded(
    data: bytes, formats: tuple[str, ...], limits: Limits, where: str
) -> tuple[UInt8[np.ndarray, "H W 3"], bool]:
    """(pixels of the first frame, whether there are more) of a file's content.

    Raises:
        ImageError: damaged, empty, too large, or of a mode that says too little.
    """
    if (size := claimed_size(data)) is not None:
        limits.check_size(*size, where)
    with _pillow(where):
        try:
            image = Image.open(io.BytesIO(data), formats=formats)
        except Image.DecompressionBombError as error:
            claimed = re.search(r"\d+", str(error))
            many = f"{int(claimed[0]):,}" if claimed else "too many"
            raise ImageError(f"{many} pixels, at most {limits.pixels:,}", where) from None
        # Before anything is decoded: a header of a hundred bytes may claim any size.
        limits.check_size(*image.size, where)
        image.load()
        pixels = _seen(image, limits, where)
        return pixels, image.format in _ANIMATED and _has_more(image)


def seen(image: Image.Image, limits: Limits, where: str) -> UInt8[np.ndarray, "H W 3"]:
    """The pixels of a Pillow image, as `decoded` has those of a file; the image is left as it was.

    Raises:
        ImageError: as of `decoded`.
    """
    limits.check_size(*image.size, where)
    with _pillow(where):
        return _seen(image.copy(), limits, where)


@contextmanager
def _pillow(where: str) -> Iterator[None]:
    """Pillow at work: its decoders raise a dozen kinds of errors on damaged files, which are one here."""
    with _TURN, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
        try:
            yield
        except ImageError:
            raise
        except MemoryError:
            raise ImageError("the picture does not fit into memory", where) from None
        except Exception as error:
            raise ImageError(_DAMAGED, where) from error
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def _seen(image: Image.Image, limits: Limits, where: str) -> UInt8[np.ndarray, "H W 3"]:
    # Read before what follows makes a new image; a TIFF has been turned by Pillow when it was loaded.
    turn = _TURNS.get(_orientation(image))
    flat = _flat(image, where)
    upright = flat if turn is None else flat.transpose(turn)
    limits.check_size(*upright.size, where)
    return np.array(upright)


def _flat(image: Image.Image, where: str) -> Image.Image:
    """Red, green and blue of 8 bits, on white."""
    if image.mode.startswith("I;16"):
        return _of_sixteen_bits(image)
    if image.mode in ("I", "F"):
        kind = "whole numbers" if image.mode == "I" else "fractions"
        raise ImageError(f"{kind} of 32 bits, of which it does not say what is white: save it with 8 or 16 bits", where)
    if image.has_transparency_data:
        # Pillow goes from grey with its alpha multiplied in by way of grey without.
        above = image.convert("LA") if image.mode == "La" else image
        above = above if above.mode == "RGBA" else above.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", above.size, (_WHITE,) * 4), above).convert("RGB")
    try:
        return image.convert("RGB")
    except ValueError:
        raise ImageError(f"in colours of the kind {image.mode}: save it as RGB", where) from None


def _orientation(image: Image.Image) -> Any:
    """The EXIF number that says how the camera was held; None where there is none, or nobody can read it."""
    try:
        return image.getexif().get(_ORIENTATION)
    except Exception:
        # Notes beside a picture that are damaged do not make it one that cannot be seen.
        return None


def _of_sixteen_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits, by its high bytes. Pillow's own conversion would make everything above 255 white."""
    grey = np.array(image)
    key = image.info.get("transparency")
    high = (grey.astype(np.uint16) >> 8).astype(np.uint8)
    if isinstance(key, int):
        high[grey == key] = _WHITE
    return Image.fromarray(high).convert("RGB")


def _has_more(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:
        # The first frame is whole, and more was not asked for.
        return False
