"""What the header of a safetensors file must keep to, so that no tensor is ever read from a wrong place.

The library checks the same where it maps a file; what is copied goes around it. Source: its README, "Format".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

LARGEST_HEADER_BYTES = 100 * 10**6
_LONGEST_NAME = 512
_FIELDS = {"dtype", "shape", "data_offsets"}
METADATA = "__metadata__"
LFS_POINTER = b"version https://git-lfs."
POINTER = "a Git LFS pointer, not the weights it stands for: fetch them with `git lfs pull`"
# Bits of one number, of everything that the format knows.
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


def check_header(header: Mapping[str, Any], data_bytes: int) -> None:
    """Every entry says what it is, and together they are the file's data: no hole, no overlap, nothing beyond.

    Args:
        header: of a file, parsed.
        data_bytes: what follows it in the file.

    Raises:
        ValueError: names the entry.
    """
    spans = []
    for name, entry in header.items():
        if name == METADATA:
            _check_metadata(entry)
            continue
        if len(name) > _LONGEST_NAME or not name.isprintable():
            raise ValueError(f"{name!r:.60} is no name of a tensor")
        if not isinstance(entry, dict) or entry.keys() != _FIELDS:
            raise ValueError(f"tensor {name!r} must say dtype, shape and data_offsets and nothing else")
        begin, end = _offsets(name, entry["data_offsets"])
        if end - begin != _nbytes(name, entry["dtype"], entry["shape"]):
            raise ValueError(f"tensor {name!r} has {end - begin} bytes, its shape and dtype ask for another number")
        spans.append((begin, end, name))
    spans.sort()
    at = 0
    for begin, end, name in spans:
        if begin != at:
            raise ValueError(f"tensor {name!r} begins at {begin}, the one before it ends at {at}")
        at = end
    if at != data_bytes:
        raise ValueError(f"its header speaks of {at} bytes, {data_bytes} follow it")


def _offsets(name: str, offsets: Any) -> tuple[int, int]:
    if isinstance(offsets, list) and len(offsets) == 2:
        begin, end = offsets
        if type(begin) is int and type(end) is int and 0 <= begin <= end:
            return begin, end
    raise ValueError(f"tensor {name!r} has data_offsets {offsets!r:.60}")


def _nbytes(name: str, dtype: Any, shape: Any) -> int:
    bits = _BITS.get(dtype) if isinstance(dtype, str) else None
    if bits is None:
        raise ValueError(f"tensor {name!r} has dtype {dtype!r:.60}, which safetensors does not have")
    if not isinstance(shape, list) or len(shape) > _LONGEST_NAME:
        raise ValueError(f"tensor {name!r} has shape {shape!r:.60}")
    for size in shape:
        if type(size) is not int or size < 0:
            raise ValueError(f"tensor {name!r} has shape {shape!r:.60}")
    whole, rest = divmod(math.prod(shape) * bits, 8)
    # Numbers of four or six bits must fill whole bytes.
    return -1 if rest else whole


def _check_metadata(metadata: Any) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError(f"{METADATA} must hold texts by name")
