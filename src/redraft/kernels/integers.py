"""The exact product of two integer matrices, on whatever multiplies them here."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from redraft.kernels.int8 import has_exact_products
from redraft.kernels.matrices.int8 import LARGEST
from redraft.kernels.native.call import call, expect, runs_natively
from redraft.kernels.private import private

_INTEGERS = (torch.int8, torch.uint8, torch.int32)
# float32 holds a sum of so many of the largest products, u8 x s8, exactly.
_EXACT_COLUMNS = 2**24 // (255 * 128)
# Of widened blocks of a matrix, where nothing multiplies integers.
_BLOCK_BYTES = 128 * 2**20
# What cuBLAS asks of integer products: more rows than 16, and sizes that 8 divides.
_LEAST_ROWS, _DIVISOR = 32, 8

# R rows (outputs), K columns (inputs), M rows of activations


def integer_mm(
    left: Int[Tensor, "M K"], right: Int[Tensor, "K R"], out: Int[Tensor, "M R"] | None = None
) -> Int[Tensor, "M R"]:
    """The exact int32 product of int8 or uint8 rows with an int8 matrix."""
    if left.dtype == torch.int8 and not any(n % _DIVISOR for n in right.shape) and has_device_products(left.device):
        product = integer_mm_padded(left, right)
        return product if out is None else out.copy_(product)
    if out is None:
        out = left.new_empty(left.shape[0], right.shape[1], dtype=torch.int32)
    # Where oneDNN's products are not exact, torch's integer ones are thirty times slower.
    if not has_exact_products() and out.numel() and runs_natively("int8", left, out, kinds=_INTEGERS):
        if 1 not in right.stride():
            right = right.contiguous()
        expect("the left factor", left, len(left), right.shape[0])
        expect("the product", out, len(left), right.shape[1])
        is_unsigned, K, R = int(left.dtype == torch.uint8), *right.shape
        column, row = right.stride()
        call("int8", "integer_product", left, len(left), K, is_unsigned, right, row, column, R, out)
        return out
    if left.device.type == "cpu" and has_integer_mm():
        return _int_mm()(left, right, out=out)
    return integer_mm_in_blocks(left, right, out)


@functools.cache
def has_device_products(device: torch.device) -> bool:
    """Whether torch multiplies integers on this GPU: on NVIDIA's, and on some of AMD's."""
    if device.type != "cuda" or _int_mm() is None:
        return False
    one = torch.ones(_LEAST_ROWS, _LEAST_ROWS, dtype=torch.int8, device=device)
    try:
        _int_mm()(one, one)
    except RuntimeError:
        return False
    return True


def integer_mm_padded(left: Int[Tensor, "M K"], right: Int[Tensor, "K R"]) -> Int[Tensor, "M R"]:
    """`integer_mm` by the integer products of CUDA and ROCm, which take no fewer than 17 rows."""
    rows = max(_LEAST_ROWS, -(-len(left) // _DIVISOR) * _DIVISOR)
    return _int_mm()(F.pad(left, (0, 0, 0, rows - len(left))), right)[: len(left)]


def integer_mm_in_blocks(
    left: Int[Tensor, "M K"], right: Int[Tensor, "K R"], out: Int[Tensor, "M R"]
) -> Int[Tensor, "M R"]:
    """`integer_mm` by products of float32, each short enough to be exact; the matrix is widened block by block."""
    K, R = right.shape
    width = max(1, _BLOCK_BYTES // (4 * _EXACT_COLUMNS))
    out.zero_()
    for first in range(0, R, width):
        into, columns = out[:, first : first + width], right[:, first : first + width]
        for start in range(0, K, _EXACT_COLUMNS):
            part = slice(start, start + _EXACT_COLUMNS)
            into += (left[:, part].float() @ columns[part].float()).to(torch.int32)
    return out


@functools.cache
def has_integer_mm() -> bool:
    """Whether `torch._int_mm` multiplies signed and unsigned rows by int8 exactly here."""
    left = torch.full((32, 64), 255, dtype=torch.uint8)
    right = torch.full((64, 32), -LARGEST, dtype=torch.int8)
    if _int_mm() is None:
        return False
    try:
        unsigned = _int_mm()(left, right)
        signed = _int_mm()(right.T.contiguous(), right)
    except RuntimeError:
        return False
    return bool((unsigned == -64 * 255 * LARGEST).all() and (signed == 64 * LARGEST**2).all())


def _int_mm() -> Any:
    return private("_int_mm", "int8 products are made without it, more slowly")
