"""The kernels of dense 8-bit products; `dense.py` launches them."""

from __future__ import annotations

import triton
import triton.language as tl

from redraft.kernels.triton.dependent import after_the_last
from redraft.kernels.triton.products import widened

# M rows of activations, K columns, R rows of the matrix

# What the operands of a product are.
INT8, FLOAT8, WIDENED = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


@triton.jit(do_not_specialize=["M"])
def dense_kernel(
    x, weight, row_scale, column_scale, out, M, K, R, x_row,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, KIND: tl.constexpr, EVEN: tl.constexpr,
    COMPUTE: tl.constexpr,
):  # type: ignore[no-untyped-def]  # fmt: skip
    """ROWS x COLUMNS of one part of x @ weight^T, times both scales; parts are whole steps of DEPTH columns of x.

    Neighbouring programs share a tile of the weights.
    """
    after_the_last()
    row_tiles = tl.cdiv(M, ROWS)
    m = (tl.program_id(0) % row_tiles) * ROWS + tl.arange(0, ROWS)
    r = (tl.program_id(0) // row_tiles) * COLUMNS + tl.arange(0, COLUMNS)
    k = tl.arange(0, DEPTH)
    inside_m, inside_r = m < M, r < R
    part = tl.program_id(1)
    length = tl.cdiv(tl.cdiv(K, DEPTH), tl.num_programs(1)) * DEPTH
    first = part * length
    x_at = x + m.to(tl.int64)[:, None] * x_row + first + k[None, :]
    w_at = weight + r.to(tl.int64)[None, :] * K + first + k[:, None]
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.int32 if KIND == INT8 else tl.float32)
    by_column = tl.load(column_scale + r, mask=inside_r, other=0.0)
    for start in range(first, tl.minimum(first + length, K), DEPTH):
        a_mask, b_mask = inside_m[:, None], inside_r[None, :]
        if not EVEN:
            a_mask, b_mask = a_mask & (start + k < K)[None, :], b_mask & (start + k < K)[:, None]
        a, b = tl.load(x_at, mask=a_mask, other=0.0), tl.load(w_at, mask=b_mask, other=0.0)
        if KIND == INT8:
            total = tl.dot(a, b, total, out_dtype=tl.int32)
        elif KIND == FLOAT8:
            # A tensor core keeps some 14 bits of these sums: they go to float32 at every step, and with a scale, or the
            # compiler would make one sum of them again.
            total += tl.dot(a, b) * by_column[None, :]
        else:
            total = tl.dot(a.to(COMPUTE), widened(b, COMPUTE), total, input_precision="ieee")
        x_at += DEPTH
        w_at += DEPTH
    result = total.to(tl.float32)
    if KIND != FLOAT8:
        result *= by_column[None, :]
    if KIND != WIDENED:
        result *= tl.load(row_scale + m, mask=inside_m, other=0.0)[:, None]
    at = out + (part * M + m).to(tl.int64)[:, None] * R + r[None, :]
    tl.store(at, result.to(out.dtype.element_ty), mask=inside_m[:, None] & inside_r[None, :])
