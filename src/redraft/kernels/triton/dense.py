"""Dense products with 8-bit weights on a GPU: int8 x int8, and e4m3 x e4m3 where there are such products.

Activations are rounded row by row in one pass before. Elsewhere e4m3 weights are widened in registers and activations
stay as they are: that saves the bytes, which is what there is to save.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from redraft.kernels.triton.dense_kernels import FLOAT8, INT8, WIDENED, dense_kernel
from redraft.kernels.triton.rows import Rows, rounded
from redraft.kernels.triton.target import (
    compute_dtype,
    launch,
    power_of_two,
    processors,
    shared_bytes,
    target_of,
    tiles,
)

# M rows of activations, K columns, R rows of the matrix

Operands = Literal["int8", "float8", "widened"]

# Parts that a row is read in; and steps of a part, below which it does not reach its pace.
_MOST_PARTS, _LEAST_STEPS = 8, 4
KINDS = {"int8": INT8, "float8": FLOAT8, "widened": WIDENED}
# What activations are rounded to.
ROUNDED: dict[Operands, torch.dtype | None] = {"int8": torch.int8, "float8": torch.float8_e4m3fn, "widened": None}


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """Tiles of a program: rows of activations, rows of the matrix, columns of a step, warps and stages."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int


def dense_config(
    rows: int, matrix_rows: int, operands: Operands, *, shared: int, programs: int, splits: bool = False
) -> DenseConfig:
    """Tiles for a product.

    Args:
        rows: M.
        matrix_rows: R.
        operands: what is multiplied.
        shared: bytes of shared memory that one program may take.
        programs: that run at once.
        splits: whether columns are split where whole tiles are few.
    """
    little = shared < 96 * 2**10
    # GPUs with little shared memory have 256 registers a lane at 32 lanes, or more lanes: widened tiles must be small.
    height = min(64 if little and operands == "widened" else 128, max(16, power_of_two(rows)))
    # Half as wide where whole tiles leave more than a quarter of the device without one.
    wide = splits or tiles(rows, height) * tiles(matrix_rows, 128) >= 0.75 * programs
    columns = 128 if wide and not (little and operands == "widened") else 64
    depth = (32 if little else 64) if operands == "widened" else 64 if little else 128
    step_bytes = depth * (height * (2 if operands == "widened" else 1) + columns)
    stages = max(2, min(4, shared // step_bytes))
    warps = 8 if height * columns >= 128 * 64 else 4
    return DenseConfig(rows=height, columns=columns, depth=depth, warps=warps, stages=stages)


def rounded_rows(
    x: Float[Tensor, "M K"], dtype: torch.dtype
) -> tuple[Float[Tensor, "M K"] | Int[Tensor, "M K"], Float[Tensor, "M"]]:
    """(values, scale of each row), as `kernels.int8.quantise_rows` has them, in int8 or e4m3."""
    rows = rounded(x, dtype)
    assert rows.scale is not None
    return rows.values, rows.scale


def dense_product(
    rows: Rows, weight: Tensor, scale: Float[Tensor, "R"], operands: Operands, dtype: torch.dtype
) -> Float[Tensor, "M R"]:
    """The product of rows that are rounded already; see `dense_parts`."""
    return _dense(rows.values, *_given(rows, weight, scale, operands), dtype, operands, None)


def dense_parts(
    rows: Rows,
    weight: Tensor,
    scale: Float[Tensor, "R"],
    operands: Operands,
    dtype: torch.dtype,
    config: DenseConfig | None = None,
    parts: int | None = None,
) -> Float[Tensor, "P M R"]:
    """Parts of a product whose sum is the product: float32, or one part of `dtype`.

    Where whole tiles leave much of the device without one, columns are split, and whoever reads the product next adds
    its parts: half tiles instead would read as much again of the rows.

    Args:
        rows: activations, rounded as `ROUNDED` says.
        weight: [R, K] of int8, or of e4m3.
        scale: of each of its rows.
        operands: what is multiplied.
        dtype: of activations.
        config: tiles, else by the GPU.
        parts: how many at most, else as many as fill the GPU.
    """
    x, (M, K), R = rows.values, rows.values.shape, len(weight)
    programs = processors(x.device)
    if config is None:
        config = dense_config(M, R, operands, splits=True, shared=shared_bytes(x.device), programs=programs)
    steps = tiles(K, config.depth)
    room = programs // (tiles(M, config.rows) * tiles(R, config.columns))
    parts = parts or max(1, min(room, _MOST_PARTS, steps // _LEAST_STEPS))
    # As many as have steps.
    parts = tiles(steps, tiles(steps, parts)) if steps else 1
    return _dense(x, *_given(rows, weight, scale, operands), dtype, operands, config, parts)


def _given(rows: Rows, weight: Tensor, scale: Tensor, operands: Operands) -> tuple[Tensor, Tensor, Tensor]:
    # Rows that are not rounded have no scales, and the kernel reads none.
    return weight.view(torch.uint8) if operands == "widened" else weight, rows.pointers[1], scale


def dense_int8(
    x: Float[Tensor, "M K"], weight: Int[Tensor, "R K"], scale: Float[Tensor, "R"], config: DenseConfig | None = None
) -> Float[Tensor, "M R"]:
    """`kernels.int8.int8_linear`; the same sums, which are exact, rounded once to x's dtype."""
    values, row_scale = rounded_rows(x, torch.int8)
    return _dense(values, weight.contiguous(), row_scale, scale, x.dtype, "int8", config)


def dense_float8(
    x: Float[Tensor, "M K"],
    weight: Float[Tensor, "R K"],
    scale: Float[Tensor, "R"],
    operands: Operands | None = None,
    config: DenseConfig | None = None,
) -> Float[Tensor, "M R"]:
    """`kernels.float8.float8_linear`.

    Args:
        x: activations; rounded to e4m3 row by row where the GPU multiplies that.
        weight: e4m3.
        scale: of each row.
        operands: "float8" or "widened", else by the GPU.
        config: tiles, else by the GPU.
    """
    weight = weight.contiguous()
    if (operands or float8_operands(x.device)) == "widened":
        x = x if x.stride(-1) == 1 else x.contiguous()
        return _dense(x, weight.view(torch.uint8), scale, scale, x.dtype, "widened", config)
    values, row_scale = rounded_rows(x, torch.float8_e4m3fn)
    return _dense(values, weight, row_scale, scale, x.dtype, "float8", config)


def float8_operands(device: torch.device) -> Operands:
    """What e4m3 weights are multiplied with on a GPU: only NVIDIA's from compute capability 8.9 on, of those that
    Triton's other backends know, multiply this form of e4m3 itself."""
    return operands_of(*target_of(device))


def operands_of(backend: str, arch: int | str) -> Operands:
    """`float8_operands` of a GPU."""
    return "float8" if backend == "cuda" and int(arch) >= 89 else "widened"


def _dense(
    x: Tensor, weight: Tensor, row_scale: Tensor, scale: Tensor, dtype: torch.dtype, operands: Operands,
    config: DenseConfig | None, parts: int = 0,
) -> Tensor:  # fmt: skip
    """The product [M, R], or `parts` of it [P, M, R]."""
    (M, K), R = x.shape, len(weight)
    out = x.new_empty((parts, M, R) if parts else (M, R), dtype=torch.float32 if parts > 1 else dtype)
    if out.numel() == 0:
        return out
    if config is None:
        config = dense_config(M, R, operands, shared=shared_bytes(x.device), programs=processors(x.device))
    launch(
        dense_kernel, (tiles(M, config.rows) * tiles(R, config.columns), max(1, parts)),
        x, weight, row_scale, scale.float(), out, M, K, R, x.stride(0),
        ROWS=config.rows, COLUMNS=config.columns, DEPTH=config.depth, KIND=KINDS[operands],
        EVEN=K % config.depth == 0, COMPUTE=compute_dtype(dtype), num_warps=config.warps, num_stages=config.stages,
    )  # fmt: skip
    return out
