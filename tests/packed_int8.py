"""Int8 matrices in each layout that a machine may take."""

from __future__ import annotations

import pytest
from torch import Tensor

from redraft.kernels import int8
from redraft.kernels.int8 import PackedInt8
from redraft.kernels.matrices.int8 import Int8Matrix


def packed_as(weight: Tensor, layout: str) -> PackedInt8:
    """A matrix [O, I] in one of the layouts, whatever this machine would take; skips what it cannot have."""
    matrix = Int8Matrix.of(weight)
    with pytest.MonkeyPatch.context() as patch:
        if layout != "dots":
            patch.setattr(int8, "dot_lanes", lambda: 0)
        if layout not in ("dots", "onednn"):
            patch.setattr(int8, "has_exact_products", lambda: False)
        if layout == "plain":
            patch.setattr(int8, "runs_natively", lambda *_, **__: False)
        made = PackedInt8.of(matrix)
    if made.layout != layout:
        pytest.skip(f"no {layout} here")
    return made
