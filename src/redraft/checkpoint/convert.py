"""Writes a checkpoint in another form, file by file: to our quantised layout, or back to bfloat16.

One tensor is in memory in floating point at a time, and one file's results: those of one layer. A file appears under
its name when it is whole, so a run that was cut off goes on where it stopped and ends with the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from redraft.checkpoint.formats.header_checks import METADATA
from redraft.checkpoint.formats.headers import STEM, read_header
from redraft.checkpoint.formats.sidecar import write_beside
from redraft.checkpoint.formats.writer import write_safetensors
from redraft.checkpoint.layout import CHECKSUMS, checksum, checksums_of, parts_of, quantization_config
from redraft.checkpoint.locate import is_gguf
from redraft.checkpoint.names import without_absent_towers
from redraft.checkpoint.rounding import Recipe, rounded, rounded_bytes
from redraft.checkpoint.save import copy_files
from redraft.checkpoint.source import Source
from redraft.checkpoint.stored import StoredTensor
from redraft.checkpoint.unread import CONVERSION
from redraft.core.errors import CheckpointError, OptionError
from redraft.core.files import read_json
from redraft.model.model import shapes_of

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Converted:
    """Attributes:
    nbytes: of all tensors.
    files: how many were written, and how many were there already.
    checksum: SHA-256 over all tensors' checksums, in order of their names.
    """

    nbytes: int
    files: tuple[int, int]
    checksum: str


def quantize(
    source: str | Path | Source,
    directory: str | Path,
    recipe: Recipe,
    *,
    importance: Mapping[str, Tensor] | None = None,
    on_progress: Progress | None = None,
) -> Converted:
    """Writes a checkpoint's quantised form.

    Args:
        source: a directory or GGUF file in any form that `load_model` reads, or an open one.
        directory: made if missing; what an earlier run of the same kind has left there is kept.
        recipe: the forms.
        importance: see `redraft.checkpoint.rounding.rounded`, by parameter.
        on_progress: called with a file's name, how many are done and how many there are.

    Raises:
        CheckpointError: the source cannot be read, or the directory holds something else.
        OptionError: there is no room for the result.
    """
    opened = source if isinstance(source, Source) else Source.open(source)
    shapes = shapes_of(opened.config)
    described = quantization_config(recipe.experts, recipe.rest)
    weights = importance or {}

    def parts(parameter: str | None, tensor: StoredTensor) -> dict[str, Tensor]:
        form = None if parameter is None else recipe.form_of(shapes, parameter)
        if form is None:
            return {tensor.name: tensor.read().contiguous()}
        return parts_of(tensor.name, rounded(tensor, form, weights.get(parameter or "")))

    def size(parameter: str | None, tensor: StoredTensor) -> int:
        form = None if parameter is None else recipe.form_of(shapes, parameter)
        return tensor.nbytes if form is None else rounded_bytes(tensor.shape, form)

    calibration = "" if importance is None else checksum(torch.cat([w.flatten() for w in weights.values()]))
    task = described | {"source": _fingerprint(opened), "calibration": calibration}
    return _write(opened, shapes, Path(directory), parts, size, task, described, on_progress)


def export(source: str | Path, directory: str | Path, *, on_progress: Progress | None = None) -> Converted:
    """Writes a checkpoint of any form in bfloat16, in Hugging Face layout; arguments as in `quantize`.

    Raises:
        CheckpointError, OptionError: as in `quantize`.
    """
    opened = Source.open(source)

    def parts(_: str | None, tensor: StoredTensor) -> dict[str, Tensor]:
        return {tensor.name: _in_bfloat16(tensor)}

    def size(_: str | None, tensor: StoredTensor) -> int:
        return 2 * torch.Size(tensor.shape).numel()

    task = {"export": "bfloat16", "source": _fingerprint(opened)}
    return _write(opened, shapes_of(opened.config), Path(directory), parts, size, task, None, on_progress)


def rewrite(
    source: Source,
    directory: str | Path,
    change: Callable[[str | None, StoredTensor], Tensor],
    *,
    task: Mapping[str, Any],
    on_progress: Progress | None = None,
) -> Converted:
    """Writes a checkpoint of floats whose weights have been changed, each in its own dtype; see `quantize`.

    Args:
        source: an open checkpoint.
        directory: as in `quantize`.
        change: from (parameter, or None for what is not run, tensor) to what is written in its place.
        task: what tells this run from others.
        on_progress: as in `quantize`.

    Raises:
        CheckpointError, OptionError: as in `quantize`.
    """

    def parts(parameter: str | None, tensor: StoredTensor) -> dict[str, Tensor]:
        return {tensor.name: change(parameter, tensor)}

    def size(_: str | None, tensor: StoredTensor) -> int:
        return tensor.nbytes

    named = {**task, "source": _fingerprint(source)}
    shapes = shapes_of(source.config)
    return _write(source, shapes, Path(directory), parts, size, named, None, on_progress, same_weights=False)


def _in_bfloat16(tensor: StoredTensor) -> Tensor:
    if len(tensor.shape) < 3:
        return tensor.read().to(torch.bfloat16).contiguous()
    out = torch.empty(tensor.shape, dtype=torch.bfloat16)
    for part in range(len(out)):
        out[part] = tensor.read(part)
    return out


def _files(source: Source, shapes: Mapping[str, tuple[int, ...]]) -> list[list[tuple[str | None, StoredTensor]]]:
    """(parameter, tensor) by file: what is no layer's, then layer by layer, then what is not run."""
    groups: dict[int, list[tuple[str | None, StoredTensor]]] = {}
    for parameter, tensor in source.parameters(shapes).items():
        words = parameter.split(".")
        groups.setdefault(int(words[1]) if words[0] == "layers" else -1, []).append((parameter, tensor))
    files = [groups[layer] for layer in sorted(groups)]
    aside: list[tuple[str | None, StoredTensor]] = [(None, tensor) for tensor in source.passed_through().values()]
    return files + ([aside] if aside else [])


