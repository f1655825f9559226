"""Products of int8 matrices, summed exactly in int32; activations are quantised row by row as they come."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from redraft.kernels.dots import dot_lanes, dots_linear, dots_product, pack, unpack
from redraft.kernels.matrices.int8 import LARGEST, ZERO_POINT, Int8Matrix, quantise_unsigned
from redraft.kernels.native.call import call, expect, runs_natively
from redraft.kernels.private import private
from redraft.kernels.triton.fallback import attempt, on_gpu

# Of the blocks of int8.cpp.
_ROWS, _STEP = 8, 16

_TORCH = "int8 products are made without it, more slowly"

# R rows (outputs), K columns (inputs), M rows of activations


@dataclass(frozen=True, kw_only=True)
class PackedInt8:
    """An `Int8Matrix` in the layout that this machine multiplies fastest; made once, at load.

    Attributes:
        data: the layout of `dots.py`, oneDNN's own, that of `int8.cpp`, or [R, K].
        scale: of each row.
        columns: K.
        layout: "dots" where there is a compiler and the CPU has such products, else "onednn" where its products are
            exact, else "blocks" where there is a compiler, else "plain".
        zeros: of the layout "dots".
    """

    data: Tensor
    scale: Float[Tensor, "R"]
    columns: int
    layout: Literal["dots", "onednn", "blocks", "plain"]
    zeros: Int[Tensor, "R"] | None = None

    @classmethod
    def of(cls, matrix: Int8Matrix) -> PackedInt8:
        """Packs a matrix for `int8_linear`."""
        if matrix.data.device.type == "cpu" and dot_lanes():
            return PackedStack.of(Int8Matrix(data=matrix.data[None], scale=matrix.scale[None]))[0]
        R, K = matrix.data.shape
        layout = "plain"
        data = matrix.data.contiguous()
        if data.device.type == "cpu" and has_exact_products():
            layout, data = "onednn", _prepack()(data, None)
        elif R and runs_natively("int8", data, kinds=(torch.int8,)):
            layout, padded = "blocks", -(-K // _STEP) * _STEP
            blocks = torch.empty(-(-R // _ROWS), padded, _ROWS, dtype=torch.int8)
            call("int8", "int8_pack", data, R, K, padded, blocks)
            data = blocks
        return cls(data=data, scale=matrix.scale.float().contiguous(), columns=K, layout=layout)

    def unpacked(self) -> Int8Matrix:
        """The matrix again, in memory of its own unless it lies plainly."""
        R, K = len(self.scale), self.columns
        if self.layout == "plain":
            return Int8Matrix(data=self.data, scale=self.scale)
        if self.layout == "dots":
            return Int8Matrix(data=unpack(self.data, R, K), scale=self.scale)
        if self.layout == "onednn":
            return Int8Matrix(data=self.data.to_dense().T.contiguous(), scale=self.scale)
        # Two columns of each row of a block stand together.
        pairs = self.data.view(len(self.data), -1, _ROWS, 2).transpose(1, 2)
        return Int8Matrix(data=pairs.reshape(-1, self.data.shape[1])[:R, :K].contiguous(), scale=self.scale)

    @classmethod
    def parts(cls, stack: Int8Matrix) -> list[PackedInt8]:
        """A stack's matrices as they lie, for the form that any device runs."""
        K = stack.data.shape[-1]
        return [cls(data=d, scale=s, columns=K, layout="plain") for d, s in zip(stack.data, stack.scale, strict=True)]


@dataclass(frozen=True, kw_only=True)
class PackedStack(Sequence[PackedInt8]):
    """Matrices in the layout "dots", one behind the other, so that one call reaches all of them."""

    data: Int[Tensor, "E B Q L 4"]
    zeros: Int[Tensor, "E R"]
    scale: Float[Tensor, "E R"]
    columns: int

    @classmethod
    def of(cls, stack: Int8Matrix) -> PackedStack:
        """Packs a stack, where `dot_lanes` is not 0."""
        data, zeros = pack(stack.data)
        return cls(data=data, zeros=zeros, scale=stack.scale.float().contiguous(), columns=stack.data.shape[-1])

    def fits(self, x: Tensor) -> bool:
        """Whether gate and up are whole blocks each, and rows of this kind are rounded natively."""
        lanes = self.data.shape[3]
        return self.scale.shape[1] % (2 * lanes) == 0 and lanes == dot_lanes() and runs_natively("dots", x)

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """(data, zeros, scale), as a call takes them."""
        return self.data, self.zeros, self.scale

    def __len__(self) -> int:
        return len(self.scale)

    def __getitem__(self, n: int) -> PackedInt8:  # type: ignore[override]
        return PackedInt8(
            data=self.data[n], scale=self.scale[n], columns=self.columns, layout="dots", zeros=self.zeros[n]
        )


