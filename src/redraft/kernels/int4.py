"""Products of int4 experts with int8 rows."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from redraft.kernels.matrices.int4 import BYTES, COLUMNS, ROWS, Int4Matrix
from redraft.kernels.native.call import KINDS, call, expect, runs_natively

# E experts, S rows of all of them, R rows (outputs), K columns (inputs); N rows, A experts a row, D hidden, I width


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
        _expect(matrix, E, R, K)
        out = torch.empty(len(values), R)
        call(
            "int4", "int4_products", values, len(values), torch.tensor(counts), E, R, K, matrix.data, matrix.scale,
            matrix.row_scale, out,
        )  # fmt: skip
        return out
    parts = [part.float() @ matrix.dequantised(e).T for e, part in enumerate(values.split(counts)) if len(part)]
    return torch.cat(parts) if parts else values.new_empty(0, R, dtype=torch.float32)


def runs_int4(x: Tensor, *stacks: Int4Matrix) -> bool:
    """Whether `mixed_int4` takes these."""
    kinds = (torch.uint8, torch.float32, torch.bfloat16)
    return all(runs_natively("int4", x, stack.data, stack.scale, stack.row_scale, kinds=kinds) for stack in stacks)


def mixed_int4(
    x: Float[Tensor, "N D"],
    index: Int[Tensor, "N A"],
    weight: Float[Tensor, "N A"],
    wide: Int4Matrix,
    narrow: Int4Matrix,
) -> Float[Tensor, "N D"]:
    """The mixture's product in one call, in float32; each row's experts are added up in order of their numbers.

    Args:
        x: float32 or bfloat16 rows, rounded to int8 as they come.
        index, weight: the experts of each row, and what they weigh.
        wide: gate above up of all experts, [E, 2 I, D].
        narrow: [E, D, I].
    """
    (N, D), A, (E, R, _) = x.shape, index.shape[1], wide.shape
    index, weight = index.contiguous(), weight.float().contiguous()
    expect("the experts", index, N, A)
    expect("their weights", weight, N, A)
    _expect(wide, E, R, D)
    _expect(narrow, E, D, R // 2)
    out = torch.empty(N, D)
    stacks = (part for stack in (wide, narrow) for part in (stack.data, stack.scale, stack.row_scale))
    call("int4", "int4_experts", x, KINDS[x.dtype], N, D, index, weight, A, E, R // 2, *stacks, out)
    return out


def _expect(matrix: Int4Matrix, experts: int, rows: int, columns: int) -> None:
    expect("the int4 matrix", matrix.data, experts, rows // ROWS, columns // COLUMNS, BYTES)
    expect("the int4 blocks' scale", matrix.scale, experts, rows // ROWS, columns // COLUMNS, ROWS)
    expect("the int4 rows' scale", matrix.row_scale, experts, rows)
