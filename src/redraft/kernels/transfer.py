"""Several small tensors between a device and the host as one copy: each costs the host a wait, whatever its size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def moved(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Copies of these tensors, all of one device, on another: same shapes, same dtypes, same bits.

    Nothing of them is shared with what was given, on whatever device.
    """
    whole = packed(tensors)
    return unpacked(whole.to(device), tensors)


def packed(tensors: Sequence[Tensor]) -> Tensor:
    """[bytes] uint8: all of them, those of the widest dtype first, so that each begins at a multiple of its own."""
    parts = [tensors[number].contiguous().view(-1).view(torch.uint8) for number in _order(tensors)]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.uint8)


def unpacked(whole: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Views of what `packed` made of tensors like these; only their shapes and dtypes are read."""
    found: dict[int, Tensor] = {}
    begin = 0
    for number in _order(like):
        tensor = like[number]
        end = begin + math.prod(tensor.shape) * tensor.itemsize
        found[number], begin = whole[begin:end].view(tensor.dtype).view(tensor.shape), end
    return [found[number] for number in range(len(like))]


def _order(tensors: Sequence[Tensor]) -> list[int]:
    return sorted(range(len(tensors)), key=lambda number: -tensors[number].itemsize)