def int8_linear(x: Float[Tensor, "... K"], weight: PackedInt8) -> Float[Tensor, "... R"]:
    """x @ weight.T with x rounded to int8 row by row; the result has x's dtype."""
    rows = x.reshape(-1, x.shape[-1])
    if weight.zeros is not None and runs_natively("dots", rows):
        return dots_linear(rows, weight.data, weight.zeros, weight.scale).view(*x.shape[:-1], len(weight.scale))

    def reference() -> Tensor:
        return quantised_linear(*quantise_unsigned(rows), weight).to(x.dtype)

    if weight.layout == "plain" and on_gpu(x, weight.data, weight.scale):

        def fast() -> Tensor:
            from redraft.kernels.triton.dense import dense_int8

            return dense_int8(rows, weight.data, weight.scale)

        product = attempt("dense_int8", fast, reference)
    else:
        product = reference()
    return product.view(*x.shape[:-1], len(weight.scale))


def quantised_linear(
    values: Int[Tensor, "M K"], scale: Float[Tensor, "M"] | None, weight: PackedInt8
) -> Float[Tensor, "M R"]:
    """The float32 product of rows that have been quantised already.

    Args:
        values: int8, or uint8 that is 128 higher.
        scale: of each row; None leaves the rows of the product without it.
        weight: the matrix.
    """
    if weight.layout == "plain":
        return _reference(values, scale, weight)
    if weight.zeros is not None:
        product = dots_product(values, weight.data, weight.zeros, weight.scale)
        return product if scale is None else product.mul_(scale[:, None])
    if weight.layout == "blocks":
        product = torch.empty(len(values), len(weight.scale))
        expect("the rows", values := values.contiguous(), len(values), weight.columns)
        shift, padded = (ZERO_POINT if values.dtype == torch.uint8 else 0), weight.data.shape[1]
        call(
            "int8", "int8_product", values, *values.shape, shift, weight.data, weight.scale,
            len(weight.scale), padded, product,
        )  # fmt: skip
        return product if scale is None else product.mul_(scale[:, None])
    product = private("ops.onednn.qlinear_pointwise", _TORCH)(
        values if values.dtype == torch.uint8 else values.view(torch.uint8) ^ ZERO_POINT,
        1.0,
        ZERO_POINT,
        weight.data,
        weight.scale,
        torch.zeros(len(weight.scale), dtype=torch.int32),
        None,
        1.0,
        0,
        torch.float32,
        "none",
        [],
        "",
    )
    return product if scale is None else product.mul_(scale[:, None])


def _reference(values: Tensor, scale: Tensor | None, weight: PackedInt8) -> Tensor:
    wide = values.float() - (ZERO_POINT if values.dtype == torch.uint8 else 0)
    # float32 holds the sums exactly up to 2^24, which is 1,040 columns of the largest products.
    product = F.linear(wide, weight.data.float()) * weight.scale
    return product if scale is None else product * scale[:, None]


def _prepack() -> Any:
    return private("ops.onednn.qlinear_prepack", _TORCH)


@functools.cache
def has_exact_products() -> bool:
    """Whether oneDNN multiplies u8 by s8 here without saturating; CPUs before VNNI and ARM builds may not."""
    values = torch.full((16, 64), LARGEST, dtype=torch.int8)
    values[::2] = -LARGEST
    matrix = Int8Matrix(data=values.clone(), scale=torch.ones(16))
    if not torch.backends.mkldnn.is_available() or _prepack() is None:
        return False
    try:
        data = _prepack()(matrix.data, None)
        weight = PackedInt8(data=data, scale=matrix.scale, columns=64, layout="onednn")
        product = quantised_linear(values, torch.ones(16), weight)
    except (RuntimeError, TypeError):
        return False
    return torch.equal(product, values.float() @ matrix.data.float().T)
