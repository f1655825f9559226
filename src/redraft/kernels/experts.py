"""The mixture's product: rows grouped by expert once, two matrix products per expert, weighted sum back.

Each row's A results are gathered and summed in the order of `index`, never scattered: no atomics, and the same bits
on every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from redraft.kernels.dots import dots_experts
from redraft.kernels.groups import Groups, gated, inverse_of, permuted, weighted
from redraft.kernels.int4 import int4_products, mixed_int4, runs_int4
from redraft.kernels.int8 import PackedInt8, PackedStack, quantised_linear
from redraft.kernels.linear import few_experts, runs_few
from redraft.kernels.matrices.float8 import Float8Matrix
from redraft.kernels.matrices.int4 import Int4Matrix
from redraft.kernels.matrices.int8 import Int8Matrix, gate_quantised, quantise_rows, quantise_unsigned
from redraft.kernels.triton.fallback import attempt, on_gpu

if TYPE_CHECKING:
    from redraft.kernels.triton.packed import PackedInt4

# N rows, E experts, A experts per row, D hidden, I expert width


# oneDNN makes and keeps a kernel for every number of rows. Shares are rounded up, so that it meets few of them.
_ROWS = 16
# Up to this many columns of all experts' gate and up together, an accelerator runs every expert on every row: two wide
# products and no wait for the host to count rows.
_EVERY_COLUMNS = 8192


def experts(
    x_ND: Float[Tensor, "N D"],
    index_NA: Int[Tensor, "N A"],
    weight_NA: Float[Tensor, "N A"],
    gate_up_E2ID: Float[Tensor, "E 2I D"],
    down_EDI: Float[Tensor, "E D I"],
) -> Float[Tensor, "N D"]:
    """sum over a of weight[n, a] * down[e] (gelu(gate[e] x) * up[e] x), with e = index[n, a]."""
    learning = torch.is_grad_enabled() and any(x.requires_grad for x in (x_ND, gate_up_E2ID, down_EDI))
    given = (x_ND, index_NA, weight_NA, gate_up_E2ID, down_EDI)
    if not learning and gate_up_E2ID.dtype == torch.bfloat16 and _runs_in_triton(x_ND, gate_up_E2ID, down_EDI):
        return attempt("experts_bf16", lambda: _fast(*given), lambda: _torch(*given, False))
    return _torch(*given, learning)


def _runs_in_triton(x: Tensor, wide: Tensor, narrow: Tensor) -> bool:
    return x.dtype == torch.bfloat16 and on_gpu(x, wide, narrow)


def _fast(*given: Any) -> Tensor:
    from redraft.kernels.triton.experts import experts_triton

    return experts_triton(*given)


def _torch(
    x_ND: Tensor, index_NA: Tensor, weight_NA: Tensor, gate_up_E2ID: Tensor, down_EDI: Tensor, learning: bool
) -> Tensor:
    if x_ND.device.type != "cpu" and gate_up_E2ID.shape[0] * gate_up_E2ID.shape[1] <= _EVERY_COLUMNS:
        return every_expert(x_ND, index_NA, weight_NA, gate_up_E2ID, down_EDI)
    return _experts(x_ND, index_NA, weight_NA, gate_up_E2ID, down_EDI, learning)


def every_expert(
    x_ND: Float[Tensor, "N D"],
    index_NA: Int[Tensor, "N A"],
    weight_NA: Float[Tensor, "N A"],
    gate_up_E2ID: Float[Tensor, "E 2I D"],
    down_EDI: Float[Tensor, "E D I"],
) -> Float[Tensor, "N D"]:
    """`experts` as one wide gated product, in which experts that were not chosen weigh nothing; with gradients."""
    N, E = len(x_ND), len(gate_up_E2ID)
    weight_NE = x_ND.new_zeros(N, E).scatter(1, index_NA, weight_NA.to(x_ND.dtype))
    gated_NEI = gated(F.linear(x_ND, gate_up_E2ID.flatten(0, 1)).view(N, E, -1))
    return (gated_NEI * weight_NE[..., None]).flatten(1) @ down_EDI.transpose(1, 2).flatten(0, 1)


def _experts(
    x_ND: Tensor, index_NA: Tensor, weight_NA: Tensor, gate_up_E2ID: Tensor, down_EDI: Tensor, learning: bool
) -> Tensor:
    if not learning and runs_few(x_ND, index_NA.shape[1], gate_up_E2ID, down_EDI):
        return few_experts(x_ND, index_NA, weight_NA, gate_up_E2ID, down_EDI)
    groups = Groups.of(index_NA, len(gate_up_E2ID), 1 if learning or x_ND.dtype == torch.float32 else _ROWS)
    if learning:
        outputs = _with_gradient(x_ND, groups, index_NA.shape[1], gate_up_E2ID, down_EDI)
    else:
        rows = x_ND[groups.source]
        outputs = _products(gated(_products(rows, groups.counts, gate_up_E2ID)), groups.counts, down_EDI)
    return weighted(outputs, groups, weight_NA)


def experts_int8(
    x_ND: Float[Tensor, "N D"],
    index_NA: Int[Tensor, "N A"],
    weight_NA: Float[Tensor, "N A"],
    gate_up: Sequence[PackedInt8] | Int8Matrix,
    down: Sequence[PackedInt8] | Int8Matrix,
) -> Float[Tensor, "N D"]:
    """`experts` with int8 weights, packed one by one or in stacks; every row is quantised once, however many experts it
    goes to.

    An accelerator without Triton widens few weights for `every_expert` instead, and leaves rows as they are.
    """
    if isinstance(gate_up, Int8Matrix) and isinstance(down, Int8Matrix):
        given, stacks = (x_ND, index_NA, weight_NA), (gate_up, down)

        def one_by_one() -> Tensor:
            return experts_int8(*given, *(PackedInt8.parts(stack) for stack in stacks))

        if _runs_in_triton(x_ND, gate_up.data, down.data):
            return attempt("experts_int8", lambda: _fast(*given, *stacks), one_by_one)
        return one_by_one()
    assert not isinstance(gate_up, Int8Matrix)
    assert not isinstance(down, Int8Matrix)
    if x_ND.device.type != "cpu" and len(gate_up) * len(gate_up[0].scale) <= _EVERY_COLUMNS:
        return every_int8(x_ND, index_NA, weight_NA, gate_up, down)
    if isinstance(gate_up, PackedStack) and isinstance(down, PackedStack) and gate_up.fits(x_ND):
        return dots_experts(x_ND, index_NA, weight_NA, gate_up.parts, down.parts).to(x_ND.dtype)
    groups = Groups.of(index_NA, len(gate_up), _ROWS)
    values, scale = quantise_unsigned(x_ND)
    product = int8_products(values[groups.source], groups.counts, gate_up)
    values, gated_scale = gate_quantised(product, scale[groups.source])
    outputs = int8_products(values, groups.counts, down)
    # A row's scale goes into its weight: one pass less over the widest results.
    weights = weight_NA.float() * gated_scale[groups.slot].view_as(weight_NA)
    return weighted(outputs, groups, weights).to(x_ND.dtype)


def every_int8(
    x_ND: Float[Tensor, "N D"],
    index_NA: Int[Tensor, "N A"],
    weight_NA: Float[Tensor, "N A"],
    gate_up: Sequence[PackedInt8],
    down: Sequence[PackedInt8],
) -> Float[Tensor, "N D"]:
    """`every_expert` of matrices whose layout is plain."""
    wide, narrow = (
        torch.stack([(part.data.float() * part.scale[:, None]).to(x_ND.dtype) for part in stack])
        for stack in (gate_up, down)
    )
    return every_expert(x_ND, index_NA, weight_NA, wide, narrow)


def experts_int4(
    x_ND: Float[Tensor, "N D"],
    index_NA: Int[Tensor, "N A"],
    weight_NA: Float[Tensor, "N A"],
    gate_up: Int4Matrix | PackedInt4,
    down: Int4Matrix | PackedInt4,
) -> Float[Tensor, "N D"]:
    """`experts` with int4 weights: int8 rows, as in `experts_int8`, or on a GPU bfloat16 ones as they are."""
    given = (x_ND, index_NA, weight_NA, gate_up, down)
    if not _runs_in_triton(x_ND, gate_up.data, down.data):
        return _experts_int4(*given)

    def fast() -> Tensor:
        from redraft.kernels.triton.experts import packed_int4

        return _fast(*given[:3], packed_int4(gate_up, paired=True), packed_int4(down, paired=False))

    return attempt("experts_int4", fast, lambda: _experts_int4(*given))


def _experts_int4(
    x_ND: Tensor, index_NA: Tensor, weight_NA: Tensor, gate_up: Int4Matrix | PackedInt4, down: Int4Matrix | PackedInt4
) -> Tensor:
    gate_up, down = _stored(gate_up), _stored(down)
    if runs_int4(x_ND, gate_up, down):
        return mixed_int4(x_ND, index_NA, weight_NA, gate_up, down).to(x_ND.dtype)
    groups = Groups.of(index_NA, gate_up.shape[0])
    values, scale = quantise_rows(x_ND)
    product = int4_products(values[groups.source], groups.counts, gate_up)
    values, gated_scale = gate_quantised(product, scale[groups.source], signed=True)
    outputs = int4_products(values, groups.counts, down)
    weights = weight_NA.float() * gated_scale[groups.slot].view_as(weight_NA)
    return weighted(outputs, groups, weights).to(x_ND.dtype)


def _stored(matrix: Int4Matrix | PackedInt4) -> Int4Matrix:
    if isinstance(matrix, Int4Matrix):
        return matrix
    from redraft.kernels.triton.packed import unpack_int4

    return unpack_int4(matrix)


def experts_float8(
    x_ND: Float[Tensor, "N D"],
    index_NA: Int[Tensor, "N A"],
    weight_NA: Float[Tensor, "N A"],
    gate_up: Float8Matrix,
    down: Float8Matrix,
) -> Float[Tensor, "N D"]:
    """`experts` with float8 weights, widened one expert at a time; a GPU multiplies or widens them in registers."""
    given = (x_ND, index_NA, weight_NA, gate_up, down)
    if _runs_in_triton(x_ND, gate_up.data, down.data):
        return attempt("experts_float8", lambda: _fast(*given), lambda: _experts_float8(*given))
    return _experts_float8(*given)


def _experts_float8(
    x_ND: Tensor, index_NA: Tensor, weight_NA: Tensor, gate_up: Float8Matrix, down: Float8Matrix
) -> Tensor:
    groups = Groups.of(index_NA, len(gate_up.data), 1 if x_ND.dtype == torch.float32 else _ROWS)
    middle = gated(_products(x_ND[groups.source], groups.counts, gate_up))
    return weighted(_products(middle, groups.counts, down), groups, weight_NA)


def _products(
    rows: Float[Tensor, "S K"], counts: list[int], weights_EOK: Float[Tensor, "E O K"] | Float8Matrix
) -> Tensor:
    """Each run of rows times its expert's matrix, into one result."""
    narrow = isinstance(weights_EOK, Float8Matrix)
    out = rows.new_empty(len(rows), (weights_EOK.data if narrow else weights_EOK).shape[1])
    for expert, (part, into) in enumerate(zip(rows.split(counts), out.split(counts), strict=True)):
        if len(part):
            weight = weights_EOK.part(expert).dequantised(rows.dtype) if narrow else weights_EOK[expert]
            torch.mm(part, weight.T, out=into)
    return out


def int8_products(values: Tensor, counts: list[int], weights: Sequence[PackedInt8]) -> Float[Tensor, "S O"]:
    """`_products` of quantised rows, without the rows' scales."""
    outputs = [
        quantised_linear(part, None, weight)
        for part, weight in zip(values.split(counts), weights, strict=True)
        if len(part)
    ]
    return torch.cat(outputs)


def _with_gradient(x: Tensor, groups: Groups, A: int, gate_up: Tensor, down: Tensor) -> Tensor:
    # Here every slot has its assignment, so that slots are a permutation of them.
    repeated = x[:, None].expand(-1, A, -1).reshape(len(x) * A, -1)
    rows = permuted(repeated, inverse_of(groups.slot), groups.slot)
    # split and unbind, not slices: the backward pass of a slice fills a tensor of the whole's size with zeros.
    outputs = [
        F.linear(gated(F.linear(part, wide)), narrow)
        for part, wide, narrow in zip(rows.split(groups.counts), gate_up.unbind(), down.unbind(), strict=True)
        if len(part)
    ]
    return torch.cat(outputs)
