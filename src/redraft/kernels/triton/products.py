"""A tile of weights (int4 tiles, 8 bits or floats) times a block of rows: what the experts' kernels share.

Weights are the first operand and rows the second, acc[128, TB] = w[128, K] x[TB, K]^T: an expert has few rows, and it
is a tensor core's second operand that may be narrow; a warp group's first one has 64 rows.

The interpreter has no bfloat16 arithmetic, so that DTYPE is float32 there.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Orders of packed.PackedInt4, as numbers
WGMMA, MMA, ROWS = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
ORDER = {"wgmma": 0, "mma": 1, "rows": 2}
# Forms of weights; NARROW ones are int8 or e4m3, and are multiplied with rows of the same kind. From WIDENED on, a row
# of weights has a scale.
FLOATS, INT4, WIDENED, NARROW = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)
# Columns of a step of the wide product of NARROW ones.
WIDE_STEP = tl.constexpr(128)


@triton.jit
def integers(nibble, DTYPE: tl.constexpr):
    """q - 8 of uint8 q in 0..15, as DTYPE."""
    if DTYPE == tl.bfloat16:  # noqa: SIM300
        # 128 in bfloat16 counts ones in its last bits. A conversion would run at a quarter of this rate.
        return (nibble.to(tl.int16) | 0x4300).to(tl.bfloat16, bitcast=True) - 136.0
    else:
        return nibble.to(tl.float32) - 8.0


@triton.jit
def scales(code, DTYPE: tl.constexpr):
    """What `Int4Matrix`'s scale bytes mean, as DTYPE."""
    bits = code.to(tl.int32)
    bits = (((bits & 0x7F) << 3) + 0x3C00) | ((bits & 0x80) << 8)
    if DTYPE == tl.bfloat16:  # noqa: SIM300
        return bits.to(tl.int16).to(tl.bfloat16, bitcast=True)
    else:
        return (bits << 16).to(tl.float32, bitcast=True)


@triton.jit
def widened(code, DTYPE: tl.constexpr):
    """The float that a byte of e4m3 means, as DTYPE, exactly; for targets without such products.

    Its exponent and mantissa are those of a wider float 2^120 times smaller, those below the least exponent included.
    """
    if DTYPE == tl.float32:  # noqa: SIM300
        bits = code.to(tl.int32)
        return (((bits & 0x80) << 24) | ((bits & 0x7F) << 20)).to(tl.float32, bitcast=True) * 1.329227995784916e36
    else:
        bits = code.to(tl.int16)
        narrow = (((bits & 0x80) << 8) | ((bits & 0x7F) << 4)).to(tl.bfloat16, bitcast=True)
        return (narrow * 1.329227995784916e36).to(DTYPE)


@triton.jit
def word_integers(packed):
    """`integers` of the low and the high halves of four bytes at once, which come in the order 0, 2, 1, 3.

    A register of two bfloat16 takes a shift, an `(x & 0x000F000F) | 0x43004300` and one sum, 128 + q - 136; as in
    `integers`, which the compiler makes byte by byte. An FMA, because compute capability 8 has no sum of bfloat16.
    """
    return tl.inline_asm_elementwise(
        """
        {
        .reg .b32 shifted, one, zero;
        mov.b32 one, 0x3F803F80;
        mov.b32 zero, 0xC308C308;
        lop3.b32 $0, $4, 0x000F000F, 0x43004300, 0xEA;
        fma.rn.bf16x2 $0, $0, one, zero;
        shr.u32 shifted, $4, 4;
        lop3.b32 $2, shifted, 0x000F000F, 0x43004300, 0xEA;
        fma.rn.bf16x2 $2, $2, one, zero;
        shr.u32 shifted, $4, 8;
        lop3.b32 $1, shifted, 0x000F000F, 0x43004300, 0xEA;
        fma.rn.bf16x2 $1, $1, one, zero;
        shr.u32 shifted, $4, 12;
        lop3.b32 $3, shifted, 0x000F000F, 0x43004300, 0xEA;
        fma.rn.bf16x2 $3, $3, one, zero;
        }
        """,
        "=&r,=&r,=&r,=&r,r",
        [packed],
        dtype=(tl.bfloat16, tl.bfloat16),
        is_pure=True,
        pack=4,
    )


