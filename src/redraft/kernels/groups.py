"""Rows by the experts that they go to, for devices whose products are launched one by one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

# N rows, A experts per row, S slots


@dataclass(frozen=True)
class Groups:
    """The N * A assignments in order of their experts, each expert's share rounded up to a multiple of rows.

    Attributes:
        source: the row of x in each slot; slots that only fill up hold row 0.
        slot: of each assignment (row * A + place).
        counts: slots of each expert.
    """

    source: Int[Tensor, "S"]
    slot: Int[Tensor, "NA"]
    counts: list[int]

    @classmethod
    def of(cls, index_NA: Int[Tensor, "N A"], num_experts: int, multiple: int = 1) -> Groups:
        """Of these choices, with shares rounded up to a `multiple`; the host waits for them."""
        # In numpy: fifteen operators on a few hundred numbers, whose counts are needed here in any case.
        flat = index_NA.flatten().cpu().numpy()
        order = np.argsort(flat, kind="stable")
        counts = np.bincount(flat, minlength=num_experts)
        slots = (counts + multiple - 1) // multiple * multiple
        # How far each expert's slots lie behind its place in the sorted order.
        shift = (slots.cumsum() - slots) - (counts.cumsum() - counts)
        place = np.arange(len(order)) + shift[flat[order]]
        slot, source = np.empty_like(order), np.zeros(slots.sum(), order.dtype)
        slot[order] = place
        source[place] = order // index_NA.shape[1]
        device = index_NA.device
        return cls(torch.from_numpy(source).to(device), torch.from_numpy(slot).to(device), slots.tolist())
