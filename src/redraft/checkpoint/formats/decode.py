"""From packed and scaled numbers to float32, as pure functions of tensors.

Every function takes matrices [rows, columns] and, unless it says otherwise, stacks of them [experts, rows, columns].
Shapes: O output rows, I input columns, G groups of input columns that share a scale.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int32, UInt8
from torch import Tensor

# The eight magnitudes of e2m1, then the same with a minus sign: bit 3 is the sign.
_E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0])
NVFP4_GROUP = 16
# AWQ's kernels read a word's eight nibbles as columns 0, 2, 4, 6, 1, 3, 5, 7.
_AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
_E8M0_BIAS = 127


def unpack(words: Tensor, bits: int) -> UInt8[Tensor, "... N"]:
    """Unsigned integers from a stream of bits, the lowest bit first, that runs along the last dimension.

    Args:
        words: [..., W] of any integer type; each row's bytes hold a multiple of eight integers, or of one byte's.
        bits: of one integer, 1 to 8. Those of 3, 5, 6 and 7 bits straddle bytes.
    """
    stream = words.contiguous().view(torch.uint8)
    if 8 % bits == 0:
        shifts = torch.arange(0, 8, bits, dtype=torch.uint8)
        return ((stream[..., None] >> shifts) & (2**bits - 1)).flatten(-2)
    # Eight integers fill `bits` whole bytes.
    runs = stream.unflatten(-1, (-1, bits))
    value = torch.zeros(runs.shape[:-1], dtype=torch.int64)
    for byte in range(bits):
        value |= runs[..., byte].long() << (8 * byte)
    out = torch.empty((*value.shape, 8), dtype=torch.uint8)
    for index in range(8):
        out[..., index] = (value >> (bits * index)) & (2**bits - 1)
    return out.flatten(-2)


def _pairs(values: Float[Tensor, "16"]) -> Tensor:
    """[256] what a byte's two nibbles stand for, low one first, both float32 in one number of eight bytes.

    Looking up pairs takes a third of unpacking nibbles and converting each.
    """
    return torch.stack([values.repeat(16), values.repeat_interleave(16)], dim=1).view(torch.int64).flatten()


_E2M1_PAIRS = _pairs(_E2M1)
# PyTorch converts float8 one by one; a look-up does not.
_E4M3 = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
_INTEGER_PAIRS = _pairs(torch.arange(16).float())


def _look_up(packed: Tensor, pairs: Tensor) -> Float[Tensor, "... N"]:
    stream = packed.contiguous().view(torch.uint8)
    return pairs.index_select(0, stream.flatten().int()).view(torch.float32).view(*stream.shape[:-1], -1)


def e2m1(packed: Tensor) -> Float[Tensor, "... N"]:
    """The values of 4-bit floats, two to a byte, the first in the low nibble."""
    return _look_up(packed, _E2M1_PAIRS)


def e4m3(codes: Tensor) -> Float[Tensor, "..."]:
    """The values of 8-bit floats, each a byte of the last dimension."""
    stream = codes.contiguous().view(torch.uint8)
    return _E4M3.index_select(0, stream.flatten().int()).view(stream.shape)


def integers(words: Tensor, bits: int) -> Float[Tensor, "... N"]:
    """`unpack` as float32."""
    return _look_up(words, _INTEGER_PAIRS) if bits == 4 else unpack(words, bits).float()


def times(
    values: Float[Tensor, "... I"],
    scale: Float[Tensor, "... G"],
    group_size: int,
    offset: Float[Tensor, "... G"] | None = None,
) -> Float[Tensor, "... I"]:
    """`(values + offset) * scale`, each group of columns with its own; the last group may be short."""
    columns = values.shape[-1]
    if columns % group_size:
        if offset is not None:
            values = values + _spread(offset, group_size, columns)
        return values * _spread(scale, group_size, columns)
    grouped = values.unflatten(-1, (-1, group_size))
    if offset is None:
        return (grouped * scale[..., None]).flatten(-2)
    return (grouped + offset[..., None]).mul_(scale[..., None]).flatten(-2)


def _spread(part: Tensor, group_size: int, columns: int) -> Tensor:
    return part.repeat_interleave(group_size, dim=-1)[..., :columns]


def scaled(
    weight: Tensor, scale: Tensor, zero_point: Tensor | None = None, group_size: int | None = None
) -> Float[Tensor, "... O I"]:
    """FP8 or int8 numbers times their scale.

    Args:
        weight: [..., O, I], float8 or int8.
        scale: [..., O, G], [..., O], or one number for each matrix.
        zero_point: what stands for zero, of the scale's shape.
        group_size: columns that share a scale; default all.
    """
    offset = None if zero_point is None else -_by_row(zero_point, weight)
    values = e4m3(weight) if weight.dtype == torch.float8_e4m3fn else weight.float()
    return times(values, _by_row(scale, weight), group_size or weight.shape[-1], offset)


def _by_row(part: Tensor, weight: Tensor) -> Float[Tensor, "... O G"]:
    stacked, rows = weight.shape[:-2], weight.shape[-2]
    if part.numel() == math.prod(stacked):
        return part.float().reshape(*stacked, 1, 1).expand(*stacked, rows, 1)
    return part.float().reshape(*stacked, rows, -1)


def nvfp4(packed: Tensor, scale: Tensor, factor: Tensor) -> Float[Tensor, "... O I"]:
    """4-bit floats in groups of 16 columns.

    The second scale is compressed-tensors' `1 / weight_global_scale` or ModelOpt's `weight_scale_2`: the first is
    large, the second small, and a mix-up is off by the square of it.

    Args:
        packed: [..., O, I / 2] uint8, the even column in the low nibble.
        scale: [..., O, I / 16] float8_e4m3fn, row by row.
        factor: one number for each matrix.
    """
    factor = factor.float().reshape(*packed.shape[:-2], 1, 1)
    return times(e2m1(packed), scale.float() * factor, NVFP4_GROUP)


def packed_int(
    packed: Int32[Tensor, "... O W"],
    scale: Float[Tensor, "... O G"],
    *,
    bits: int,
    group_size: int,
    zero_point: Int32[Tensor, "... P G"] | None = None,
    group_of: Int32[Tensor, "I"] | None = None,
) -> Float[Tensor, "... O I"]:
    """compressed-tensors' integers in int32 words: stored with half their range added, as are the zero points.

    Args:
        packed: rows of words, the first column in the lowest bits.
        scale: for each row and group.
        bits: of one integer.
        group_size: columns that share a scale.
        zero_point: packed along the rows; symmetric without.
        group_of: each column's group; default one group after the other.
    """
    values = integers(packed, bits)
    if zero_point is None:
        zeros = torch.full(scale.shape, float(2 ** (bits - 1)))
    else:
        rows = scale.shape[-2]
        zeros = unpack(zero_point.transpose(-1, -2), bits).transpose(-1, -2)[..., :rows, :].float()
    return _from_zero(values, scale.float(), zeros, group_size, group_of)


def gptq(
    qweight: Int32[Tensor, "W O"],
    qzeros: Int32[Tensor, "G P"],
    scales: Float[Tensor, "G O"],
    *,
    bits: int,
    group_size: int,
    zero_offset: int | None,
    group_of: Int32[Tensor, "I"] | None = None,
) -> Float[Tensor, "O I"]:
    """GPTQ's layout, which auto-round shares: words run along the inputs. One matrix.

    Args:
        qweight: words, the first input in the lowest bits.
        qzeros: zero points, words along the outputs.
        scales: for each group and output.
        bits: of one integer; 2, 4 or 8.
        group_size: inputs that share a scale.
        zero_offset: what is added to a stored zero point: 1 in the first version of the layout, 0 in the second.
            None reads it off a symmetric file, whose zero points are all the middle of the range.
        group_of: each input's group; default one group after the other.
    """
    values = integers(qweight.T, bits)
    stored = integers(qzeros, bits).T
    if zero_offset is None:
        zero_offset = symmetric_offset(stored, bits)
    if zero_offset is None:
        raise ValueError("zero points that are neither those of a symmetric file nor of a declared version")
    return _from_zero(values, scales.T.float(), stored + zero_offset, group_size, group_of)


def symmetric_offset(stored: Tensor, bits: int) -> int | None:
    """What lifts these zero points to the middle of the range, 0 or 1; None if they are not all such."""
    middle = 2 ** (bits - 1)
    return next((offset for offset in (1, 0) if bool((stored == middle - offset).all())), None)


def awq(
    qweight: Int32[Tensor, "I W"],
    qzeros: Int32[Tensor, "G W"],
    scales: Float[Tensor, "G O"],
    *,
    group_size: int,
) -> Float[Tensor, "O I"]:
    """AWQ's GEMM layout, 4 bits: words run along the outputs, in an order of their own. One matrix."""
    values, zeros = (
        integers(words, 4).unflatten(-1, (-1, 8))[..., _AWQ_ORDER].flatten(-2).T for words in (qweight, qzeros)
    )
    return _from_zero(values, scales.T.float(), zeros, group_size, None)