def _write(
    source: Source,
    shapes: Mapping[str, tuple[int, ...]],
    directory: Path,
    parts: Callable[[str | None, StoredTensor], dict[str, Tensor]],
    size: Callable[[str | None, StoredTensor], int],
    task: dict[str, Any],
    described: dict[str, Any] | None,
    on_progress: Progress | None,
    *,
    same_weights: bool = True,
) -> Converted:
    files = _files(source, shapes)
    if source.path.resolve() == directory.resolve():
        raise OptionError(f"{directory} is the source: give another directory")
    _claim(directory, task)
    # Under names that other tools look for, they would take the tensors for random ones and go on.
    stem = STEM if described is not None else "model"
    names = [f"{stem}-{number:05d}-of-{len(files):05d}.safetensors" for number in range(1, len(files) + 1)]
    missing = [group for name, group in zip(names, files, strict=True) if not (directory / name).exists()]
    _check_room(directory, sum(size(*item) for group in missing for item in group))
    sums: dict[str, str] = {}
    weight_map: dict[str, str] = {}
    total = 0
    for number, (name, group) in enumerate(zip(names, files, strict=True)):
        if on_progress is not None:
            on_progress(name, number, len(files))
        path = directory / name
        if not path.exists():
            _write_file(path, _merged(parts(*item) for item in group))
        header, _ = read_header(path)
        sums |= checksums_of(header, path)
        for tensor, fields in header.items():
            if tensor != METADATA:
                weight_map[tensor] = name
                total += fields["data_offsets"][1] - fields["data_offsets"][0]
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (directory / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    # config.json comes last: without it, what is there is no model yet.
    _write_beside(source, directory, described, same_weights=same_weights)
    if on_progress is not None:
        on_progress(names[-1], len(files), len(files))
    overall = hashlib.sha256("\n".join(f"{name} {sums[name]}" for name in sorted(sums)).encode()).hexdigest()
    return Converted(nbytes=total, files=(len(missing), len(files) - len(missing)), checksum=overall)


def _merged(parts: Iterator[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: tensor for some in parts for name, tensor in some.items()}


def _write_file(path: Path, tensors: dict[str, Tensor]) -> None:
    sums = {name: checksum(tensor) for name, tensor in sorted(tensors.items())}
    fresh = path.with_suffix(".part")
    write_safetensors(fresh, tensors, {"format": "pt", CHECKSUMS: json.dumps(sums)})
    os.replace(fresh, path)


def _claim(directory: Path, task: dict[str, Any]) -> None:
    """Makes the directory this task's, or finds that it is already.

    Raises:
        CheckpointError: it holds something else.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{directory} cannot be made: {error.strerror or error}") from None
    # Another run that finds something else here does not go on.
    path = directory / CONVERSION
    if path.exists():
        if read_json(path) != task:
            raise CheckpointError(f"{directory} holds part of another conversion: empty it or give another directory")
        # What a run that was killed was writing.
        for left in directory.glob("*.part"):
            left.unlink()
        return
    if any(found.suffix != ".part" for found in directory.iterdir()):
        raise CheckpointError(f"{directory} is not empty: empty it or give another directory")
    fresh = path.with_suffix(".part")
    fresh.write_text(json.dumps(task, indent=2) + "\n", encoding="utf-8")
    os.replace(fresh, path)


def _fingerprint(source: Source) -> str:
    """Of what the source holds, as far as headers tell: a conversion must not go on from another one's files."""
    held = sorted((t.name, t.form, *t.shape, t.nbytes) for t in source.tensors.values())
    paths = sorted({entry.path for entry in source.entries.values()} or {source.path})
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths if path.exists()]
    return hashlib.sha256(json.dumps([held, stats, dict(source.raw)], sort_keys=True).encode()).hexdigest()


def _check_room(directory: Path, needed: int) -> None:
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise OptionError(f"{directory} needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free there")


def _write_beside(source: Source, directory: Path, described: dict[str, Any] | None, *, same_weights: bool) -> None:
    """Config, tokenizer and templates."""
    config = without_absent_towers(source.config.to_dict(), source.passed_through())
    for name in ("quantization_config", "quantization"):
        config.pop(name, None)
    if described is not None:
        config["quantization_config"] = described
    elif same_weights:
        config["dtype"] = "bfloat16"
    if is_gguf(source.path):
        write_beside(source.path, directory)
    else:
        copy_files(source, directory, same_weights=same_weights)
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
