"""What safetensors files say of their tensors before any of them is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from redraft.core.errors import CheckpointError
from redraft.core.files import read_json

_LENGTH_BYTES = 8
# Where a product's operands begin; the last bits of its sums depend on it.
CACHE_LINE = 64
# What files in our own layout are called; those of other tools are called model.
STEM = "redraft"
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class TensorFiles:
    """The safetensors files of a directory and which of them holds each tensor."""

    directory: Path
    file_of: Mapping[str, str]

    @classmethod
    def of(cls, directory: Path) -> TensorFiles:
        """Reads headers only.

        Raises:
            CheckpointError: no weights, a shard that is missing, or a file that is cut short.
        """
        own = directory / f"{STEM}.safetensors.index.json"
        index = own if own.exists() else directory / "model.safetensors.index.json"
        if index.exists():
            weight_map = read_json(index).get("weight_map")
            if not isinstance(weight_map, dict):
                raise CheckpointError(f"{index} has no weight_map")
            names = sorted(set(weight_map.values()))
        else:
            weight_map, names = None, ["model.safetensors"]
        file_of: dict[str, str] = {}
        for name in names:
            header, _ = read_header(directory / name)
            file_of.update(dict.fromkeys((key for key in header if key != "__metadata__"), name))
        for tensor in weight_map or ():
            if tensor not in file_of:
                raise CheckpointError(f"{index} lists tensor {tensor!r}, which no file holds")
        return cls(directory, file_of)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One tensor of a file.

    Attributes:
        name: in the file.
        dtype: as safetensors spells it: "BF16", "F8_E4M3", "U8".
        shape: of the stored numbers, which for packed ones is not the model's.
        nbytes: in the file.
        path, offset: the file, and where in it the tensor begins.
        read: (None) -> the tensor, mapped where files are; (e) -> its part e along the first dimension alone.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    path: Path
    offset: int
    read: Callable[[int | None], Tensor]

    def read_into(self, buffer: memoryview, at: int = 0) -> None:
        """Fills a buffer with the tensor's bytes from `at` on; nothing is mapped.

        Raises:
            CheckpointError: the file has become shorter.
        """
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.offset + at)
            done = 0
            while done < len(buffer):
                count = file.readinto(buffer[done:])
                if not count:
                    raise CheckpointError(f"{self.path} has become shorter: tensor {self.name!r} cannot be read")
                done += count

    def copied(self, part: int | None = None) -> Tensor:
        """What `read` gives, in memory of its own: the file's pages do not stay with the process."""
        shape = self.shape if part is None else self.shape[1:]
        found = torch.empty(shape, dtype=DTYPES[self.dtype])
        raw = found.view(-1).view(torch.uint8) if found.dim() else found.view(1).view(torch.uint8)
        self.read_into(raw.numpy().data, 0 if part is None else part * found.nbytes)
        return found


def entries(files: TensorFiles, *, mapped: bool = True) -> dict[str, Entry]:
    """The tensors of these files by name. Reads headers only; mapped files stay open as long as an entry lives.

    Args:
        files: of a directory.
        mapped: whether tensors that begin at a cache line share memory with their files; without it, and for others,
            `read` copies, and takes no address space for what is not read.

    Raises:
        CheckpointError: a file whose header cannot be read.
    """
    found: dict[str, Entry] = {}
    for file_name in sorted(set(files.file_of.values())):
        for entry in _entries_of(files.directory / file_name, mapped):
            if files.file_of.get(entry.name) == file_name:
                found[entry.name] = entry
    return found


def _entries_of(path: Path, mapped: bool) -> Iterator[Entry]:
    header, data = read_header(path)
    file = _Mapped(path)
    for name, fields in header.items():
        if name == "__metadata__":
            continue
        begin, end = fields["data_offsets"]
        entry = Entry(
            name=name,
            dtype=fields["dtype"],
            shape=tuple(fields["shape"]),
            nbytes=end - begin,
            path=path,
            offset=data + begin,
            read=file.reader(name),
        )
        # What begins inside a cache line is copied before it is multiplied; the file's pages would stay beside that.
        shares = mapped and entry.offset % CACHE_LINE == 0
        yield entry if shares or entry.dtype not in DTYPES else replace(entry, read=entry.copied)


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """(the header of a safetensors file, where its data begins).

    Raises:
        CheckpointError: it does not exist, is cut short, or is no safetensors file.
    """
    if not path.exists():
        raise CheckpointError(f"{path} does not exist: redraft reads safetensors checkpoints")
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            data = _LENGTH_BYTES + length
            if data > size:
                raise ValueError("its header is longer than the file")
            header = json.loads(file.read(length))
        ends = [fields["data_offsets"][1] for name, fields in header.items() if name != "__metadata__"]
        if data + max(ends, default=0) != size:
            raise ValueError(f"its header speaks of {data + max(ends, default=0)} bytes, it has {size}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): download or copy it again") from None
    return header, data


class _Mapped:
    """A memory-mapped file, opened at the first read: parsing a header of 47,000 tensors for each would take hours."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None

    def reader(self, name: str) -> Callable[[int | None], Tensor]:
        def read(part: int | None) -> Tensor:
            file = self._opened()
            return file.get_tensor(name) if part is None else file.get_slice(name)[part : part + 1][0]

        return read

    def _opened(self) -> Any:
        if self._file is None:
            try:
                self._file = safe_open(str(self._path), framework="pt", device="cpu")
            except (SafetensorError, OSError) as error:
                raise CheckpointError(f"{self._path} cannot be read ({error}): download or copy it again") from None
        return self._file
