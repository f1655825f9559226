"""What safetensors files say of their tensors before any of them is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from redraft.checkpoint.formats.header_checks import LARGEST_HEADER_BYTES, LFS_POINTER, METADATA, POINTER, check_header
from redraft.core.errors import CheckpointError
from redraft.core.files import parse_object, read_json

# (what a file's header says by tensor, where its data begins)
Header = tuple[dict[str, Any], int]
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
    """The safetensors files of a directory.

    Attributes:
        directory: where they are.
        file_of: which of them holds each tensor.
        headers: of each file.
    """

    directory: Path
    file_of: Mapping[str, str]
    headers: Mapping[str, Header]

    @classmethod
    def of(cls, directory: Path) -> TensorFiles:
        """Reads headers only.

        Raises:
            CheckpointError: no weights, a shard that is missing or elsewhere, or a file that cannot be read.
        """
        own = directory / f"{STEM}.safetensors.index.json"
        index = own if own.exists() else directory / "model.safetensors.index.json"
        weight_map = _weight_map(index) if index.exists() else {}
        headers: dict[str, Header] = {}
        file_of: dict[str, str] = {}
        for name in sorted(set(weight_map.values())) or ["model.safetensors"]:
            headers[name] = read_header(directory / name)
            for tensor in headers[name][0]:
                if tensor == METADATA or weight_map.get(tensor, name) != name:
                    continue
                if tensor in file_of:
                    raise CheckpointError(f"{directory}: tensor {tensor!r} is in {file_of[tensor]} and in {name}")
                file_of[tensor] = name
        for tensor, name in weight_map.items():
            if tensor not in file_of:
                raise CheckpointError(f"{index} lists tensor {tensor!r}, which no file holds: {name} does not")
        return cls(directory, file_of, headers)


def _weight_map(index: Path) -> dict[str, str]:
    """Which file holds each tensor, by an index whose files lie in its own directory.

    The names are judged and not where they lead: the files of a Hub cache are links to elsewhere.
    """
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map")
    for tensor, name in weight_map.items():
        if not isinstance(name, str) or not name:
            raise CheckpointError(f"{index} names no file for tensor {tensor!r}, but {name!r:.80}")
    for name in set(weight_map.values()):
        if not _stays_inside(name):
            raise CheckpointError(f"{index} names the file {name!r:.80}, which is not in its directory")
    return weight_map


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return (
        name.isprintable()
        and "\\" not in name
        and not path.is_absolute()
        and not PureWindowsPath(name).drive
        and ".." not in path.parts
        and bool(path.name)
    )


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
    """The tensors of these files by name. Reads nothing; mapped files stay open as long as an entry lives.

    Args:
        files: of a directory.
        mapped: whether tensors that begin at a cache line share memory with their files; without it, and for others,
            `read` copies, and takes no address space for what is not read.
    """
    found: dict[str, Entry] = {}
    for file_name in sorted(set(files.file_of.values())):
        for entry in _entries_of(files.directory / file_name, files.headers[file_name], mapped):
            if files.file_of.get(entry.name) == file_name:
                found[entry.name] = entry
    return found


def _entries_of(path: Path, header_and_data: Header, mapped: bool) -> Iterator[Entry]:
    header, data = header_and_data
    file = _Mapped(path)
    for name, fields in header.items():
        if name == METADATA:
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


def read_header(path: Path) -> Header:
    """(the header of a safetensors file, where its data begins).

    Raises:
        CheckpointError: it does not exist, is cut short, is no safetensors file, or says of a tensor what cannot be.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            first = file.read(len(LFS_POINTER))
            if first == LFS_POINTER:
                raise CheckpointError(f"{path} is {POINTER}")
            length = int.from_bytes(first[:_LENGTH_BYTES], "little")
            data = _LENGTH_BYTES + length
            if len(first) < _LENGTH_BYTES or data > size:
                raise ValueError("its header is longer than the file")
            if length > LARGEST_HEADER_BYTES:
                raise ValueError(f"its header of {length} bytes is longer than {LARGEST_HEADER_BYTES}")
            file.seek(_LENGTH_BYTES)
            header = parse_object(file.read(length), f"the header of {path}")
        check_header(header, size - data)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist: redraft reads safetensors checkpoints") from None
    except (OSError, ValueError) as error:
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
