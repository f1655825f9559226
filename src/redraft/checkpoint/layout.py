"""Our own quantised layout in safetensors files; docs/quantised.md describes it.

A matrix `X` of a checkpoint becomes `X.int4`, `X.int4_scale` and `X.row_scale`, or `X.int8` and `X.row_scale`, or
`X.fp8` and `X.row_scale`. Other tensors keep name and dtype. A file's metadata hold the SHA-256 of each of its tensors.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from redraft.checkpoint.formats.header_checks import METADATA
from redraft.checkpoint.formats.headers import Entry, read_header
from redraft.checkpoint.formats.modules import plain
from redraft.checkpoint.stored import StoredTensor
from redraft.core.errors import CheckpointError
from redraft.core.files import parse_object
from redraft.kernels.matrices import Matrix
from redraft.kernels.matrices.float8 import Float8Matrix
from redraft.kernels.matrices.int4 import BYTES, COLUMNS, ROWS, Int4Matrix
from redraft.kernels.matrices.int8 import Int8Matrix

METHOD, VERSION = "redraft", 1
CHECKSUMS = "redraft_sha256"
# The parts of each form beside its key.
_PARTS = {"int4": ("int4_scale", "row_scale"), "int8": ("row_scale",), "fp8": ("row_scale",)}
_DTYPES = {"int4": "U8", "int4_scale": "U8", "int8": "I8", "fp8": "F8_E4M3", "row_scale": "F32"}
_CHUNK_BYTES = 1 << 24
_SUFFIXES = set(_DTYPES)


def quantization_config(experts: str, rest: str) -> dict[str, Any]:
    """What config.json says under that name."""
    return {"quant_method": METHOD, "version": VERSION, "experts": experts, "rest": rest}


def check_described(config: Mapping[str, Any], source: object) -> None:
    """Refuses a layout that is newer than this code, or that does not say what it is.

    Raises:
        CheckpointError: names both versions, or the field.
    """
    version = config.get("version")
    if version != VERSION:
        raise CheckpointError(
            f"{source}: quantised layout version {version!r}, this redraft reads {VERSION}: update redraft"
        )
    for name in ("experts", "rest"):
        if config.get(name) not in _PARTS:
            known = ", ".join(map(repr, _PARTS))
            raise CheckpointError(
                f"{source}: quantization_config.{name} is {config.get(name)!r}, expected one of {known}"
            )


def parts_of(name: str, matrix: Matrix) -> dict[str, Tensor]:
    """The tensors that a file holds of a matrix."""
    if isinstance(matrix, Int4Matrix):
        return {f"{name}.int4": matrix.data, f"{name}.int4_scale": matrix.scale, f"{name}.row_scale": matrix.row_scale}
    key = "int8" if isinstance(matrix, Int8Matrix) else "fp8"
    return {f"{name}.{key}": matrix.data, f"{name}.row_scale": matrix.scale.float()}


def quantised_tensors(entries: Mapping[str, Entry]) -> dict[str, StoredTensor]:
    """The tensors of files in this layout, by the names that the unquantised ones have.

    Raises:
        CheckpointError: a part without its partner, or of another shape or dtype than its partner asks for.
    """
    modules: dict[str, dict[str, Entry]] = defaultdict(dict)
    found: dict[str, StoredTensor] = {}
    for name, entry in entries.items():
        module, _, part = name.rpartition(".")
        if part in _SUFFIXES:
            modules[module][part] = entry
        else:
            found[name] = plain(entry, name)
    for name, parts in modules.items():
        found[name] = _quantised(name, parts)
    return found


def _quantised(name: str, parts: Mapping[str, Entry]) -> StoredTensor:
    form = next((key for key in _PARTS if key in parts), None)
    if form is None or set(parts) != {form, *_PARTS[form]}:
        missing = sorted(set(_PARTS[form]) - set(parts)) if form else sorted(_PARTS)
        raise CheckpointError(
            f"tensor {f'{name}.{missing[0] if missing else form}'!r} is missing or has surplus partners"
        )
    for part, entry in parts.items():
        if entry.dtype != _DTYPES[part]:
            raise CheckpointError(f"tensor {entry.name!r} holds {entry.dtype}, expected {_DTYPES[part]}")
    shape = _shape(parts, form)

    def matrix() -> Matrix:
        # Int8 matrices are packed anew, so their pages are not kept; the embedding is multiplied as it lies.
        keeps = form != "int8" or name.endswith("embed_tokens.weight")
        data, scale = parts[form].read(None) if keeps else parts[form].copied(), parts["row_scale"].copied()
        if form == "int4":
            return Int4Matrix(data=data, scale=parts["int4_scale"].read(None), row_scale=scale)
        return Int8Matrix(data=data, scale=scale) if form == "int8" else Float8Matrix(data=data, scale=scale)

    return StoredTensor(
        name=name,
        shape=shape,
        form=form,
        nbytes=sum(entry.nbytes for entry in parts.values()),
        files=tuple(entry.name for entry in parts.values()),
        load=_reader(parts, form),
        matrix=matrix,
    )


def _shape(parts: Mapping[str, Entry], form: str) -> tuple[int, ...]:
    shape = parts[form].shape
    if form == "int4":
        E, B, G, size = shape if len(shape) == 4 else (0, 0, 0, 0)
        _expect(parts["int4"], (E, B, G, BYTES), size == BYTES)
        _expect(parts["int4_scale"], (E, B, G, ROWS))
        shape = (E, B * ROWS, G * COLUMNS)
    _expect(parts["row_scale"], shape[:-1])
    return shape


def _expect(entry: Entry, shape: tuple[int, ...], holds: bool = True) -> None:
    if entry.shape != shape or not holds:
        raise CheckpointError(f"tensor {entry.name!r} has shape {list(entry.shape)}, expected {list(shape)}")


def _reader(parts: Mapping[str, Entry], form: str) -> Callable[[int | None], Tensor]:
    def load(part: int | None) -> Tensor:
        if form == "int4":
            stack = {key: entry.read(part) for key, entry in parts.items()}
            if part is not None:
                stack = {key: tensor[None] for key, tensor in stack.items()}
            matrix = Int4Matrix(data=stack["int4"], scale=stack["int4_scale"], row_scale=stack["row_scale"])
            return matrix.dequantised(0) if part is not None else matrix.all_dequantised()
        kind = Int8Matrix if form == "int8" else Float8Matrix
        return kind(data=parts[form].read(part), scale=parts["row_scale"].read(part)).dequantised()

    return load


def checksum(tensor: Tensor) -> str:
    """SHA-256 of a tensor's bytes as they lie in a file."""
    return hashlib.sha256(tensor.contiguous().view(-1).view(torch.uint8).numpy().data).hexdigest()


