"""The kernels of the mixture's products; `experts.py` launches them."""

from __future__ import annotations

import triton
import triton.language as tl

from redraft.kernels.triton.dependent import after_the_last
from redraft.kernels.triton.products import INT4, NARROW, WIDENED, float_sum, int4_sum, narrow_parts, narrow_sum
from redraft.kernels.triton.rows_kernels import over_scale

# A experts per row, D hidden, I expert width, TB rows of a block


@triton.jit
def _gate_up_block(
    x_ptr, x_scale_ptr, order_ptr, data_ptr, scale_ptr, row_scale_ptr, gated_ptr, gated_scale_ptr, expert, start, rows,
    D, I, A, total, tiles, steps,
    TB: tl.constexpr, FORM: tl.constexpr, ORDER: tl.constexpr, WORDS: tl.constexpr, EVEN: tl.constexpr,
    DTYPE: tl.constexpr, MOST: tl.constexpr,
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
        if FORM == NARROW:
            acc = narrow_sum(
                x_ptr, place.to(tl.int64), valid, data_ptr, row_scale_ptr, weight_row, unit < I, D, TB, EVEN
            )
            acc *= tl.load(x_scale_ptr + place, mask=valid, other=0.0)[None, :]
        else:
            acc = float_sum(x_ptr, place.to(tl.int64), valid, data_ptr, weight_row, unit < I, D, TB, FORM, EVEN, DTYPE)
            if FORM == WIDENED:
                acc *= tl.load(row_scale_ptr + weight_row, mask=unit < I, other=0.0)[:, None]
    gate, up = tl.split(tl.permute(tl.reshape(acc, (2, 64, TB)), (1, 2, 0)))
    # gelu(tanh): (1 + tanh(u)) / 2 is sigmoid(2 u).
    gated = gate * tl.sigmoid(1.5957691216057308 * (gate + 0.044715 * gate * gate * gate)) * up
    unit = tile * 64 + tl.arange(0, 64)
    at = gated_ptr + (start + lane).to(tl.int64)[:, None] * I + unit[None, :]
    if FORM == NARROW:
        # Of these units only: others are other programs'. Far below zero a gelu is so small that the reciprocal would
        # be infinite, and NaN beside a zero.
        scale = tl.max(tl.abs(gated), axis=0) / MOST
        scale = tl.where(scale > 1e-30, scale, 0.0)
        tl.store(gated_scale_ptr + tile * total + start + lane, scale, mask=valid)
        gated = over_scale(gated, scale[None, :], gated_ptr)
    tl.store(at, tl.trans(gated), mask=valid[:, None] & (unit < I)[None, :])


@triton.jit
def gate_up_kernel(
    x_ptr, x_scale_ptr, order_ptr, table_ptr, data_ptr, scale_ptr, row_scale_ptr, gated_ptr, gated_scale_ptr, D, I, A,
    total, tiles, steps,
    BLOCK: tl.constexpr, FORM: tl.constexpr, ORDER: tl.constexpr, WORDS: tl.constexpr, EVEN: tl.constexpr,
    DTYPE: tl.constexpr, MOST: tl.constexpr,
):  # fmt: skip
    """gelu(gate x) * up x of 64 units for one block of rows, in the assignments' order."""
    after_the_last()
    block = table_ptr + 3 * tl.program_id(1)
    rows = tl.load(block + 2)
    if rows > 0:
        expert, start = tl.load(block), tl.load(block + 1)
        if rows <= 16:
            _gate_up_block(
                x_ptr, x_scale_ptr, order_ptr, data_ptr, scale_ptr, row_scale_ptr, gated_ptr, gated_scale_ptr, expert,
                start, rows, D, I, A, total, tiles, steps, 16, FORM, ORDER, WORDS, EVEN, DTYPE, MOST,
            )  # fmt: skip
        elif rows <= 32 or BLOCK == 32:
            _gate_up_block(
                x_ptr, x_scale_ptr, order_ptr, data_ptr, scale_ptr, row_scale_ptr, gated_ptr, gated_scale_ptr, expert,
                start, rows, D, I, A, total, tiles, steps, 32, FORM, ORDER, WORDS, EVEN, DTYPE, MOST,
            )  # fmt: skip
        else:
            _gate_up_block(
                x_ptr, x_scale_ptr, order_ptr, data_ptr, scale_ptr, row_scale_ptr, gated_ptr, gated_scale_ptr, expert,
                start, rows, D, I, A, total, tiles, steps, BLOCK, FORM, ORDER, WORDS, EVEN, DTYPE, MOST,
            )  # fmt: skip


@triton.jit
def _down_block(
    gated_ptr, gated_scale_ptr, order_ptr, data_ptr, scale_ptr, row_scale_ptr, weight_ptr, out_ptr, expert, start, rows,
    D, I, total, tiles, steps,
    TB: tl.constexpr, FORM: tl.constexpr, ORDER: tl.constexpr, WORDS: tl.constexpr, EVEN: tl.constexpr,
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
        if FORM == NARROW:
            acc = narrow_parts(
                gated_ptr, gated_scale_ptr + start, place, valid, data_ptr, weight_row, row < D, I, steps, total,
                TB, EVEN,
            )  # fmt: skip
        else:
            acc = float_sum(gated_ptr, place, valid, data_ptr, weight_row, row < D, I, TB, FORM, EVEN, DTYPE)
        if FORM >= WIDENED:
            acc *= tl.load(row_scale_ptr + weight_row, mask=row < D, other=0.0)[:, None]
    assignment = tl.load(order_ptr + place, mask=valid, other=0).to(tl.int64)
    acc *= tl.load(weight_ptr + assignment, mask=valid, other=0.0).to(tl.float32)[None, :]
    at = out_ptr + assignment[:, None] * D + row[None, :]
    tl.store(at, tl.trans(acc), mask=valid[:, None] & (row < D)[None, :])


@triton.jit
def down_kernel(
    gated_ptr, gated_scale_ptr, order_ptr, table_ptr, data_ptr, scale_ptr, row_scale_ptr, weight_ptr, out_ptr, D, I,
    total, tiles, steps,
    BLOCK: tl.constexpr, FORM: tl.constexpr, ORDER: tl.constexpr, WORDS: tl.constexpr, EVEN: tl.constexpr,
    DTYPE: tl.constexpr,
):  # fmt: skip
    """weight * down h of 128 outputs for one block of rows, each to its assignment's place."""
    after_the_last()
    block = table_ptr + 3 * tl.program_id(1)
    rows = tl.load(block + 2)
    if rows > 0:
        expert, start = tl.load(block), tl.load(block + 1)
        if rows <= 16:
            _down_block(
                gated_ptr, gated_scale_ptr, order_ptr, data_ptr, scale_ptr, row_scale_ptr, weight_ptr, out_ptr, expert,
                start, rows, D, I, total, tiles, steps, 16, FORM, ORDER, WORDS, EVEN, DTYPE,
            )  # fmt: skip
        elif rows <= 32 or BLOCK == 32:
            _down_block(
                gated_ptr, gated_scale_ptr, order_ptr, data_ptr, scale_ptr, row_scale_ptr, weight_ptr, out_ptr, expert,
                start, rows, D, I, total, tiles, steps, 32, FORM, ORDER, WORDS, EVEN, DTYPE,
            )  # fmt: skip
        else:
            _down_block(
                gated_ptr, gated_scale_ptr, order_ptr, data_ptr, scale_ptr, row_scale_ptr, weight_ptr, out_ptr, expert,
                start, rows, D, I, total, tiles, steps, BLOCK, FORM, ORDER, WORDS, EVEN, DTYPE,
            )  # fmt: skip


@triton.jit
def combine_kernel(outputs_ptr, out_ptr, D, A, COLUMNS: tl.constexpr):
    """The sum of a row's A results, in their order and in float32."""
    after_the_last()
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros([COLUMNS], tl.float32)
    for place in range(0, A):
        total += tl.load(outputs_ptr + (row * A + place) * D + column, mask=column < D, other=0.0).to(tl.float32)
    tl.store(out_ptr + row * D + column, total, mask=column < D)
