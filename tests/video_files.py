"""Small videos, made here."""

from __future__ import annotations

import io
from typing import Any

import numpy as np


def grey(frames: int, number: int, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    """[height, width, 3]: a frame that says by its grey which it is, with a red corner."""
    pixels = np.full((size[1], size[0], 3), 255 * number // max(1, frames - 1), np.uint8)
    pixels[:16, :16] = 255, 0, 0
    return pixels


def video(
    frames: int, *, codec: str = "mpeg4", container: str = "mp4", rate: int = 8, size: tuple[int, int] = (64, 48)
) -> bytes:
    """A file of `grey` frames."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        stream: Any = out.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(grey(frames, number, size), format="rgb24")
            out.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        out.mux(stream.encode())
    return buffer.getvalue()


def turned(data: bytes) -> bytes:
    """The same mp4 with a note that it is to be shown a quarter turn clockwise, as a phone held upright writes it."""
    at = data.index(b"tkhd") + 4
    # Version 0: flags, times, track, duration, layer, volume, then nine numbers.
    matrix = at + 4 + 20 + 8 + 8
    one, none = (0x10000).to_bytes(4, "big"), bytes(4)
    numbers = [none, one, none, (-0x10000).to_bytes(4, "big", signed=True), none, none, none, none]
    return data[:matrix] + b"".join(numbers) + data[matrix + 32 :]
