"""Every kind of picture becomes what a person sees, and every kind of file that is none is one clear error."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from picture_files import drawn, encoded
from redraft.core.errors import ImageError, InputError
from redraft.vision.files import FORMATS, WEB_FORMATS, Limits, claimed_size
from redraft.vision.picture import Picture, picture_of

WIDTH, HEIGHT = 24, 16


def pixels_of(given, **options):
    return picture_of(given, **options).pixels


def plain(mode: str = "RGB") -> Image.Image:
    return drawn(WIDTH, HEIGHT, 3, mode)


def png(width: int, height: int, *chunks: tuple[bytes, bytes], depth: int = 8, colour: int = 2) -> bytes:
    """A PNG with this header, whatever stands in it."""
    header = (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    parts = [header, *chunks, (b"IEND", b"")]
    written = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format(format, tmp_path):
    data = encoded(plain(), format, **({"lossless": True} if format == "WEBP" else {}))
    wanted = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    (tmp_path / "picture").write_bytes(data)
    for given in (data, bytearray(data), memoryview(data), tmp_path / "picture", str(tmp_path / "picture")):
        assert np.array_equal(pixels_of(given), wanted)
    assert wanted.shape == (HEIGHT, WIDTH, 3)


def test_images_and_arrays_are_taken_as_they_are():
    image = plain()
    assert np.array_equal(pixels_of(image), np.array(image))
    array = np.array(image)
    made = picture_of(array)
    assert np.array_equal(made.pixels, array)
    array[:] = 0
    assert made.pixels.any()
    array = np.array(image)
    with pytest.raises(ValueError, match="read-only"):
        made.pixels[0] = 1
    assert picture_of(made) is made
    # Numbers in 0..1 would be black, and a plane of its own no colour.
    for wrong in (array / 255, array[..., 0], array[..., :2], array.astype(np.int32)):
        with pytest.raises(ImageError, match="must be .height, width, 3. of uint8"):
            picture_of(wrong)
    with pytest.raises(ImageError, match="a picture is a path, bytes, a Pillow image or an array"):
        picture_of(5)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_photos_stand_upright(orientation, format):
    """A camera stores what it saw turned the other way round, and says so."""
    undo = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE"}
    undo |= {6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"}
    # Flat quarters, so that no codec blurs which is which.
    upright = np.zeros((64, 96, 3), np.uint8)
    upright[:32, :48], upright[:32, 48:], upright[32:, :48] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    stored = Image.fromarray(upright)
    if orientation in undo:
        stored = stored.transpose(Image.Transpose[undo[orientation]])
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(stored, format, exif=exif)
    for given in (data, Image.open(io.BytesIO(data))):
        seen = pixels_of(given)
        assert seen.shape == upright.shape
        assert np.abs(seen.astype(int) - upright)[8:24, 8:40].max() < 8
        assert np.abs(seen.astype(int) - upright)[40:56, 8:40].max() < 8
        assert np.abs(seen.astype(int) - upright)[8:24, 56:88].max() < 8


def test_damaged_exif_leaves_a_picture_as_it_is_stored():
    data = encoded(plain(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert pixels_of(data).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa", "La"])
def test_alpha_is_seen_on_white(mode):
    clear = np.zeros((4, 6, 4), np.uint8)
    clear[:, 3:] = (10, 10, 10, 255)
    clear[:, :3] = (200, 200, 200, 0)
    image = Image.fromarray(clear)
    if mode == "PA":
        # Places in a palette, each with an alpha.
        image = Image.frombytes("PA", (6, 4), np.ascontiguousarray(clear[..., 2:]).tobytes())
        image.putpalette([value for grey in range(256) for value in (grey, grey, grey)])
    else:
        image = image.convert("LA").convert(mode) if mode == "La" else image.convert(mode)
    seen = pixels_of(image)
    assert (seen[:, :3] == 255).all()
    assert (seen[:, 3:] == 10).all()


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "I;16"])
def test_one_colour_that_is_transparent_is_white(mode):
    grey = np.full((4, 6), 40, np.uint8)
    grey[:, 3:] = 90
    image = Image.fromarray(grey)
    if mode == "P":
        image.putpalette([value for grey in range(256) for value in (grey, grey, grey)])
    elif mode == "RGB":
        image = image.convert("RGB")
    elif mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    key = {"P": 40, "L": 40, "RGB": (40, 40, 40), "I;16": 40 * 257}[mode]
    seen = pixels_of(encoded(image, "PNG", transparency=key))
    assert (seen[:, :3] == 255).all()
    assert (seen[:, 3:] == 90).all()


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_grey_of_sixteen_bits_keeps_its_high_bytes(format):
    ramp = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    seen = pixels_of(encoded(Image.fromarray(ramp), format))
    assert np.array_equal(seen[..., 0], ramp >> 8)
    assert (seen == seen[..., :1]).all()
    assert len(np.unique(seen)) == 256
    big = Image.frombytes("I;16B", (16, 16), ramp.astype(">u2").tobytes())
    assert np.array_equal(pixels_of(big), seen)


def test_colours_of_sixteen_bits_keep_their_high_bytes():
    row = b"\0" + bytes([1, 200, 2, 200, 3, 200])
    assert pixels_of(png(1, 1, (b"IDAT", zlib.compress(row)), depth=16)).tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_that_do_not_say_what_white_is_are_refused(mode):
    data = encoded(Image.new(mode, (4, 4), 7), "TIFF")
    for given in (data, Image.new(mode, (4, 4), 7)):
        with pytest.raises(ImageError, match="of 32 bits, of which it does not say what is white"):
            picture_of(given)


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_is_seen_and_said(format):
    first, second = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    lossless = {"lossless": True} if format == "WEBP" else {}
    several = encoded(first, format, save_all=True, append_images=[second], **lossless)
    made = picture_of(several)
    assert (made.pixels == (255, 0, 0)).all()
    # Pages are no frames.
    assert made.first_of_several == (format != "TIFF")
    assert not picture_of(encoded(first, format, **lossless)).first_of_several


def test_an_image_of_the_caller_is_left_as_it_was():
    image = plain("RGBA")
    before = image.tobytes()
    picture_of(image)
    assert image.tobytes() == before
    assert image.mode == "RGBA"


def test_digests_tell_sizes_and_pixels_apart():
    zeros = np.zeros((30, 150, 3), np.uint8)
    other = zeros.copy()
    other[-1, -1, 2] = 1
    given = [zeros, np.zeros((150, 30, 3), np.uint8), np.zeros((15, 300, 3), np.uint8), other]
    assert len({picture_of(array).digest for array in given}) == 4
    assert picture_of(zeros).digest == picture_of(Image.fromarray(zeros)).digest == Picture(pixels=zeros).digest


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the file is empty: no PNG, JPEG, WebP or GIF"),
        (b"hello", "no PNG, JPEG, WebP or GIF"),
        (b"%PDF-1.7 ...", "a PDF: give its pages as pictures; only"),
        (b'<?xml version="1.0"?>\n<svg xmlns="x">', "an SVG drawing: save it as PNG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "an HEIC photo: save it as JPEG"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1", "an AVIF picture: save it as PNG or JPEG"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp41", "a film: give frames of it as pictures"),
        (b"%!PS-Adobe-3.0 EPSF", "PostScript: give it as PNG"),
        (encoded(plain(), "BMP"), "a BMP file: only PNG, JPEG, WebP or GIF is read here"),
        (encoded(plain(), "TIFF"), "a TIFF file: only PNG, JPEG, WebP or GIF is read here"),
        (encoded(plain(), "PPM"), "no PNG, JPEG, WebP or GIF"),
        (encoded(plain(), "ICO"), "no PNG, JPEG, WebP or GIF"),
        (b"\x89PNG\r\n\x1a\n", "damaged or cut off"),
        (encoded(plain(), "PNG")[:-40], "damaged or cut off"),
        (encoded(plain(), "JPEG")[:-40], "damaged or cut off"),
        (encoded(plain(), "WEBP")[:-40], "damaged or cut off"),
        (encoded(plain(), "GIF")[:-40], "damaged or cut off"),
        (png(0, 5), "damaged or cut off|empty"),
        (png(20_000, 20_000), "400,000,000 pixels, at most 50,000,000"),
        (png(10_000, 9_000), "10,000 x 9,000 is 90,000,000 pixels"),
        (png(7_000, 7_500), "7,000 x 7,500 is 52,500,000 pixels"),
        (png(2**31 - 1, 2**31 - 1), "pixels"),
        (png(1, 70_000), "1 x 70,000 pixels, at most 65,535 a side"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_picture_is_one_error(data, said):
    with pytest.raises(ImageError, match=said) as caught:
        picture_of(data, formats=WEB_FORMATS, where="message 0, part 1")
    assert isinstance(caught.value, InputError)
    assert str(caught.value).startswith("message 0, part 1: ")
    assert caught.value.where == "message 0, part 1"
    assert "\n" not in str(caught.value)


def test_a_webp_is_measured_before_it_is_opened(monkeypatch):
    opened = []
    monkeypatch.setattr(Image, "open", lambda *_, **__: opened.append(1))
    for options in ({"lossless": True}, {"lossless": False}, {"lossless": True, "exif": b"Exif\0\0"}):
        data = encoded(plain(), "WEBP", **options)
        assert claimed_size(data) == (WIDTH, HEIGHT)
        with pytest.raises(ImageError, match="24 x 16 is 384 pixels, at most 100"):
            picture_of(data, limits=Limits(pixels=100))
    assert not opened


def test_thin_and_tiny_pictures_are_seen():
    for size in ((1, 1), (10_000, 1), (1, 10_000), (1, 65_535)):
        assert pixels_of(Image.new("RGB", size, (1, 2, 3))).shape == (size[1], size[0], 3)


def test_limits():
    small = Limits(nbytes=100, pixels=50, side=10)
    with pytest.raises(ImageError, match="bytes, at most 100$"):
        picture_of(encoded(plain(), "PNG"), limits=small)
    for given in (Image.new("RGB", (6, 9)), np.zeros((9, 6, 3), np.uint8)):
        with pytest.raises(ImageError, match="6 x 9 is 54 pixels, at most 50"):
            picture_of(given, limits=small)
        with pytest.raises(ImageError, match="the picture is empty"):
            picture_of(np.zeros((0, 6, 3), np.uint8))


def test_paths_that_are_no_pictures(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large.png").write_bytes(b"\x89PNG" + bytes(2000))
    (tmp_path / "text.png").write_text("hello")
    expected = {
        "missing.png": "No such file or directory",
        ".": "is a directory",
        "pipe": "is no regular file",
        "large.png": "2,004 bytes, at most 1,000",
        "text.png": "no PNG, JPEG, WebP, GIF, BMP or TIFF",
        "zero\0": "a path holds no zero byte",
    }
    for name, reason in expected.items():
        with pytest.raises(ImageError) as caught:
            picture_of(tmp_path / name, limits=Limits(nbytes=1000))
        assert reason in str(caught.value)
        assert str(caught.value).startswith(str(tmp_path / name))


def test_a_bomb_of_text_beside_the_pixels_is_no_crash():
    bomb = (b"zTXt", b"a\0\0" + zlib.compress(bytes(100 * 2**20), 9))
    rows = (b"IDAT", zlib.compress(b"\0\1\2\3"))
    with pytest.raises(ImageError, match="damaged"):
        picture_of(png(1, 1, bomb, rows))
    assert (pixels_of(png(1, 1, rows)) == [1, 2, 3]).all()


def test_threads_decode_side_by_side():
    data = [encoded(drawn(40, 30, seed), "PNG") for seed in range(6)]
    wanted = [pixels_of(some) for some in data]
    found: dict[int, np.ndarray] = {}
    threads = [threading.Thread(target=lambda n=n: found.setdefault(n, pixels_of(data[n % 6]))) for n in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[n], wanted[n % 6]) for n in range(24))


def test_pillow_is_imported_when_a_picture_comes():
    code = "import redraft, redraft.vision.picture, sys; print([n for n in sys.modules if n.startswith('PIL')])"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
