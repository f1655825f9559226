"""Products of int4 experts with int8 rows."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from redraft.kernels.matrices.int4 import BYTES, COLUMNS, ROWS, Int4Matrix
from redraft.kernels.native.call import call, expect, runs_natively

# E experts, S rows of all of them, R rows (outputs), K columns (inputs)


def int4_products(values: Int[Tensor, "S K"], counts: list[int], matrix: Int4Matrix) -> Float[Tensor, "S R"]:
    """Each run of int8 rows times its expert's matrix; the rows' own scales are left to the caller.

    Args:
        values: int8 rows, in order of their experts.
        counts: rows of each expert.
        matrix: of all experts.
    """
    E, R, K = matrix.shape
    kinds = (torch.int8, torch.uint8, torch.float32)
    if runs_natively("int4", values, matrix.data, matrix.scale, matrix.row_scale, kinds=kinds):
        if len(counts) != E or min(counts, default=0) < 0 or sum(counts) != len(values):
            raise ValueError(f"{len(values)} rows of {len(counts)} experts, expected those of {E}")
        expect("the rows", values, len(values), K)
        expect("the int4 matrix", matrix.data, E, R // ROWS, K // COLUMNS, BYTES)
        expect("the int4 blocks' scale", matrix.scale, E, R // ROWS, K // COLUMNS, ROWS)
        expect("the int4 rows' scale", matrix.row_scale, E, R)
        out = torch.empty(len(values), R)
        call(
            "int4", "int4_products", values, len(values), torch.tensor(counts), E, R, K, matrix.data, matrix.scale,
            matrix.row_scale, out,
        )  # fmt: skip
        return out
    parts = [part.float() @ matrix.dequantised(e).T for e, part in enumerate(values.split(counts)) if len(part)]
    return torch.cat(parts) if parts else values.new_empty(0, R, dtype=torch.float32)
