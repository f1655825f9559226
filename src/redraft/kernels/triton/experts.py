"""The mixture's product on a GPU: grouping, gate-up with its activation, down with its weight, and a sum in order.

Each (row, place) result is computed by itself and written to its own place, and a row's A results are added in the
order of its experts: no atomics, and the same bits on every run. Nothing waits for the device.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from redraft.kernels.float8 import Float8Matrix
from redraft.kernels.int4 import Int4Matrix
from redraft.kernels.triton.configs import Configs, configs_of, order_of
from redraft.kernels.triton.grouping import group
from redraft.kernels.triton.packed import PackedInt4, pack_int4
from redraft.kernels.triton.products import FLOAT8, FLOATS, INT4, float_sum, int4_sum
from redraft.kernels.triton.products import ORDER as ORDERS
from redraft.kernels.triton.target import interpreted, launch, power_of_two, tiles

# N rows, E experts, A experts per row, D hidden, I expert width, TB rows of a block

_Weights = PackedInt4 | Float8Matrix | Tensor


@triton.jit
def _gate_up_block(
    x_ptr, order_ptr, data_ptr, scale_ptr, row_scale_ptr, gated_ptr, expert, start, rows, D, I, A, tiles, steps,
    TB: tl.constexpr, FORM: tl.constexpr, ORDER: tl.constexpr, WORDS: tl.constexpr, EVEN: tl.constexpr,
    DTYPE: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0)
    lane = tl.arange(0, TB)
    valid = lane < rows
    place = tl.load(order_ptr + start + lane, mask=valid, other=0) // A
    row = tl.arange(0, 128)
    if FORM == INT4:
        run = (expert * tiles + tile).to(tl.int64)
        acc = int4_sum(
            x_ptr, place.to(tl.int64), valid, data_ptr + run * steps * 4096, scale_ptr + run * steps * 256, D,
            TB, ORDER, WORDS, EVEN, DTYPE,
        )  # fmt: skip
        acc *= tl.load(row_scale_ptr + run * 128 + row)[:, None]
    else:
        # 64 gate rows and then their 64 up rows, as int4 tiles have them.
        unit = tile * 64 + row % 64
        weight_row = expert.to(tl.int64) * (2 * I) + row // 64 * I + unit
        acc = float_sum(x_ptr, place.to(tl.int64), valid, data_ptr, weight_row, unit < I, D, TB, FORM, EVEN, DTYPE)
        if FORM == FLOAT8:
            acc *= tl.load(row_scale_ptr + weight_row, mask=unit < I, other=0.0)[:, None]
    gate, up = tl.split(tl.permute(tl.reshape(acc, (2, 64, TB)), (1, 2, 0)))
    # gelu(tanh): (1 + tanh(u)) / 2 is sigmoid(2 u).
    gated = gate * tl.sigmoid(1.5957691216057308 * (gate + 0.044715 * gate * gate * gate)) * up
    unit = tile * 64 + tl.arange(0, 64)
    at = gated_ptr + (start + lane).to(tl.int64)[:, None] * I + unit[None, :]
    tl.store(at, tl.trans(gated), mask=valid[:, None] & (unit < I)[None, :])


@triton.jit
def gate_up_kernel(
    x_ptr, order_ptr, table_ptr, data_ptr, scale_ptr, row_scale_ptr, gated_ptr, D, I, A, tiles, steps,
    BLOCK: tl.constexpr, FORM: tl.constexpr, ORDER: tl.constexpr, WORDS: tl.constexpr, EVEN: tl.constexpr,
    DTYPE: tl.constexpr,
):  # fmt: skip
    """gelu(gate x) * up x of 64 units for one block of rows, in the assignments' order."""
    block = table_ptr + 3 * tl.program_id(1)
    rows = tl.load(block + 2)
    if rows > 0:
        expert, start = tl.load(block), tl.load(block + 1)
        if rows <= 16:
            _gate_up_block(
                x_ptr, order_ptr, data_ptr, scale_ptr, row_scale_ptr, gated_ptr, expert, start, rows, D, I, A, tiles,
                steps, 16, FORM, ORDER, WORDS, EVEN, DTYPE,
            )  # fmt: skip
        elif rows <= 32 or BLOCK == 32:
            _gate_up_block(
                x_ptr, order_ptr, data_ptr, scale_ptr, row_scale_ptr, gated_ptr, expert, start, rows, D, I, A, tiles,
                steps, 32, FORM, ORDER, WORDS, EVEN, DTYPE,
            )  # fmt: skip
        else:
            _gate_up_block(
                x_ptr, order_ptr, data_ptr, scale_ptr, row_scale_ptr, gated_ptr, expert, start, rows, D, I, A, tiles,
                steps, BLOCK, FORM, ORDER, WORDS, EVEN, DTYPE,
            )  # fmt: skip