@triton.jit
def fragment_tile(data_ptr, scale_ptr, ORDER: tl.constexpr, WORDS: tl.constexpr, DTYPE: tl.constexpr):
    """[128, 64] weights but for their rows' scales; exact in bfloat16, see `kernels/matrices/int4.py`."""
    packed = tl.load(data_ptr + tl.arange(0, 4096))
    if WORDS:
        low, high = word_integers(packed)  # type: ignore[misc]
    else:
        low, high = integers(packed & 15, DTYPE), integers(packed >> 4, DTYPE)
    # half, warp, row, thread, group, then four digits: of the columns' 16 and the row + 8
    weights = tl.reshape(tl.join(low, high), (2, 4, 8, 4, 2, 2, 2, 2, 2))
    # The four threads of a row read the same word, so that a thread finds its scales where its weights are.
    at = tl.arange(0, 1024)
    scale = scales(tl.load(scale_ptr + at // 16 * 4 + at % 4), DTYPE)
    scale = tl.permute(tl.reshape(scale, (2, 4, 8, 4, 2, 2)), (0, 1, 2, 3, 5, 4))
    weights = weights * tl.reshape(scale, (2, 4, 8, 4, 2, 1, 1, 1, 2))
    if not WORDS:
        # Into the order of word_integers.
        weights = tl.permute(weights, (0, 1, 2, 3, 4, 5, 7, 6, 8))
    if ORDER == WGMMA:
        weights = tl.permute(weights, (0, 1, 8, 2, 4, 5, 6, 3, 7))
    else:
        weights = tl.permute(weights, (0, 1, 8, 2, 4, 5, 3, 6, 7))
    return tl.reshape(weights, (128, 64))


@triton.jit
def _rows(x_ptr, place, valid, first, K, COLUMNS: tl.constexpr, EVEN: tl.constexpr, DTYPE: tl.constexpr):
    """[TB, COLUMNS] of x from column first on, zeros beyond K."""
    column = first + tl.arange(0, COLUMNS)
    if EVEN:  # noqa: SIM108
        mask = valid[:, None]
    else:
        mask = valid[:, None] & (column < K)[None, :]
    return tl.load(x_ptr + place[:, None] * K + column[None, :], mask=mask, other=0.0).to(DTYPE)


@triton.jit
def int4_sum(
    x_ptr, place, valid, data_ptr, scale_ptr, K,
    TB: tl.constexpr, ORDER: tl.constexpr, WORDS: tl.constexpr, EVEN: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """acc[128, TB] of a run of int4 tiles, one after another in memory.

    Args:
        x_ptr: rows of K.
        place: [TB] int64, which of them.
        valid: [TB], the others are zeros.
        data_ptr: the first tile.
        scale_ptr: its scales.
        K: columns.
        ORDER: of the tiles.
        WORDS: whether integers are unpacked by `word_integers`, which is NVIDIA's.
        EVEN: whether K is a whole number of tiles.
    """
    acc = tl.zeros((128, TB), tl.float32)
    for step in range(0, tl.cdiv(K, 64)):
        if ORDER == ROWS:
            # Elsewhere a product of bfloat16 is three instructions, so scales go to the sums of a group instead.
            row = tl.arange(0, 128)
            packed = tl.load(data_ptr + row[:, None] * 32 + tl.arange(0, 32)[None, :])
            low = _rows(x_ptr, place, valid, step * 64, K, 32, EVEN, DTYPE)
            high = _rows(x_ptr, place, valid, step * 64 + 32, K, 32, EVEN, DTYPE)
            part = tl.dot(integers(packed & 15, DTYPE), tl.trans(low))
            acc += part * scales(tl.load(scale_ptr + row), tl.float32)[:, None]
            part = tl.dot(integers(packed >> 4, DTYPE), tl.trans(high))
            acc += part * scales(tl.load(scale_ptr + 128 + row), tl.float32)[:, None]
        else:
            x = _rows(x_ptr, place, valid, step * 64, K, 64, EVEN, DTYPE)
            acc = tl.dot(fragment_tile(data_ptr, scale_ptr, ORDER, WORDS, DTYPE), tl.trans(x), acc)
        data_ptr += 4096
        scale_ptr += 256
    return acc


@triton.jit
def float_sum(
    x_ptr, place, valid, weight_ptr, row, row_valid, K,
    TB: tl.constexpr, FORM: tl.constexpr, EVEN: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """acc[128, TB] of 128 rows of a matrix of floats, or of bytes of e4m3 without their scales; `row` [128] says which.

    Those are widened, for GPUs that do not multiply them.
    """
    acc = tl.zeros((128, TB), tl.float32)
    for step in range(0, tl.cdiv(K, 64)):
        x = _rows(x_ptr, place, valid, step * 64, K, 64, EVEN, DTYPE)
        if FORM == WIDENED:
            weights = widened(_rows(weight_ptr, row, row_valid, step * 64, K, 64, EVEN, tl.uint8), DTYPE)
        else:
            weights = _rows(weight_ptr, row, row_valid, step * 64, K, 64, EVEN, DTYPE)
        acc = tl.dot(weights, tl.trans(x), acc)
    return acc


@triton.jit
def _bytes(x_ptr, place, valid, first, K, COLUMNS: tl.constexpr, EVEN: tl.constexpr):
    """[TB, COLUMNS] of int8 or e4m3 from column `first` on, zeros beyond K."""
    column = first + tl.arange(0, COLUMNS)
    if EVEN:  # noqa: SIM108
        mask = valid[:, None]
    else:
        mask = valid[:, None] & (column < K)[None, :]
    return tl.load(x_ptr + place[:, None] * K + column[None, :], mask=mask, other=0.0)


@triton.jit
def narrow_sum(
    x_ptr, place, valid, weight_ptr, scale_ptr, row, row_valid, K, TB: tl.constexpr, EVEN: tl.constexpr
):  # fmt: skip
    """acc[128, TB] of 128 rows of a matrix of int8 or e4m3, with their scales, and rows of the same kind, without.

    Sums of int8 are exact.
    """
    whole: tl.constexpr = x_ptr.dtype.element_ty == tl.int8
    scale = tl.load(scale_ptr + row, mask=row_valid, other=0.0)[:, None]
    acc = tl.zeros((128, TB), tl.int32 if whole else tl.float32)
    for first in range(0, K, WIDE_STEP):
        weights = _bytes(weight_ptr, row, row_valid, first, K, WIDE_STEP, EVEN)
        x = _bytes(x_ptr, place, valid, first, K, WIDE_STEP, EVEN)
        if whole:
            acc = tl.dot(weights, tl.trans(x), acc, out_dtype=tl.int32)
        else:
            # A tensor core keeps some 14 bits of these sums: they go to float32 at every step. Scaled each time, or the
            # compiler would make one sum of them; what `max_num_imprecise_acc` makes waits after each product, on
            # compute capability 9, and is not heard by others.
            acc += tl.dot(weights, tl.trans(x)) * scale
    return acc.to(tl.float32) * scale if whole else acc


@triton.jit
def narrow_parts(
    x_ptr, x_scale_ptr, place, valid, weight_ptr, row, row_valid, K, steps, total, TB: tl.constexpr, EVEN: tl.constexpr
):  # fmt: skip
    """`narrow_sum` of rows that have a scale for every 64 columns, which is applied, and without that of the matrix.

    Args:
        x_ptr: rows of K.
        x_scale_ptr: those of the first row, in [steps, total].
        place: [TB] int64, which rows.
        valid: [TB], the others are zeros.
        weight_ptr: the matrix.
        row: [128], which of its rows.
        row_valid: [128].
        K: columns.
        steps: of 64 columns.
        total: rows that have scales.
        EVEN: whether K is a whole number of steps.
    """
    whole: tl.constexpr = x_ptr.dtype.element_ty == tl.int8
    acc = tl.zeros((128, TB), tl.float32)
    lane = tl.arange(0, TB)
    scale = tl.load(x_scale_ptr + lane, mask=valid, other=0.0)
    for step in range(0, steps):
        weights = _bytes(weight_ptr, row, row_valid, step * 64, K, 64, EVEN)
        x = _bytes(x_ptr, place, valid, step * 64, K, 64, EVEN)
        # On its way while this step multiplies: nothing else would hide it.
        x_scale_ptr += total
        following = tl.load(x_scale_ptr + lane, mask=valid & (step + 1 < steps), other=0.0)
        if whole:
            part = tl.dot(weights, tl.trans(x), out_dtype=tl.int32).to(tl.float32)
        else:
            part = tl.dot(weights, tl.trans(x))
        acc += part * scale[None, :]
        scale = following
    return acc
