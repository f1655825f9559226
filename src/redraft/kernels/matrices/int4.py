"""Int4 matrices: blocks of 8 rows by 32 columns, a one-byte scale for the 32 weights of a row in a block, and one float
a row. 4.25 bits a weight, laid out so that a mapped file is multiplied as it lies there.

A weight is (q - 8) * scale * row_scale with q in 0..15. A scale's byte is a sign, three bits of exponent and four of
mantissa, (1 + m / 16) * 2^(e - 7): times any q - 8 it has at most eight significant bits, so bfloat16 holds the product
exactly. The sign is worth 6% of the error: -8 has no counterpart, and the largest weight of a group may have either.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from redraft.kernels.native.call import call, expect, runs_natively

ROWS, COLUMNS = 8, 32
BYTES = ROWS * COLUMNS // 2
_ZERO = 8
_LEAST, _MOST = 2.0**-7, 31 / 16
# Shares of a group's largest magnitude that -8 or 7 may stand for.
_CLIPS = tuple(0.6 + 0.05 * step for step in range(12))

# E experts, R rows (outputs), K columns (inputs), M rows of activations; B = R / 8 blocks, G = K / 32 groups


@dataclass(frozen=True, kw_only=True)
class Int4Matrix:
    """A stack of matrices in int4.

    Attributes:
        data: byte 32 j + 4 r + i of a block holds columns 4 j + i (low half) and 16 + 4 j + i (high half) of its row r.
        scale: of the 32 columns of each row of a block.
        row_scale: of each row.
    """

    data: UInt8[Tensor, "E B G 128"]
    scale: UInt8[Tensor, "E B G 8"]
    row_scale: Float[Tensor, "E R"]

    @staticmethod
    def fits(shape: tuple[int, ...]) -> bool:
        """Whether a matrix of this shape divides into blocks."""
        return shape[-2] % ROWS == 0 and shape[-1] % COLUMNS == 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(experts, rows, columns)."""
        E, B, G, _ = self.data.shape
        return E, B * ROWS, G * COLUMNS

    def to(self, device: torch.device | str) -> Int4Matrix:
        """The same on another device."""
        return Int4Matrix(data=self.data.to(device), scale=self.scale.to(device), row_scale=self.row_scale.to(device))

    def dequantised(self, expert: int, dtype: torch.dtype = torch.float32) -> Float[Tensor, "R K"]:
        """The matrix that one expert's integers stand for."""
        _, R, K = self.shape
        # [B, G, j, r, i] twice: the low halves are the first 16 columns.
        halves = self.data[expert].view(R // ROWS, K // COLUMNS, 4, ROWS, 4)
        integers = torch.cat([halves & 15, halves >> 4], dim=2).permute(0, 3, 1, 2, 4).reshape(R, -1, COLUMNS)
        scale = scale_of(self.scale[expert]).permute(0, 2, 1).reshape(R, -1, 1)
        return ((integers.float() - _ZERO) * scale).view(R, K).mul_(self.row_scale[expert][:, None]).to(dtype)

    def all_dequantised(self) -> Float[Tensor, "E R K"]:
        """All of them, in float32."""
        return torch.stack([self.dequantised(expert) for expert in range(self.shape[0])])


def scale_of(code: UInt8[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The scale that a byte means."""
    bits = ((code.int() & 0x7F) << 19) + (120 << 23)
    return torch.where(code >= 0x80, -1.0, 1.0) * bits.view(torch.float32)


def code_of(scale: Float[Tensor, "..."]) -> UInt8[Tensor, "..."]:
    """The byte of the nearest scale, ties away from zero; beyond the range, its end."""
    size = scale.abs().clamp(_LEAST, _MOST).contiguous()
    rounded = ((size.view(torch.int32) - (120 << 23) + (1 << 18)) >> 19).clamp_(max=0x7F)
    return (rounded | torch.where(scale < 0, 0x80, 0)).to(torch.uint8)


def quantise_int4(
    weight: Float[Tensor, "R K"], importance: Float[Tensor, "K"] | None = None
) -> tuple[UInt8[Tensor, "B G 128"], UInt8[Tensor, "B G 8"], Float[Tensor, "R"]]:
    """(data, scale, row_scale) of one matrix, by the scales that lose least in the sum of squares.

    Args:
        weight: the matrix; its shape must divide into blocks.
        importance: what an error in each column weighs, such as the mean square of what it is multiplied with.

    Raises:
        ValueError: the shape does not divide.
    """
    weight = weight.float().contiguous()
    R, K = weight.shape
    if not Int4Matrix.fits((R, K)):
        raise ValueError(f"a matrix of {R} x {K} does not divide into blocks of {ROWS} x {COLUMNS}")
    if runs_natively("int4_rounding", weight) and (importance is None or importance.device.type == "cpu"):
        data = torch.empty(R // ROWS, K // COLUMNS, BYTES, dtype=torch.uint8)
        scale, row_scale = torch.empty(R // ROWS, K // COLUMNS, ROWS, dtype=torch.uint8), torch.empty(R)
        weights = None if importance is None else importance.float().contiguous()
        expect("importance", weights, K)
        call("int4_rounding", "int4_quantise", weight, weights, R, K, data, scale, row_scale)
        return data, scale, row_scale
    return _quantise_reference(weight, importance)


def _quantise_reference(weight: Tensor, importance: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    R, K = weight.shape
    groups = weight.view(R, K // COLUMNS, COLUMNS)
    largest = groups.abs().amax(-1)
    most = largest.amax(-1, keepdim=True)
    # The largest group's widest clip is the largest scale that there is.
    unit = torch.where(most > 0, most * _CLIPS[-1] / _ZERO / _MOST, 1.0)
    weights = 1.0 if importance is None else importance.float().view(1, -1, COLUMNS)
    best = torch.full(largest.shape, code_of(torch.tensor(_LEAST)).item(), dtype=torch.uint8, device=weight.device)
    least = torch.full_like(largest, torch.inf)
    for clip in _CLIPS:
        for side in (1.0, -1.0):
            code = code_of(largest * (side * clip) / _ZERO / unit)
            scale = (scale_of(code) * unit)[..., None]
            error = ((_integers(groups, scale) * scale - groups).square() * weights).sum(-1)
            better = error < least
            least, best = torch.where(better, error, least), torch.where(better, code, best)
    integers = (_integers(groups, (scale_of(best) * unit)[..., None]) + _ZERO).to(torch.uint8)
    # [B, r, G, half, j, i] -> [B, G, half, j, r, i]
    halves = integers.view(R // ROWS, ROWS, K // COLUMNS, 2, 4, 4).permute(0, 2, 3, 4, 1, 5)
    data = (halves[:, :, 0] | halves[:, :, 1] << 4).reshape(R // ROWS, K // COLUMNS, BYTES)
    return data, best.view(R // ROWS, ROWS, -1).transpose(1, 2).contiguous(), unit[:, 0].contiguous()


def _integers(groups: Tensor, scale: Tensor) -> Tensor:
    return (groups * (1 / scale)).round_().clamp_(-8, 7)