@triton.jit
def _down_block(
    gated_ptr, order_ptr, data_ptr, scale_ptr, row_scale_ptr, weight_ptr, out_ptr, expert, start, rows, D, I, tiles,
    steps, TB: tl.constexpr, FORM: tl.constexpr, ORDER: tl.constexpr, WORDS: tl.constexpr, EVEN: tl.constexpr,
    DTYPE: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0)
    lane = tl.arange(0, TB)
    valid = lane < rows
    place = (start + lane).to(tl.int64)
    row = tile * 128 + tl.arange(0, 128)
    if FORM == INT4:
        run = (expert * tiles + tile).to(tl.int64)
        acc = int4_sum(
            gated_ptr, place, valid, data_ptr + run * steps * 4096, scale_ptr + run * steps * 256, I,
            TB, ORDER, WORDS, EVEN, DTYPE,
        )  # fmt: skip
        acc *= tl.load(row_scale_ptr + run * 128 + tl.arange(0, 128))[:, None]
    else:
        weight_row = expert.to(tl.int64) * D + row
        acc = float_sum(gated_ptr, place, valid, data_ptr, weight_row, row < D, I, TB, FORM, EVEN, DTYPE)
        if FORM == FLOAT8:
            acc *= tl.load(row_scale_ptr + weight_row, mask=row < D, other=0.0)[:, None]
    assignment = tl.load(order_ptr + place, mask=valid, other=0).to(tl.int64)
    acc *= tl.load(weight_ptr + assignment, mask=valid, other=0.0).to(tl.float32)[None, :]
    at = out_ptr + assignment[:, None] * D + row[None, :]
    tl.store(at, tl.trans(acc), mask=valid[:, None] & (row < D)[None, :])


@triton.jit
def down_kernel(
    gated_ptr, order_ptr, table_ptr, data_ptr, scale_ptr, row_scale_ptr, weight_ptr, out_ptr, D, I, tiles, steps,
    BLOCK: tl.constexpr, FORM: tl.constexpr, ORDER: tl.constexpr, WORDS: tl.constexpr, EVEN: tl.constexpr,
    DTYPE: tl.constexpr,
):  # fmt: skip
    """weight * down h of 128 outputs for one block of rows, each to its assignment's place."""
    block = table_ptr + 3 * tl.program_id(1)
    rows = tl.load(block + 2)
    if rows > 0:
        expert, start = tl.load(block), tl.load(block + 1)
        if rows <= 16:
            _down_block(
                gated_ptr, order_ptr, data_ptr, scale_ptr, row_scale_ptr, weight_ptr, out_ptr, expert, start, rows, D,
                I, tiles, steps, 16, FORM, ORDER, WORDS, EVEN, DTYPE,
            )  # fmt: skip
        elif rows <= 32 or BLOCK == 32:
            _down_block(
                gated_ptr, order_ptr, data_ptr, scale_ptr, row_scale_ptr, weight_ptr, out_ptr, expert, start, rows, D,
                I, tiles, steps, 32, FORM, ORDER, WORDS, EVEN, DTYPE,
            )  # fmt: skip
        else:
            _down_block(
                gated_ptr, order_ptr, data_ptr, scale_ptr, row_scale_ptr, weight_ptr, out_ptr, expert, start, rows, D,
                I, tiles, steps, BLOCK, FORM, ORDER, WORDS, EVEN, DTYPE,
            )  # fmt: skip


@triton.jit
def combine_kernel(outputs_ptr, out_ptr, D, A, COLUMNS: tl.constexpr):
    """The sum of a row's A results, in their order and in float32."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros([COLUMNS], tl.float32)
    for place in range(0, A):
        total += tl.load(outputs_ptr + (row * A + place) * D + column, mask=column < D, other=0.0).to(tl.float32)
    tl.store(out_ptr + row * D + column, total, mask=column < D)


def experts_bf16(
    x_ND: Float[Tensor, "N D"],
    index_NA: Int[Tensor, "N A"],
    weight_NA: Float[Tensor, "N A"],
    gate_up_E2ID: Float[Tensor, "E 2I D"],
    down_EDI: Float[Tensor, "E D I"],
    configs: Configs | None = None,
) -> Float[Tensor, "N D"]:
    """`kernels.experts.experts` of bfloat16 weights, with sums in float32; `configs` other than the table's."""
    _, D, I = down_EDI.shape
    return _experts(x_ND, index_NA, weight_NA, gate_up_E2ID.contiguous(), down_EDI.contiguous(), D, I, configs)


