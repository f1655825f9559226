"""Int8 matrices, one scale a row, and rows of activations rounded as they come.

Source of the scheme: symmetric round-to-nearest, scale = largest magnitude / 127, as in LLM.int8 (arXiv 2208.07339,
section 2.1) without its outlier columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from redraft.kernels.native.call import KINDS, call, expect, runs_natively

LARGEST = 127
# oneDNN multiplies unsigned activations: a signed one is shifted up by this, and the sum corrected.
ZERO_POINT = 128

# R rows (outputs), K columns (inputs), M rows of activations


@dataclass(frozen=True, kw_only=True)
class Int8Matrix:
    """A matrix whose row r is `data[r] * scale[r]`, or a stack of them."""

    data: Int[Tensor, "... R K"]
    scale: Float[Tensor, "... R"]

    @classmethod
    def of(cls, weight: Float[Tensor, "R K"]) -> Int8Matrix:
        """Rounds a matrix, row by row."""
        data, scale = quantise_rows(weight)
        return cls(data=data, scale=scale)

    def dequantised(self, dtype: torch.dtype = torch.float32) -> Float[Tensor, "... R K"]:
        """The matrix that the integers stand for."""
        return (self.data.float() * self.scale[..., None]).to(dtype)

    def to(self, device: torch.device | str) -> Int8Matrix:
        """The same on another device."""
        return Int8Matrix(data=self.data.to(device), scale=self.scale.to(device))

    def rows(self, index: Int[Tensor, "..."], dtype: torch.dtype) -> Float[Tensor, "... K"]:
        """Some of its rows."""
        return (F.embedding(index, self.data).float() * self.scale[index][..., None]).to(dtype)


def quantise_rows(x: Float[Tensor, "M K"]) -> tuple[Int[Tensor, "M K"], Float[Tensor, "M"]]:
    """(int8 values, scale of each row); a row of zeros has scale 0."""
    return _quantised(x, 0)


def quantise_unsigned(x: Float[Tensor, "M K"]) -> tuple[Int[Tensor, "M K"], Float[Tensor, "M"]]:
    """`quantise_rows` with values that are 128 higher, as uint8: what `quantised_linear` multiplies fastest."""
    return _quantised(x, ZERO_POINT)


def _quantised(x: Tensor, shift: int) -> tuple[Tensor, Tensor]:
    kind = torch.int8 if shift == 0 else torch.uint8
    if x.numel() and runs_natively("rows", x):
        values, scale = torch.empty(x.shape, dtype=kind), torch.empty(len(x))
        call("rows", "quantise_rows", x, KINDS[x.dtype], *x.shape, shift, values, scale)
        return values, scale
    wide = x.float()
    scale = wide.abs().amax(-1) / LARGEST
    values = wide.mul(torch.where(scale > 0, 1 / scale, 0.0)[:, None]).round_()
    return values.add_(shift).to(kind), scale


def gate_quantised(
    gate_up: Float[Tensor, "M 2I"], row_scale: Float[Tensor, "M"], *, signed: bool = False
) -> tuple[Int[Tensor, "M I"], Float[Tensor, "M"]]:
    """gelu(gate) * up, quantised, for rows that `row_scale` has not been applied to.

    As `quantise_rows` has it if `signed`, else as `quantise_unsigned`.
    """
    M, width = gate_up.shape[0], gate_up.shape[1] // 2
    if M and runs_natively("rows", gate_up, row_scale, kinds=(torch.float32,)):
        expect("gate and up", gate_up, M, 2 * width)
        expect("the rows' scale", row_scale, M)
        values, scale = torch.empty(M, width, dtype=torch.int8 if signed else torch.uint8), torch.empty(M)
        call("rows", "gate_quantise", gate_up, row_scale, M, width, 0 if signed else ZERO_POINT, values, scale)
        return values, scale
    gate, up = (gate_up * row_scale[:, None]).chunk(2, dim=-1)
    return _quantised(F.gelu(gate, approximate="tanh") * up, 0 if signed else ZERO_POINT)