def _from_zero(values: Tensor, scale: Tensor, zeros: Tensor, group_size: int, group_of: Tensor | None) -> Tensor:
    if group_of is None:
        return times(values, scale, group_size, -zeros)
    group_of = group_of.int()
    return (values - zeros.index_select(-1, group_of)) * scale.index_select(-1, group_of)


def mlx_affine(
    words: Tensor, scales: Float[Tensor, "... O G"], biases: Float[Tensor, "... O G"], *, bits: int
) -> Float[Tensor, "... O I"]:
    """MLX's integers: times their group's scale, plus its bias."""
    values = integers(words, bits)
    grouped = values.unflatten(-1, (scales.shape[-1], -1))
    return (grouped * scales.float()[..., None]).add_(biases.float()[..., None]).flatten(-2)


def mlx_float(words: Tensor, scales: UInt8[Tensor, "... O G"], *, bits: int, group_size: int) -> Tensor:
    """MLX's microscaled floats: 4-bit e2m1 or 8-bit e4m3, scaled by powers of two, or by e4m3 in groups of 16."""
    stream = words.contiguous().view(torch.uint8)
    values = e2m1(stream) if bits == 4 else e4m3(stream)
    if group_size == NVFP4_GROUP:
        return times(values, scales.view(torch.float8_e4m3fn).float(), group_size)
    return times(values, torch.exp2(scales.float() - _E8M0_BIAS), group_size)


def group_size_of(columns: int, groups: int, declared: frozenset[int]) -> int | None:
    """Columns of one group, the last of which may be short; a declared size wins over an even split."""
    fitting = [size for size in sorted(declared) if size > 0 and math.ceil(columns / size) == groups]
    if len(fitting) == 1:
        return fitting[0]
    return columns // groups if groups and columns % groups == 0 else None