def experts_int4(
    x_ND: Float[Tensor, "N D"],
    index_NA: Int[Tensor, "N A"],
    weight_NA: Float[Tensor, "N A"],
    gate_up: PackedInt4 | Int4Matrix,
    down: PackedInt4 | Int4Matrix,
    configs: Configs | None = None,
) -> Float[Tensor, "N D"]:
    """`kernels.experts.experts_int4`, but that rows are not rounded to int8: sums are of bfloat16, in float32.

    Args:
        x_ND: the rows.
        index_NA: the experts of each row.
        weight_NA: what each one's result weighs.
        gate_up: packed in pairs. A stored matrix is packed for this call, which takes longer than the call.
        down: packed.
        configs: other than the table's.
    """
    wide, narrow = packed_int4(gate_up, paired=True), packed_int4(down, paired=False)
    assert wide.paired
    assert not narrow.paired
    assert wide.order == narrow.order
    _, D, I = narrow.shape
    return _experts(x_ND, index_NA, weight_NA, wide, narrow, D, I, configs)


def experts_float8(
    x_ND: Float[Tensor, "N D"],
    index_NA: Int[Tensor, "N A"],
    weight_NA: Float[Tensor, "N A"],
    gate_up: Float8Matrix,
    down: Float8Matrix,
    configs: Configs | None = None,
) -> Float[Tensor, "N D"]:
    """`kernels.experts.experts_float8`, with sums in float32; `configs` other than the table's."""
    wide, narrow = (Float8Matrix(data=m.data.contiguous(), scale=m.scale.float().contiguous()) for m in (gate_up, down))
    _, D, I = narrow.data.shape
    return _experts(x_ND, index_NA, weight_NA, wide, narrow, D, I, configs)


def packed_int4(matrix: PackedInt4 | Int4Matrix, *, paired: bool) -> PackedInt4:
    """The matrix in the order of the GPU that is current."""
    return matrix if isinstance(matrix, PackedInt4) else pack_int4(matrix, order=order_of(*_target()), paired=paired)


def _experts(
    x: Tensor, index: Tensor, weight: Tensor, wide: _Weights, narrow: _Weights, D: int, I: int,
    configs: Configs | None,
) -> Tensor:  # fmt: skip
    N, A = index.shape
    E = len(wide.data)
    form = INT4 if isinstance(wide, PackedInt4) else FLOAT8 if isinstance(wide, Float8Matrix) else FLOATS
    if configs is None:
        configs = configs_of(*_target(), N * A / E, widens=isinstance(wide, Float8Matrix))
    if N == 0:
        return torch.empty_like(x)
    x, weight = x.contiguous(), weight.contiguous()
    order, table = group(index, E, configs.block)
    gated, outputs, out = x.new_empty(N * A, I), x.new_empty(N * A, D), torch.empty_like(x)
    dtype = tl.float32 if interpreted() else tl.bfloat16
    code = ORDERS[wide.order] if isinstance(wide, PackedInt4) else 0
    words = configs.words and not interpreted()
    row_tiles, steps = tiles(I, 64), tiles(D, 64)
    launch(
        gate_up_kernel, (row_tiles, len(table)), x, order, table, *_parts(wide), gated, D, I, A, row_tiles, steps,
        configs.block, form, code, words, D % 64 == 0, dtype, **configs.gate_up.options(),
    )  # fmt: skip
    row_tiles, steps = tiles(D, 128), tiles(I, 64)
    launch(
        down_kernel, (row_tiles, len(table)), gated, order, table, *_parts(narrow), weight, outputs, D, I, row_tiles,
        steps, configs.block, form, code, words, I % 64 == 0, dtype, **configs.down.options(),
    )  # fmt: skip
    columns = min(1024, power_of_two(D))
    launch(combine_kernel, (N, tiles(D, columns)), outputs, out, D, A, columns)
    return out


def _parts(matrix: _Weights) -> tuple[Tensor, Tensor, Tensor]:
    # A form without scales, or with those of rows only: the kernel does not read the other pointers then.
    if isinstance(matrix, PackedInt4):
        return matrix.data, matrix.scale, matrix.row_scale
    if isinstance(matrix, Float8Matrix):
        return matrix.data.view(torch.uint8), matrix.scale, matrix.scale
    return matrix, matrix, matrix


def _target() -> tuple[str, int | str]:
    """(backend, architecture) of the current GPU."""
    if interpreted():
        return "interpreter", ""
    target = triton.runtime.driver.active.get_current_target()
    return target.backend, target.arch  # type: ignore[union-attr]
