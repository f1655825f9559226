"""The container of GGUF: metadata and where each tensor lies. Source: ggml's docs/gguf.md, version 2 and 3.

The `gguf` package reads the same, value by value in Python objects, which takes most of a minute for a vocabulary of
262,144 tokens; it is asked for what it alone knows, the block formats.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from redraft.checkpoint.formats.header_checks import LFS_POINTER, POINTER
from redraft.checkpoint.unread import GGUF_MAGIC
from redraft.core.errors import CheckpointError

T = TypeVar("T")
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_ALIGNMENT, _LARGEST_ALIGNMENT = 32, 2**16
# Of the published files no array holds arrays, and no tensor has more than three dimensions.
_DEEPEST, _MOST_DIMENSIONS = 2, 4


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """A tensor of a GGUF file.

    Attributes:
        name: in the file.
        shape: as the model has it, outermost first.
        type_name: "F32", "Q4_K".
        data: [..., bytes of a row], memory-mapped.
    """

    name: str
    shape: tuple[int, ...]
    type_name: str
    data: np.ndarray

    def read(self, part: int | None = None) -> Tensor:
        """The tensor in float32, or one part along its first dimension.

        Raises:
            CheckpointError: a type that the `gguf` package cannot decode.
        """
        gguf = _gguf()
        data = self.data if part is None else self.data[part]
        try:
            values = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[self.type_name])
        except NotImplementedError:
            raise CheckpointError(f"tensor {self.name!r} has type {self.type_name}, which gguf cannot decode") from None
        # A copy where the values are still the file's: those are read-only.
        return torch.from_numpy(np.array(values, dtype=np.float32, copy=None if values.flags.writeable else True))


def read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, Blocks]]:
    """(metadata, tensors by name) of a file.

    Raises:
        CheckpointError: it does not exist, is no GGUF file, is cut short, or says what cannot be; or `gguf` is not
            installed.
    """
    _gguf()
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        cursor = _Cursor(mapped)
        if cursor.take(4) != GGUF_MAGIC:
            pointer = mapped[: len(LFS_POINTER)] == LFS_POINTER
            raise CheckpointError(f"{path} is {POINTER if pointer else 'no GGUF file'}")
        version, count, keys = cursor.number("I"), cursor.number("Q"), cursor.number("Q")
        if version not in (2, 3):
            raise CheckpointError(f"{path}: GGUF version {version} is not supported")
        metadata = _by_name((cursor.string(), cursor.value(cursor.number("I"))) for _ in range(keys))
        headers = _by_name((header[0], header) for header in (cursor.tensor() for _ in range(count)))
        start = _aligned(cursor.position, metadata.get("general.alignment", _ALIGNMENT))
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except (OSError, ValueError, struct.error) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): download or copy it again") from None
    found = {name: _blocks(path, mapped, start, *header) for name, header in headers.items()}
    _refuse_overlaps(path, [(headers[name][3], blocks.data.nbytes, name) for name, blocks in found.items()])
    return metadata, found


def _by_name(pairs: Iterable[tuple[str, T]]) -> dict[str, T]:
    found: dict[str, T] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r:.60} is said twice")
        found[name] = value
    return found


def _aligned(position: int, alignment: Any) -> int:
    """Where the data begins: the next multiple of the alignment, which the format wants to be a power of two."""
    if type(alignment) is not int or not 0 < alignment <= _LARGEST_ALIGNMENT or alignment & (alignment - 1):
        raise ValueError(f"general.alignment is {alignment!r:.60}")
    return -(-position // alignment) * alignment


def _refuse_overlaps(path: Path, spans: list[tuple[int, int, str]]) -> None:
    end, before = 0, ""
    for begin, nbytes, name in sorted(spans):
        if begin < end:
            raise CheckpointError(f"{path}: tensors {before!r} and {name!r} overlap: download or copy it again")
        end, before = begin + nbytes, name


def _blocks(
    path: Path, mapped: mmap.mmap, start: int, name: str, shape: tuple[int, ...], kind: int, offset: int
) -> Blocks:
    gguf = _gguf()
    try:
        type_ = gguf.GGMLQuantizationType(kind)
    except ValueError:
        raise CheckpointError(f"{path}: tensor {name!r} has type {kind}, which gguf does not know") from None
    elements, size = gguf.GGML_QUANT_SIZES[type_]
    if shape[-1] % elements:
        raise CheckpointError(f"{path}: tensor {name!r} has rows of {shape[-1]}, {type_.name} needs {elements}s")
    stored = (*shape[:-1], shape[-1] // elements * size)
    if start + offset + math.prod(stored) > len(mapped):
        raise CheckpointError(f"{path} is cut short in tensor {name!r}: download or copy it again")
    data = np.frombuffer(mapped, np.uint8, math.prod(stored), start + offset).reshape(stored)
    return Blocks(name=name, shape=shape, type_name=type_.name, data=data)


class _Cursor:
    """Reads on from where it is."""

    def __init__(self, mapped: mmap.mmap) -> None:
        self._mapped = mapped
        self.position = 0

    def take(self, count: int) -> bytes:
        begin, self.position = self.position, self.position + count
        if self.position > len(self._mapped):
            raise ValueError("it is cut short in its header")
        return self._mapped[begin : self.position]

    def number(self, kind: str) -> Any:
        return struct.unpack(f"<{kind}", self.take(struct.calcsize(f"<{kind}")))[0]

    def string(self) -> str:
        return self.take(self.number("Q")).decode("utf-8", "replace")

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            if depth == _DEEPEST:
                raise ValueError("its arrays are nested too deeply")
            kind, count = self.number("I"), self.number("Q")
            if kind in _NUMBERS:
                code = _NUMBERS[kind]
                return list(struct.unpack(f"<{count}{code}", self.take(count * struct.calcsize(f"<{code}"))))
            return [self.value(kind, depth + 1) for _ in range(count)]
        if kind not in _NUMBERS:
            raise ValueError(f"a value of type {kind}")
        return self.number(_NUMBERS[kind])

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """(name, shape, type, offset); files list the innermost dimension first."""
        name = self.string()
        dimensions = self.number("I")
        if not 0 < dimensions <= _MOST_DIMENSIONS:
            raise ValueError(f"tensor {name!r:.60} has {dimensions} dimensions")
        shape = tuple(self.number("Q") for _ in range(dimensions))[::-1]
        if 0 in shape:
            raise ValueError(f"tensor {name!r:.60} is empty")
        return name, shape, self.number("I"), self.number("Q")


def _gguf() -> Any:
    try:
        import gguf
    except ImportError:
        raise CheckpointError("reading GGUF files needs the gguf package: pip install 'redraft[formats]'") from None
    return gguf
