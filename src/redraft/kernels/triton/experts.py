"""The mixture's product on a GPU: grouping, gate-up with its activation, down with its weight, and a sum in order.

Each (row, place) result is computed by itself and written to its own place, and a row's A results are added in the
order of its experts: no atomics, and the same bits on every run. Nothing waits for the device.
"""

from __future__ import annotations

from typing import TypeVar

import torch
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from redraft.kernels.matrices.float8 import Float8Matrix
from redraft.kernels.matrices.int4 import Int4Matrix
from redraft.kernels.matrices.int8 import Int8Matrix
from redraft.kernels.triton.configs import Configs, configs_of, order_of
from redraft.kernels.triton.dense import Operands, float8_operands
from redraft.kernels.triton.experts_kernels import combine_kernel, down_kernel, gate_up_kernel
from redraft.kernels.triton.grouping import group
from redraft.kernels.triton.packed import PackedInt4, pack_int4
from redraft.kernels.triton.products import FLOATS, INT4, NARROW, WIDE_STEP, WIDENED
from redraft.kernels.triton.products import ORDER as ORDERS
from redraft.kernels.triton.rows import MOST, Rows, rounded
from redraft.kernels.triton.target import interpreted, launch, power_of_two, target_of, tiles

# N rows, E experts, A experts per row, D hidden, I expert width, TB rows of a block

# Forms that have launches of their own.
_NAMES = {WIDENED.value: "widened", NARROW.value: "narrow", INT4.value: "int4"}

Stack = TypeVar("Stack", PackedInt4, Int8Matrix, Float8Matrix, Tensor)


def experts_triton(
    x_ND: Float[Tensor, "N D"],
    index_NA: Int[Tensor, "N A"],
    weight_NA: Float[Tensor, "N A"],
    gate_up: Stack,
    down: Stack,
    *,
    operands: Operands | None = None,
    configs: Configs | None = None,
) -> Float[Tensor, "N D"]:
    """The `kernels.experts` functions, on a GPU, with sums in float32; see `expert_outputs`.

    Rows of int8 experts, and those of e4m3 where a GPU multiplies it, are rounded as well. Others keep their digits.
    """
    rows = rounded(x_ND, rounded_for(gate_up, operands))
    outputs = expert_outputs(rows, index_NA, weight_NA, gate_up, down, x_ND.dtype, configs)
    N, A, D = outputs.shape
    out = outputs.new_empty(N, D)
    if N:
        columns = min(1024, power_of_two(D))
        launch(combine_kernel, (N, tiles(D, columns)), outputs, out, D, A, columns)
    return out


def rounded_for(stack: PackedInt4 | Int8Matrix | Float8Matrix | Tensor, operands: Operands | None = None) -> (
    torch.dtype | None
):  # fmt: skip
    """What rows are rounded to before they meet experts of a form; None: they are not. `operands` of e4m3, else by the
    GPU."""
    if isinstance(stack, Int8Matrix):
        return torch.int8
    if isinstance(stack, Float8Matrix) and (operands or float8_operands(stack.data.device)) == "float8":
        return torch.float8_e4m3fn
    return None


def packed_int4(matrix: PackedInt4 | Int4Matrix, *, paired: bool) -> PackedInt4:
    """The matrix in the order of the GPU that it lies on."""
    if isinstance(matrix, PackedInt4):
        return matrix
    return pack_int4(matrix, order=order_of(*target_of(matrix.data.device)), paired=paired)


def expert_outputs(
    rows: Rows,
    index_NA: Int[Tensor, "N A"],
    weight_NA: Float[Tensor, "N A"],
    gate_up: Stack,
    down: Stack,
    dtype: torch.dtype,
    configs: Configs | None = None,
) -> Float[Tensor, "N A D"]:
    """What each row's experts make of it, weighed, before it is summed.

    Args:
        rows: [N, D], rounded as `rounded_for` says: e4m3 is widened for rows that are not.
        index_NA: the experts of each row.
        weight_NA: what each one's result weighs.
        gate_up: [E, 2 I, D], of int4 in pairs.
        down: [E, D, I] in the same form.
        dtype: of activations.
        configs: other than the table's.
    """
    (N, A), (E, D, I) = index_NA.shape, (down.data if isinstance(down, (Int8Matrix, Float8Matrix)) else down).shape
    form = _form(gate_up, down, rows)
    x = rows.values.contiguous()
    outputs = x.new_empty(N, A, D, dtype=dtype)
    if N == 0:
        return outputs
    if configs is None:
        configs = configs_of(*target_of(x.device), N * A / E, form=_NAMES.get(form, ""))
    order, table = group(index_NA, E, configs.block)
    narrow = form == NARROW.value
    gated = x.new_empty(N * A, I)
    # One scale for every 64 units, where there are any.
    gated_scale = x.new_empty(tiles(I, 64), N * A, dtype=torch.float32) if narrow else gated
    compute = tl.float32 if interpreted() else tl.bfloat16
    code = ORDERS[gate_up.order] if isinstance(gate_up, PackedInt4) else 0
    words = configs.words and not interpreted()
    shared = (configs.block, form, code, words)
    row_tiles, steps = tiles(I, 64), tiles(D, 64)
    even = D % (WIDE_STEP.value if narrow else 64) == 0
    launch(
        gate_up_kernel, (row_tiles, len(table)), x, rows.pointers[1], order, table, *_pointers(gate_up, form), gated,
        gated_scale, D, I, A, N * A, row_tiles, steps, *shared, even, compute, MOST.get(x.dtype, 0.0),
        **configs.gate_up.options(),
    )  # fmt: skip
    row_tiles, steps = tiles(D, 128), tiles(I, 64)
    launch(
        down_kernel, (row_tiles, len(table)), gated, gated_scale, order, table, *_pointers(down, form),
        weight_NA.contiguous(), outputs, D, I, N * A, row_tiles, steps, *shared, I % 64 == 0, compute,
        **configs.down.options(),
    )  # fmt: skip
    return outputs


def _form(gate_up: Stack, down: Stack, rows: Rows) -> int:
    if isinstance(gate_up, PackedInt4):
        assert isinstance(down, PackedInt4)
        assert gate_up.paired
        assert not down.paired
        assert gate_up.order == down.order
        return INT4.value
    if rows.scale is not None:
        return NARROW.value
    assert not isinstance(gate_up, Int8Matrix)
    return WIDENED.value if isinstance(gate_up, Float8Matrix) else FLOATS.value


def _pointers(matrix: PackedInt4 | Int8Matrix | Float8Matrix | Tensor, form: int) -> tuple[Tensor, Tensor, Tensor]:
    # A form without scales, or with those of rows only: the kernel does not read the other pointers then.
    if isinstance(matrix, PackedInt4):
        return matrix.data, matrix.scale, matrix.row_scale
    if isinstance(matrix, (Int8Matrix, Float8Matrix)):
        scale = matrix.scale.float().contiguous()
        data = matrix.data.contiguous()
        return data.view(torch.uint8) if form == WIDENED.value else data, scale, scale
    matrix = matrix.contiguous()
    return matrix, matrix, matrix
