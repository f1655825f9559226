"""Frames of a video, a few of them, evenly spaced, as Gemma 4 looks at one. PyAV decodes, an extra of its own."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from redraft.core.checks import shown
from redraft.core.errors import ImageError
from redraft.vision.files import Limits, read_bytes

# By a file's first bytes: the container, named, so that nothing is opened as a playlist, which names other files.
_CONTAINERS = {"mp4": "mov", "webm": "matroska", "gif": "gif", "avi": "avi"}
WEB_KINDS = ("mp4", "webm", "gif")
KINDS = (*WEB_KINDS, "avi")
# Of hundreds of decoders, those of videos that people have.
_CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "mpeg4", "mjpeg", "gif", "prores", "libvpx", "libvpx-vp9")
# Where a file does not say how fast it runs; the reference's own.
_RATE = 24.0
_DAMAGED = "the video is damaged or cut off"
_NO_EXTRA = "videos need PyAV: pip install 'redraft[video]', or give frames as pictures"


@dataclass(frozen=True, kw_only=True)
class VideoLimits:
    """How large a video may be.

    Attributes:
        nbytes: of its file.
        seconds: that it runs.
        frames: in it.
        pixels: of a frame.
        decoded: pixels of all frames up to the last that is looked at, each of which has to be decoded.
    """

    nbytes: int = 64 * 2**20
    seconds: float = 600.0
    frames: int = 20_000
    pixels: int = 9_000_000
    decoded: int = 20_000_000_000


# What a minute of 1920 x 1080 at 30 frames a second takes, and a third more: a stranger's request should not decode
# for longer.
WEB_LIMITS = VideoLimits(decoded=5_000_000_000)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which frames of a video are looked at.

    Attributes:
        data: the file's content.
        total: frames in it.
        rate: frames a second.
        indices: of the frames, ascending.
    """

    data: bytes
    total: int
    rate: float
    indices: tuple[int, ...]

    @property
    def stamps(self) -> list[str]:
        """When each is shown, as minutes and seconds."""
        seconds = [index / self.rate for index in self.indices]
        return [f"{int(s // 60):02d}:{int(s % 60):02d}" for s in seconds]


def sampled(total: int, most: int) -> tuple[int, ...]:
    """The frames that are looked at, of so many: `most` of them, evenly spaced from the first on, or all.

    Source: transformers `default_sample_indices_fn`, which refuses a video of fewer.
    """
    return tuple(range(total)) if total <= most else tuple(i * total // most for i in range(most))


def planned(
    given: Any, frames: int, *, kinds: tuple[str, ...] = KINDS, limits: VideoLimits | None = None, where: str = ""
) -> Plan:
    """Reads a video as far as its frames can be counted; none is decoded.

    Args:
        given: a path, or a file's bytes.
        frames: the most that are looked at.
        kinds: which kinds of file are read, of `KINDS`; what comes over a network should be of `WEB_KINDS`.
        limits: how large it may be.
        where: what errors call it; a path names itself.

    Raises:
        ImageError: it cannot be read, is larger than that, or PyAV is not installed.
    """
    limits = limits or VideoLimits()
    if isinstance(given, str | os.PathLike):
        where = os.fspath(given)
        given = read_bytes(given, Limits(nbytes=limits.nbytes), where)
    if not isinstance(given, bytes | bytearray | memoryview):
        raise ImageError(f"a video is a path or the bytes of a file, got {shown(given)}", where)
    data = bytes(given)
    if len(data) > limits.nbytes:
        raise ImageError(f"{len(data):,} bytes, at most {limits.nbytes:,}", where)
    if _kind_of(data) not in kinds:
        names = ", ".join(kinds[:-1]) + f" or {kinds[-1]}"
        raise ImageError(f"no video of the kinds that are read here: {names}", where)
    with _opened(data, limits, where) as (container, stream):
        total = 0
        for packet in container.demux(stream):
            total += bool(packet.size)
            if total > limits.frames:
                raise ImageError(f"more than {limits.frames:,} frames: give a part of it", where)
        rate = float(stream.average_rate or 0) or _RATE
        width, height = stream.codec_context.width, stream.codec_context.height
    if not total:
        raise ImageError("the video holds no frame", where)
    if total / rate > limits.seconds:
        raise ImageError(f"{total / rate:,.0f} seconds, at most {limits.seconds:,.0f}: give a part of it", where)
    plan = Plan(data=data, total=total, rate=rate, indices=sampled(total, frames))
    if (pixels := width * height * (plan.indices[-1] + 1)) > limits.decoded:
        raise ImageError(f"{pixels:,} pixels would have to be decoded, at most {limits.decoded:,}", where)
    return plan


def frames_of(
    plan: Plan, *, limits: VideoLimits | None = None, where: str = ""
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The frames of a plan one after the other, upright, in red, green and blue.

    Raises:
        ImageError: damaged, or larger than it said.
    """
    limits = limits or VideoLimits()
    wanted, decoded, number = set(plan.indices), 0, -1
    with _opened(plan.data, limits, where) as (container, stream):
        for number, frame in enumerate(container.decode(stream)):
            decoded += frame.width * frame.height
            if frame.width * frame.height > limits.pixels or decoded > limits.decoded:
                raise ImageError("its frames are larger than it said", where)
            if number in wanted:
                turns = round(frame.rotation / 90)
                yield np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
            if number == plan.indices[-1]:
                return
    raise ImageError(f"it ends after {number + 1} of {plan.total} frames: {_DAMAGED}", where)


def _kind_of(data: bytes) -> str | None:
    """The kind that a file's first bytes claim."""
    if data[4:8] == b"ftyp" and data[8:12] not in (b"heic", b"heix", b"mif1", b"avif"):
        return "mp4"
    if data.startswith(b"\x1a\x45\xdf\xa3"):
        return "webm"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    return "avi" if data.startswith(b"RIFF") and data[8:12] == b"AVI " else None


@contextmanager
def _opened(data: bytes, limits: VideoLimits, where: str) -> Iterator[tuple[Any, Any]]:
    """(container, its first video stream) of PyAV; what it raises is one kind of error here."""
    try:
        import av
    except ImportError:
        raise ImageError(_NO_EXTRA, where) from None
    kind = _kind_of(data)
    assert kind is not None, "whoever plans has looked"
    try:
        with av.open(io.BytesIO(data), format=_CONTAINERS[kind], metadata_errors="replace") as container:
            if not container.streams.video:
                raise ImageError("the file holds no video", where)
            stream = container.streams.video[0]
            context = stream.codec_context
            if context.name not in _CODECS:
                raise ImageError(f"video in {context.name}: save it as H.264, VP9 or AV1", where)
            if context.width * context.height > limits.pixels:
                size = f"{context.width:,} x {context.height:,}"
                raise ImageError(f"frames of {size} pixels, at most {limits.pixels:,} of them", where)
            # Before a decoder makes room: a stream may say another size than its container.
            context.options = {"max_pixels": str(limits.pixels)}
            context.thread_count = 1
            yield container, stream
    except ImageError:
        raise
    except MemoryError:
        raise ImageError("the video does not fit into memory", where) from None
    except Exception as error:
        raise ImageError(_DAMAGED, where) from error
