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
from redraft.kernels.triton.experts_kernels import combine_kernel, down_kernel, gate_up_kernel
from redraft.kernels.triton.grouping import group
from redraft.kernels.triton.packed import PackedInt4, pack_int4
from redraft.kernels.triton.products import FLOAT8, FLOATS, INT4
from redraft.kernels.triton.products import ORDER as ORDERS
from redraft.kernels.triton.target import interpreted, launch, power_of_two, tiles

# N rows, E experts, A experts per row, D hidden, I expert width, TB rows of a block

_Weights = PackedInt4 | Float8Matrix | Tensor


def experts_bf16(
    x_ND: Float[Tensor, "N D"],
    index_NA: Int[Tensor, "N A"],
    weight_NA: Float[Tensor, "N A"],
    gate_up_E2ID: Float[Tensor, "E 2I D"],
    down_EDI: Float[Tensor, "E D I"],
    configs: Configs | None = None,
) -> Float[Tensor, "N D"]:
    """`kernels.experts.experts` of bfloat16 weights, with sums in float32; `configs` other than the table's."""
    return _summed(expert_outputs(x_ND, index_NA, weight_NA, gate_up_E2ID, down_EDI, configs))


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
    return _summed(expert_outputs(x_ND, index_NA, weight_NA, wide, narrow, configs))


def experts_float8(
    x_ND: Float[Tensor, "N D"],
    index_NA: Int[Tensor, "N A"],
    weight_NA: Float[Tensor, "N A"],
    gate_up: Float8Matrix,
    down: Float8Matrix,
    configs: Configs | None = None,
) -> Float[Tensor, "N D"]:
    """`kernels.experts.experts_float8`, with sums in float32; `configs` other than the table's."""
    return _summed(expert_outputs(x_ND, index_NA, weight_NA, gate_up, down, configs))


def packed_int4(matrix: PackedInt4 | Int4Matrix, *, paired: bool) -> PackedInt4:
    """The matrix in the order of the GPU that is current."""
    return matrix if isinstance(matrix, PackedInt4) else pack_int4(matrix, order=order_of(*_target()), paired=paired)


def expert_outputs(
    x_ND: Float[Tensor, "N D"],
    index_NA: Int[Tensor, "N A"],
    weight_NA: Float[Tensor, "N A"],
    gate_up: _Weights,
    down: _Weights,
    configs: Configs | None = None,
) -> Float[Tensor, "N A D"]:
    """What each row's experts make of it, weighed, before it is summed.

    Args:
        x_ND: the rows.
        index_NA: the experts of each row.
        weight_NA: what each one's result weighs.
        gate_up: [E, 2 I, D]: packed in pairs, e4m3, or floats.
        down: [E, D, I] in the same form.
        configs: other than the table's.
    """
    (N, A), (E, D, I) = index_NA.shape, down.data.shape if isinstance(down, Float8Matrix) else down.shape
    form = INT4 if isinstance(gate_up, PackedInt4) else FLOAT8 if isinstance(gate_up, Float8Matrix) else FLOATS
    outputs = x_ND.new_empty(N, A, D)
    if N == 0:
        return outputs
    if configs is None:
        configs = configs_of(*_target(), N * A / E, widens=isinstance(gate_up, Float8Matrix))
    x, weight = x_ND.contiguous(), weight_NA.contiguous()
    order, table = group(index_NA, E, configs.block)
    gated = x.new_empty(N * A, I)
    dtype = tl.float32 if interpreted() else tl.bfloat16
    code = ORDERS[gate_up.order] if isinstance(gate_up, PackedInt4) else 0
    words = configs.words and not interpreted()
    row_tiles, steps = tiles(I, 64), tiles(D, 64)
    launch(
        gate_up_kernel, (row_tiles, len(table)), x, order, table, *_parts(gate_up), gated, D, I, A, row_tiles, steps,
        configs.block, form, code, words, D % 64 == 0, dtype, **configs.gate_up.options(),
    )  # fmt: skip
    row_tiles, steps = tiles(D, 128), tiles(I, 64)
    launch(
        down_kernel, (row_tiles, len(table)), gated, order, table, *_parts(down), weight, outputs, D, I, row_tiles,
        steps, configs.block, form, code, words, I % 64 == 0, dtype, **configs.down.options(),
    )  # fmt: skip
    return outputs


def _summed(outputs: Float[Tensor, "N A D"]) -> Float[Tensor, "N D"]:
    N, A, D = outputs.shape
    out = outputs.new_empty(N, D)
    if N:
        columns = min(1024, power_of_two(D))
        launch(combine_kernel, (N, tiles(D, columns)), outputs, out, D, A, columns)
    return out


def _parts(matrix: _Weights) -> tuple[Tensor, Tensor, Tensor]:
    # A form without scales, or with those of rows only: the kernel does not read the other pointers then.
    if isinstance(matrix, PackedInt4):
        return matrix.data, matrix.scale, matrix.row_scale
    if isinstance(matrix, Float8Matrix):
        scale = matrix.scale.float().contiguous()
        return matrix.data.contiguous().view(torch.uint8), scale, scale
    matrix = matrix.contiguous()
    return matrix, matrix, matrix


def _target() -> tuple[str, int | str]:
    """(backend, architecture) of the current GPU."""
    if interpreted():
        return "interpreter", ""
    target = triton.runtime.driver.active.get_current_target()
    return target.backend, target.arch  # type: ignore[union-attr]
