"""Int8 matrices in the order in which a CPU with dot products of four bytes multiplies them: AVX-512 VNNI, AVX-VNNI."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from redraft.kernels.matrices.int8 import ZERO_POINT
from redraft.kernels.native.call import KINDS, call, expect, runs_natively

# E matrices of R rows (outputs) and K columns (inputs), N rows of activations, A experts a row; L lanes of a register,
# B = R / L blocks, Q = K / 4 quads of columns, both rounded up

QUAD = 4


def dot_lanes() -> int:
    """Rows of a block, int32 lanes of a register; 0 where the CPU has no such products or nothing can be built."""
    return _lanes() if runs_natively("dots") else 0


@functools.cache
def _lanes() -> int:
    found = torch.zeros(1, dtype=torch.int64)
    call("dots", "dots_lanes", found)
    return int(found)


def pack(stack: Int[Tensor, "E R K"]) -> tuple[Int[Tensor, "E B Q L 4"], Int[Tensor, "E R"]]:
    """(the matrices in blocks of rows whose quads of columns lie side by side, what 128 more in x adds to each row's
    sum, negated)."""
    E, R, K = stack.shape
    data = torch.empty(E, -(-R // dot_lanes()), -(-K // QUAD), dot_lanes(), QUAD, dtype=torch.int8)
    zeros = torch.empty(E, R, dtype=torch.int32)
    call("dots", "dots_pack", stack.contiguous(), E, R, K, data, zeros)
    return data, zeros


def unpack(data: Int[Tensor, "B Q L 4"], rows: int, columns: int) -> Int[Tensor, "R K"]:
    """A matrix again, in memory of its own."""
    B, Q, L, _ = data.shape
    return data.transpose(1, 2).reshape(B * L, Q * QUAD)[:rows, :columns].contiguous()


def dots_product(
    values: Int[Tensor, "N K"], data: Int[Tensor, "B Q L 4"], zeros: Int[Tensor, "R"], scale: Float[Tensor, "R"]
) -> Float[Tensor, "N R"]:
    """The product of rows that have been rounded: int8, or uint8 that is 128 higher."""
    rows = values if values.dtype == torch.uint8 else values.view(torch.uint8) ^ ZERO_POINT
    padded = F.pad(rows, (0, -rows.shape[1] % QUAD)).contiguous()
    expect("the rows", padded, len(values), data.shape[1] * QUAD)
    out = torch.empty(len(values), len(scale))
    call("dots", "dots_product", padded, len(values), data, zeros, scale, len(scale), data.shape[1], out)
    return out


def dots_linear(
    x: Float[Tensor, "N K"], data: Int[Tensor, "B Q L 4"], zeros: Int[Tensor, "R"], scale: Float[Tensor, "R"]
) -> Float[Tensor, "N R"]:
    """The product of float32 or bfloat16 rows, rounded as they come; of their kind."""
    N, K = x.shape
    if data.shape[1] != -(-K // QUAD):
        raise ValueError(f"rows of {K} columns do not meet a matrix of {data.shape[1]} quads")
    out = torch.empty(N, len(scale), dtype=x.dtype)
    call("dots", "dots_linear", x, KINDS[x.dtype], N, K, data, zeros, scale, len(scale), out)
    return out


def dots_experts(
    x: Float[Tensor, "N D"],
    index: Int[Tensor, "N A"],
    weight: Float[Tensor, "N A"],
    gate_up: tuple[Tensor, Tensor, Tensor],
    down: tuple[Tensor, Tensor, Tensor],
) -> Float[Tensor, "N D"]:
    """The mixture's product in one call, in float32; each row's experts are added up in order of their numbers.

    Args:
        x: float32 or bfloat16 rows.
        index, weight: the experts of each row, and what they weigh.
        gate_up: packed [E, 2 W, D], its zeros and its scale, W a multiple of `dot_lanes`.
        down: the same of [E, D, W].
    """
    (N, D), A, (E, R) = x.shape, index.shape[1], gate_up[2].shape
    index, weight = index.contiguous(), weight.float().contiguous()
    expect("the experts", index, N, A)
    expect("their weights", weight, N, A)
    expect("the wide scale", gate_up[2], E, R)
    expect("the narrow scale", down[2], E, D)
    if R % (2 * dot_lanes()) or gate_up[0].shape[2] != -(-D // QUAD) or down[0].shape[2] != -(-R // 2 // QUAD):
        raise ValueError(f"experts of {E} x {R} rows do not meet rows of {D} columns")
    out = torch.empty(N, D)
    call("dots", "dots_experts", x, KINDS[x.dtype], N, D, index, weight, A, E, R // 2, *gate_up, *down, out)
    return out
