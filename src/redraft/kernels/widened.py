"""Products of frozen matrices that let gradients through: rows stay as they are, and the matrix is widened to their
dtype a tile at a time, in the forward pass and again in the backward pass. Nothing widened is kept between them.

The products of inference round rows too where weights are int8 or int4. Autograd does not see that, so whoever learned
through them would learn against their noise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from redraft.kernels.int8 import PackedInt8
from redraft.kernels.matrices.float8 import Float8Matrix
from redraft.kernels.matrices.int4 import Int4Matrix
from redraft.kernels.matrices.int8 import Int8Matrix

if TYPE_CHECKING:
    from redraft.kernels.triton.packed import PackedInt4

# Of a widened tile. A matrix that is smaller is one tile, and its gradients are autograd's own to the last bit.
TILE_BYTES = 2**26

Frozen = Tensor | Int8Matrix | PackedInt8 | Float8Matrix
# K columns, R rows of a matrix, T of a tile; E experts, S rows in order of their experts
Stack: TypeAlias = "Tensor | Int4Matrix | PackedInt4 | Int8Matrix | Float8Matrix | Sequence[PackedInt8]"


def widened_linear(x: Float[Tensor, "... K"], matrix: Frozen) -> Float[Tensor, "... R"]:
    """x @ matrix.T in x's dtype, with the gradient of x."""
    return _Linear.apply(x, matrix)  # type: ignore[return-value]


def widened_products(rows: Float[Tensor, "S K"], counts: list[int], stack: Stack) -> Float[Tensor, "S R"]:
    """Each run of rows times its expert's matrix, in their dtype, with the gradient of the rows.

    Args:
        rows: in order of their experts.
        counts: of each expert.
        stack: all experts' matrices; those without rows are not widened.
    """
    return _Products.apply(rows, counts, stack)  # type: ignore[return-value]


def tiles(matrix: Frozen, dtype: torch.dtype) -> Iterator[tuple[slice, Float[Tensor, "T K"]]]:
    """(which rows, these widened), from the first row to the last."""
    if isinstance(matrix, Tensor):
        yield slice(0, len(matrix)), matrix.detach().to(dtype)
        return
    found = matrix.unpacked() if isinstance(matrix, PackedInt8) else matrix
    R, K = found.data.shape
    # It is float32 on its way.
    height = max(1, TILE_BYTES // (4 * K))
    for first in range(0, R, height):
        rows = slice(first, min(R, first + height))
        part = dataclasses.replace(found, data=found.data[rows], scale=found.scale[rows])
        yield rows, part.dequantised(dtype)


def widened_expert(stack: Stack, expert: int, dtype: torch.dtype) -> Float[Tensor, "R K"]:
    """One expert's matrix of a stack in any form."""
    if isinstance(stack, Tensor):
        return stack[expert].detach().to(dtype)
    if isinstance(stack, Int4Matrix):
        return stack.dequantised(expert, dtype)
    if isinstance(stack, Float8Matrix):
        return stack.part(expert).dequantised(dtype)
    if isinstance(stack, Int8Matrix):
        return Int8Matrix(data=stack.data[expert], scale=stack.scale[expert]).dequantised(dtype)
    if isinstance(stack, Sequence):
        return stack[expert].unpacked().dequantised(dtype)
    from redraft.kernels.triton.packed import unpack_int4

    one = slice(expert, expert + 1)
    packed = dataclasses.replace(stack, data=stack.data[one], scale=stack.scale[one], row_scale=stack.row_scale[one])
    return unpack_int4(packed).dequantised(0, dtype)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, matrix):  # type: ignore[override]
        # No tensor of autograd's: it would keep what is none of its own.
        ctx.matrix = matrix
        parts = [F.linear(x, tile) for _, tile in tiles(matrix, x.dtype)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[override]
        rows, several = grad.reshape(-1, grad.shape[-1]), tiles(ctx.matrix, grad.dtype)
        first, tile = next(several)
        total = rows[:, first] @ tile
        for part, tile in several:
            # Sums of several tiles are float32, whatever they are made of.
            total = total.float().add_(rows[:, part] @ tile)
        return total.to(grad.dtype).view(*grad.shape[:-1], -1), None


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows, counts, stack):  # type: ignore[override]
        ctx.counts, ctx.stack = counts, stack
        parts = [
            F.linear(part, widened_expert(stack, expert, rows.dtype))
            for expert, part in enumerate(rows.split(counts))
            if len(part)
        ]
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[override]
        parts = [
            part @ widened_expert(ctx.stack, expert, grad.dtype)
            for expert, part in enumerate(grad.split(ctx.counts))
            if len(part)
        ]
        return torch.cat(parts), None, None
