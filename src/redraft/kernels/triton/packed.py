"""Int4 matrices as Triton kernels read them: tiles of 128 rows by 64 columns, each 4,096 bytes in one run.

In `fragments` order (NVIDIA) a thread's 16 bytes of a tile are the operand that it hands to the tensor core, so that
weights go from memory to the product without passing through shared memory. Which weights those are differs between
warp-group products (compute capability 9.0) and the older ones, so there are two such orders. Elsewhere `rows`: byte
32 r + c of a tile holds columns c and 32 + c of row r, which are of different groups.

Of a gate-up matrix a tile is 64 gate rows above their 64 up rows: one program has both and multiplies them.
Source: the fragments of mma and wgmma, PTX ISA, "Matrix Fragments".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from redraft.kernels.matrices.int4 import COLUMNS, ROWS, Int4Matrix

# E experts, R rows, K columns; T tiles of rows, S tiles of columns

TILE_ROWS, TILE_COLUMNS = 128, 64
TILE_BYTES = TILE_ROWS * TILE_COLUMNS // 2
TILE_SCALES = TILE_ROWS * TILE_COLUMNS // COLUMNS

# A tile's rows and columns as digits: 64-row half, warp, row + 8, row of 8 | group of 32, and the last 32 columns as
# (step of 16, half of 8, thread, odd) or (half of 16, thread, two bits).
_DIGITS = {"wgmma": (2, 4, 2, 8, 2, 2, 2, 4, 2), "mma": (2, 4, 2, 8, 2, 2, 4, 2, 2), "rows": (128, 2, 32)}
# Where each digit of a byte's place is found among those; the last one chooses between low and high half. Neighbours
# in a register, the last digit of a column, are two bytes apart: with a shift and a mask they lie in its two halves.
_PLACES = {"wgmma": (0, 1, 3, 7, 4, 5, 8, 6, 2), "mma": (0, 1, 3, 6, 4, 5, 8, 7, 2), "rows": (0, 2, 1)}
ORDERS = tuple(_DIGITS)


@dataclass(frozen=True, kw_only=True)
class PackedInt4:
    """A stack of int4 matrices in tiles. What fills up the last tiles has no scale and no part in a result.

    Attributes:
        data: the integers, two to a byte.
        scale: `Int4Matrix`'s bytes: (half, warp, row, row + 8, group) in fragments, (group, row) in rows.
        row_scale: of each row of the tiles.
        rows: R.
        columns: K.
        paired: whether tiles hold gate rows and their up rows.
        order: one of ORDERS.
    """

    data: UInt8[Tensor, "E T S 4096"]
    scale: UInt8[Tensor, "E T S 256"]
    row_scale: Float[Tensor, "E 128T"]
    rows: int
    columns: int
    paired: bool
    order: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """(experts, rows, columns)."""
        return len(self.data), self.rows, self.columns

    @property
    def nbytes(self) -> int:
        """What it takes in memory."""
        return self.data.nbytes + self.scale.nbytes + self.row_scale.nbytes


def pack_int4(matrix: Int4Matrix, *, order: str, paired: bool) -> PackedInt4:
    """The same weights in tiles; the stored form is not needed any more.

    Args:
        matrix: as it is stored, on any device.
        order: one of ORDERS, by the GPU (`configs.order_of`).
        paired: for gate-up, whose second half of rows multiplies the first.
    """
    _, R, K = matrix.shape
    parts = [_packed(data, scale, order, paired) for data, scale in zip(matrix.data, matrix.scale, strict=True)]
    data, scale = (torch.stack(part) for part in zip(*parts, strict=True))
    row_scale = torch.stack([_tiled(row[:, None], paired).flatten() for row in matrix.row_scale])
    return PackedInt4(
        data=data, scale=scale, row_scale=row_scale, rows=R, columns=K, paired=paired, order=order,
    )  # fmt: skip


def unpack_int4(packed: PackedInt4) -> Int4Matrix:
    """The stored form again."""
    E, R, K = packed.shape
    T, S = packed.data.shape[1:3]
    digits, places = _DIGITS[packed.order], _PLACES[packed.order]
    pairs = torch.stack([packed.data & 15, packed.data >> 4], -1).view(E, T, S, *(digits[place] for place in places))
    inverse = [3 + places.index(digit) for digit in range(len(places))]
    tiles = pairs.permute(0, 1, 2, *inverse).reshape(E, T, S, TILE_ROWS, TILE_COLUMNS)
    integers = _untiled(tiles.transpose(2, 3).reshape(E, T * TILE_ROWS, -1), R, packed.paired)[..., :K]
    # [E, B, r, G, half, j, i] -> [E, B, G, half, j, r, i]
    halves = integers.reshape(E, R // ROWS, ROWS, K // COLUMNS, 2, 4, 4).permute(0, 1, 3, 4, 5, 2, 6)
    data = (halves[:, :, :, 0] | halves[:, :, :, 1] << 4).reshape(E, R // ROWS, K // COLUMNS, -1)
    if packed.order == "rows":
        codes = packed.scale.view(E, T, S, 2, TILE_ROWS).permute(0, 1, 4, 2, 3)
    else:
        codes = packed.scale.view(E, T, S, 8, ROWS, 2, 2).permute(0, 1, 3, 5, 4, 2, 6)
    codes = _untiled(codes.reshape(E, T * TILE_ROWS, -1), R, packed.paired)[..., : K // COLUMNS]
    scale = codes.reshape(E, R // ROWS, ROWS, -1).transpose(2, 3).contiguous()
    row_scale = _untiled(packed.row_scale[..., None], R, packed.paired)[..., 0].contiguous()
    return Int4Matrix(data=data, scale=scale, row_scale=row_scale)


def _packed(data: Tensor, scale: Tensor, order: str, paired: bool) -> tuple[Tensor, Tensor]:
    """One expert's bytes [T, S, 4096] and scales [T, S, 256]."""
    B, G, _ = data.shape
    halves = data.view(B, G, 4, ROWS, 4)
    integers = torch.cat([halves & 15, halves >> 4], dim=2).permute(0, 3, 1, 2, 4).reshape(B * ROWS, G * COLUMNS)
    tiles = _tiled(F.pad(integers, (0, -G * COLUMNS % TILE_COLUMNS)), paired)
    tiles = tiles.view(len(tiles), TILE_ROWS, -1, TILE_COLUMNS).transpose(1, 2)
    T, S = tiles.shape[:2]
    pairs = tiles.reshape(T, S, *_DIGITS[order]).permute(0, 1, *(2 + place for place in _PLACES[order]))
    low, high = pairs.unbind(-1)
    codes = _tiled(F.pad(scale.transpose(1, 2).reshape(B * ROWS, G), (0, G % 2)), paired)
    if order == "rows":
        codes = codes.view(T, TILE_ROWS, S, 2).permute(0, 2, 3, 1)
    else:
        codes = codes.view(T, 8, 2, ROWS, S, 2).permute(0, 4, 1, 3, 2, 5)
    return (low | high << 4).reshape(T, S, TILE_BYTES), codes.reshape(T, S, TILE_SCALES)


def _tiled(rows: Int[Tensor, "R C"], paired: bool) -> Int[Tensor, "T 128 C"]:
    """Rows by tiles, zeros after the last."""
    parts = 2 if paired else 1
    split = rows.view(parts, -1, rows.shape[-1])
    size = TILE_ROWS // parts
    split = F.pad(split, (0, 0, 0, -split.shape[1] % size))
    return split.view(parts, -1, size, rows.shape[-1]).transpose(0, 1).reshape(-1, TILE_ROWS, rows.shape[-1])


def _untiled(rows: Tensor, R: int, paired: bool) -> Tensor:
    """[E, R, C] of [E, 128T, C]."""
    parts = 2 if paired else 1
    E, _, C = rows.shape
    split = rows.view(E, -1, parts, TILE_ROWS // parts, C).transpose(1, 2).reshape(E, parts, -1, C)
    return split[:, :, : R // parts].reshape(E, R, C)
