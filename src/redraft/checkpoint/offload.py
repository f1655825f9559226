"""Experts that stay in their files: a layer's are read while the layers before it compute.

A canvas touches most experts of a layer, so whole layers are read, in the order in which a forward comes to them, into
two buffers by turns. Nothing is mapped: what a process may address bounds its buffers only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from redraft.checkpoint.formats.headers import DTYPES, Entry
from redraft.checkpoint.source import Source
from redraft.checkpoint.stored import StoredTensor
from redraft.core.errors import CheckpointError
from redraft.kernels.experts import experts
from redraft.kernels.matrices.float8 import Float8Matrix
from redraft.kernels.matrices.int4 import Int4Matrix
from redraft.kernels.matrices.int8 import Int8Matrix
from redraft.model.backbone import Backbone
from redraft.placement.quantized import experts_of

# One is in use while the next layer arrives in the other.
BUFFERS = 2


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where the parts of one layer's experts lie, by parameter and part ("" for a plain tensor)."""

    parts: Mapping[tuple[str, str], Entry]

    @property
    def nbytes(self) -> int:
        return sum(entry.nbytes for entry in self.parts.values())


class ExpertReader:
    """Reads the experts of some layers over and over, one layer ahead of need.

    Attributes:
        bytes_read: since it was made.
    """

    def __init__(self, places: Mapping[int, _Place], *, drop: bool) -> None:
        self.places, self._drop = places, drop
        self._next = dict(zip(places, [*list(places)[1:], next(iter(places))], strict=True))
        size = max(place.nbytes for place in places.values())
        self._buffers = [torch.empty(size, dtype=torch.uint8) for _ in range(min(BUFFERS, len(places)))]
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="experts")
        self._coming: tuple[int, Future[dict[tuple[str, str], Tensor]]] | None = None
        self._turn = 0
        self.bytes_read = 0

    def take(self, layer: int) -> dict[tuple[str, str], Tensor]:
        """The parts of a layer's experts, valid until the next call; starts on the layer after it."""
        if self._coming is None or self._coming[0] != layer:
            self._start(layer)
        assert self._coming is not None
        parts = self._coming[1].result()
        if len(self._buffers) > 1:
            self._start(self._next[layer])
        return parts

    def _start(self, layer: int) -> None:
        if self._coming is not None:
            # A forward that broke off left a reading under way; its buffer is free once that has ended.
            self._coming[1].exception()
        buffer = self._buffers[self._turn % len(self._buffers)]
        self._turn += 1
        self._coming = (layer, self._thread.submit(self._read, self.places[layer], buffer))

    def _read(self, place: _Place, buffer: Tensor) -> dict[tuple[str, str], Tensor]:
        parts, at, raw = {}, 0, memoryview(buffer.numpy().data)
        for key, entry in place.parts.items():
            piece = raw[at : at + entry.nbytes]
            entry.read_into(piece)
            if self._drop:
                # Read in a circle, pages that do not all fit would push each other out before they are read again.
                forget(entry)
            parts[key] = buffer[at : at + entry.nbytes].view(DTYPES[entry.dtype]).view(entry.shape)
            at += entry.nbytes
        self.bytes_read += at
        return parts


def forget(entry: Entry) -> None:
    """Lets the system reuse the memory that holds a tensor's part of its file."""
    if hasattr(os, "posix_fadvise"):
        with entry.path.open("rb") as file:
            os.posix_fadvise(file.fileno(), entry.offset, entry.nbytes, os.POSIX_FADV_DONTNEED)


class StreamedExperts(nn.Module):
    """A layer's experts that are read from their file for each forward."""

    def __init__(self, reader: ExpertReader, layer: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.reader, self.layer, self.dtype = reader, layer, dtype

    def forward(
        self, x: Float[Tensor, "N D"], index: Int[Tensor, "N A"], weight: Float[Tensor, "N A"]
    ) -> Float[Tensor, "N D"]:
        parts = self.reader.take(self.layer)
        if ("gate_up_proj", "") in parts:
            wide, narrow = (parts[name, ""].to(self.dtype) for name in ("gate_up_proj", "down_proj"))
            return experts(x, index, weight, wide, narrow)
        return experts_of(_matrix(parts, "gate_up_proj"), _matrix(parts, "down_proj"))(x, index, weight)


def _matrix(parts: Mapping[tuple[str, str], Tensor], name: str) -> Int4Matrix | Int8Matrix | Float8Matrix:
    row_scale = parts[name, "row_scale"]
    if (name, "int4") in parts:
        return Int4Matrix(data=parts[name, "int4"], scale=parts[name, "int4_scale"], row_scale=row_scale)
    if (name, "int8") in parts:
        return Int8Matrix(data=parts[name, "int8"], scale=row_scale)
    return Float8Matrix(data=parts[name, "fp8"], scale=row_scale)


def stream_experts(
    backbone: Backbone, source: Source, tensors: Mapping[str, StoredTensor], dtype: torch.dtype
) -> ExpertReader:
    """Replaces the experts of some layers by ones that are read when they are needed.

    Args:
        backbone: whose modules are replaced.
        source: an open checkpoint, in our own layout or in plain floating point.
        tensors: of these experts, by parameter.
        dtype: of activations.

    Raises:
        CheckpointError: a form that cannot be multiplied as it lies in its file.
    """
    found: dict[int, dict[tuple[str, str], Entry]] = {}
    for parameter, tensor in tensors.items():
        layer, name = int(parameter.split(".")[1]), parameter.rpartition(".")[2]
        own = found.setdefault(layer, {})
        for file_name in tensor.files:
            entry = source.entries.get(file_name)
            if entry is None or entry.dtype not in DTYPES or not (source.quantised or file_name == tensor.name):
                raise CheckpointError(
                    f"{source.path}: experts in the form {tensor.form!r} cannot be left on disk: "
                    "run `redraft quantize` first"
                )
            own[name, file_name.rpartition(".")[2] if source.quantised and tensor.matrix is not None else ""] = entry
    places = {layer: _Place(parts=found[layer]) for layer in sorted(found)}
    total = sum(place.nbytes for place in places.values())
    reader = ExpertReader(places, drop=total > available_bytes())
    for layer in places:
        backbone.layers[layer].experts = StreamedExperts(reader, layer, dtype)
    return reader


def available_bytes() -> int:
    """Memory that is free or holds what can be read again; the machine's whole where the system does not say."""
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":") for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