def checksums_of(header: Mapping[str, Any], path: Path) -> dict[str, str]:
    """The checksums that a file's header holds, by tensor; none in files of another layout.

    Raises:
        CheckpointError: what stands in their place is no JSON.
    """
    said = header.get(METADATA, {}).get(CHECKSUMS, "{}")
    return parse_object(said, f"{CHECKSUMS} in {path}")


def verify(paths: Iterable[Path]) -> None:
    """Reads every tensor of these files and compares it with the checksum beside it.

    Raises:
        CheckpointError: names the tensor that differs, or the file that has no checksums.
    """
    for path in paths:
        header, data = read_header(path)
        sums = checksums_of(header, path)
        with path.open("rb") as file:
            for name, fields in header.items():
                if name == METADATA:
                    continue
                if name not in sums:
                    raise CheckpointError(
                        f"{path}: tensor {name!r} has no checksum: only quantised files can be verified"
                    )
                begin, end = fields["data_offsets"]
                file.seek(data + begin)
                found = hashlib.sha256()
                for size in range(begin, end, _CHUNK_BYTES):
                    found.update(file.read(min(_CHUNK_BYTES, end - size)))
                if found.hexdigest() != sums[name]:
                    raise CheckpointError(f"{path}: tensor {name!r} is corrupted: quantise or copy the file again")
