"""What of a file can be said before anything decodes it."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from redraft.core.errors import ImageError

WEB_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
# BMP and TIFF have many variants, and decoders that few look at: only for what the user's own machine holds.
FORMATS = (*WEB_FORMATS, "BMP", "TIFF")
_SHOWN = {"WEBP": "WebP"}
# Whom a file's first bytes betray. HEIC and AVIF differ in the name behind "ftyp".
_BEGINS = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)
_NOT_READ = (
    (b"%PDF", "a PDF: give its pages as pictures"),
    (b"%!PS", "PostScript: give it as PNG"),
    (b"8BPS", "a file of Photoshop: save it as PNG"),
    (b"\xff\x0a", "a JPEG XL picture: save it as PNG or JPEG"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture: save it as PNG or JPEG"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture: save it as PNG or JPEG"),
    (b"PK\x03\x04", "an archive: give the pictures in it"),
    (b"\x1f\x8b", "an archive: give the pictures in it"),
)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How large a picture may be.

    Attributes:
        nbytes: of its file.
        pixels: its height times its width.
        side: the longer of the two, in pixels. Thin ones grow before they shrink.
    """

    nbytes: int = 64 * 2**20
    pixels: int = 50_000_000
    side: int = 65_535

    def check_size(self, width: int, height: int, where: str) -> None:
        """Refuses what is empty or too large.

        Raises:
            ImageError: says by how much.
        """
        if width < 1 or height < 1:
            raise ImageError("the picture is empty", where)
        if width * height > self.pixels:
            raise ImageError(f"{width:,} x {height:,} is {width * height:,} pixels, at most {self.pixels:,}", where)
        if max(width, height) > self.side:
            raise ImageError(f"{width:,} x {height:,} pixels, at most {self.side:,} a side", where)


def read_bytes(path: str | os.PathLike[str], limits: Limits, where: str) -> bytes:
    """The content of a regular file.

    Raises:
        ImageError: it is none, cannot be read or is too large.
    """
    try:
        # Without waiting for whoever would write into a pipe.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(file.fileno())
            if stat.S_ISDIR(status.st_mode):
                raise ImageError("is a directory, not a picture", where)
            if not stat.S_ISREG(status.st_mode):
                raise ImageError("is no regular file", where)
            if status.st_size > limits.nbytes:
                raise ImageError(f"{status.st_size:,} bytes, at most {limits.nbytes:,}", where)
            return file.read(limits.nbytes + 1)
    except OSError as error:
        if Path(path).is_dir():
            raise ImageError("is a directory, not a picture", where) from None
        raise ImageError(f"cannot be read: {error.strerror or error}", where) from None
    except ValueError:
        raise ImageError("cannot be read: a path holds no zero byte", where) from None


def kind_of(data: bytes) -> str | None:
    """The format that a file's first bytes claim, of `FORMATS`; None for any other."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return next((kind for begin, kind in _BEGINS if data.startswith(begin)), None)


def claimed_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) that a WebP's header claims; None for other formats, of which Pillow reads no more on opening.

    Of a WebP it takes room for two whole pictures at once.

    Source: RFC 9649.
    """
    if kind_of(data) != "WEBP" or len(data) < 30:
        return None
    if data[12:16] == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if data[12:16] == b"VP8L":
        packed = int.from_bytes(data[21:25], "little")
        return 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF


def why_unread(data: bytes, formats: tuple[str, ...]) -> str | None:
    """Why a file of this content is not decoded, as an error says it; None where it is of one of `formats`."""
    names = [_SHOWN.get(name, name) for name in formats]
    wanted = ", ".join(names[:-1]) + f" or {names[-1]}" if len(names) > 1 else names[0]
    if not data:
        return f"the file is empty: no {wanted}"
    kind = kind_of(data)
    if kind in formats:
        return None
    if kind is not None:
        return f"a {_SHOWN.get(kind, kind)} file: only {wanted} is read here"
    what = _name_of(data)
    return f"no {wanted}" if what is None else f"{what}; only {wanted} is read here"


def _name_of(data: bytes) -> str | None:
    """What a file is that is of no format read here."""
    if data[4:8] == b"ftyp":
        brands = data[8:32]
        if b"avif" in brands or b"avis" in brands:
            return "an AVIF picture: save it as PNG or JPEG"
        if any(brand in brands for brand in (b"heic", b"heix", b"hevc", b"heim", b"mif1", b"msf1")):
            return "an HEIC photo: save it as JPEG"
        return "a film: give frames of it as pictures"
    for begin, what in _NOT_READ:
        if data.startswith(begin):
            return what
    if data[:1000].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") and b"<svg" in data[:4000].lower():
        return "an SVG drawing: save it as PNG"
    return None
