"""Writes a safetensors file. The library's own writer orders metadata at random, so that equal tensors made unequal
files; and it aligns to 8 bytes, where mapped matrices want to begin at a cache line."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from redraft.checkpoint.formats.headers import DTYPES

_ALIGNMENT = 64
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes the file and sees to it that it is on disk. The same tensors and metadata give the same bytes.

    Args:
        path: of the file.
        tensors: on the CPU, contiguous.
        metadata: strings by name.
    """
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    # What is no whole number of lines comes last, so that all others begin at one: the format allows no gaps.
    order = sorted(tensors, key=lambda name: (tensors[name].nbytes % _ALIGNMENT != 0, name))
    at = 0
    for name in order:
        tensor = tensors[name]
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.nbytes],
        }
        at += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in order:
            file.write(tensors[name].contiguous().view(-1).view(torch.uint8).numpy().data)
        file.flush()
        os.fsync(file.fileno())
