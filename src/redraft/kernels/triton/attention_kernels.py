"""The kernels of the canvas attention; `attention.py` launches them."""

from __future__ import annotations

import triton
import triton.language as tl

from redraft.kernels.triton.dependent import after_the_last
from redraft.kernels.triton.rows_kernels import as_stored, over_scale

# B sequences, K key-value heads, G query heads of each, T queries, R = T * G rows of a key-value head, D head size,
# P parts

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def attend_source(
    total, top, mass, q, q_rest, q_at, rows, size, keys, values, key_stride, value_stride, first, last,
    column,
    KEYS: tl.constexpr, D: tl.constexpr, DEPTH: tl.constexpr, WIDTH: tl.constexpr, COMPUTE: tl.constexpr,
    HELD: tl.constexpr,
):  # type: ignore[no-untyped-def]  # fmt: skip
    """Carries an online softmax over the keys first ... last - 1 of one source; scores are in base 2.

    Queries are held in registers, DEPTH of their columns in `q` and as many in `q_rest`, or read anew at every step.
    `size` is D, as a number that the compiler does not know: else it would read them all before the loop.
    """
    d, e = tl.arange(0, DEPTH), column + tl.arange(0, WIDTH)
    for start in range(first, last, KEYS):
        s = start + tl.arange(0, KEYS)
        inside, place = s < last, s.to(tl.int64)
        k_at = keys + place[None, :] * key_stride + d[:, None]
        if HELD:
            k = tl.load(k_at, mask=inside[None, :], other=0.0).to(COMPUTE)
            scores = tl.dot(q, k, input_precision="ieee")
            if DEPTH < D:
                k = tl.load(k_at + DEPTH, mask=inside[None, :], other=0.0).to(COMPUTE)
                scores = tl.dot(q_rest, k, scores, input_precision="ieee")
        else:
            scores = tl.zeros((total.shape[0], KEYS), dtype=tl.float32)
            for part in range(0, size, DEPTH):
                q = tl.load(q_at + part, mask=rows[:, None], other=0.0).to(COMPUTE)
                k = tl.load(k_at + part, mask=inside[None, :], other=0.0).to(COMPUTE)
                scores = tl.dot(q, k, scores, input_precision="ieee")
        scores = tl.where(inside[None, :], scores * LOG2_E, -float("inf"))
        higher = tl.maximum(top, tl.max(scores, axis=1))
        share, shrink = tl.exp2(scores - higher[:, None]), tl.exp2(top - higher)
        mass = mass * shrink + tl.sum(share, axis=1)
        v_at = values + place[:, None] * value_stride + e[None, :]
        v = tl.load(v_at, mask=inside[:, None], other=0.0).to(COMPUTE)
        total = tl.dot(share.to(COMPUTE), v, total * shrink[:, None], input_precision="ieee")
        top = higher
    return total, top, mass


# Lengths change with every canvas: one of 1, or of whole sixteens, is not worth a kernel of its own.
# Nor is a count for each row of a batch, in places that lie four bytes apart.
@triton.jit(do_not_specialize=["S", "L"], do_not_specialize_on_alignment=["used"])
def attention_kernel(
    queries, cached_keys, cached_values, keys, values, used, totals, tops, masses, KV, R, S, L, size,
    q_batch, q_token, q_head, ck_batch, ck_head, ck_slot, cv_batch, cv_head, cv_slot, k_batch, k_head, k_slot,
    v_batch, v_head, v_slot,
    G: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, D: tl.constexpr, DEPTH: tl.constexpr,
    WIDTH: tl.constexpr, COMPUTE: tl.constexpr, USED: tl.constexpr, HELD: tl.constexpr,
):  # type: ignore[no-untyped-def]  # fmt: skip
    """ROWS packed rows of a key-value head, WIDTH of their D output dims, over one part of the keys.

    A part is whole steps of KEYS; the S cached keys come first, then the L of the canvas. If USED, only the first
    `used` of a sequence's S count, a number in memory: the same launch then shares out fewer keys among the same parts.
    """
    after_the_last()
    every, part, heads = tl.program_id(1), tl.program_id(2), tl.num_programs(1)
    batch, head = (every // KV).to(tl.int64), (every % KV).to(tl.int64)
    if USED:
        S = tl.minimum(tl.load(used + batch).to(tl.int32), S)
    columns: tl.constexpr = D // WIDTH
    tile, column = tl.program_id(0) // columns, (tl.program_id(0) % columns) * WIDTH
    r = tile * ROWS + tl.arange(0, ROWS)
    inside = r < R
    q_at = queries + batch * q_batch + (r // G).to(tl.int64)[:, None] * q_token + (head * G + r % G)[:, None] * q_head
    q_at += tl.arange(0, DEPTH)[None, :]
    q = tl.load(q_at, mask=inside[:, None], other=0.0).to(COMPUTE)
    q_rest = q
    if HELD and DEPTH < D:
        q_rest = tl.load(q_at + DEPTH, mask=inside[:, None], other=0.0).to(COMPUTE)

    length = tl.cdiv(tl.cdiv(S + L, KEYS), tl.num_programs(2)) * KEYS
    first = part * length
    last = tl.minimum(first + length, S + L)
    total = tl.zeros((ROWS, WIDTH), dtype=tl.float32)
    top, mass = tl.full((ROWS,), -float("inf"), dtype=tl.float32), tl.zeros((ROWS,), dtype=tl.float32)
    total, top, mass = attend_source(
        total, top, mass, q, q_rest, q_at, inside, size, cached_keys + batch * ck_batch + head * ck_head,
        cached_values + batch * cv_batch + head * cv_head, ck_slot, cv_slot, first, tl.minimum(last, S), column,
        KEYS, D, DEPTH, WIDTH, COMPUTE, HELD,
    )  # fmt: skip
    total, top, mass = attend_source(
        total, top, mass, q, q_rest, q_at, inside, size, keys + batch * k_batch + head * k_head,
        values + batch * v_batch + head * v_head,
        k_slot, v_slot, tl.maximum(first, S) - S, last - S, column, KEYS, D, DEPTH, WIDTH, COMPUTE, HELD,
    )  # fmt: skip

    row = (part * heads + every).to(tl.int64) * R + r
    at = row[:, None] * D + column + tl.arange(0, WIDTH)[None, :]
    tl.store(totals + at, total, mask=inside[:, None])
    # Programs of other columns find the same sums; one of them is enough.
    tl.store(tops + row, top, mask=inside & (column == 0))
    tl.store(masses + row, mass, mask=inside & (column == 0))


@triton.jit(do_not_specialize=["parts"])
def combine_kernel(
    totals, tops, masses, out, KV, R, parts, o_batch, o_token, o_head, G: tl.constexpr, D: tl.constexpr,
):  # type: ignore[no-untyped-def]  # fmt: skip
    """Joins the parts of one packed row in their order."""
    after_the_last()
    r, every, heads = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    d = tl.arange(0, D)
    top = tl.load(tops + every * R + r)
    for part in range(1, parts):
        top = tl.maximum(top, tl.load(tops + (part * heads + every) * R + r))
    total, mass = tl.zeros((D,), dtype=tl.float32), 0.0
    for part in range(parts):
        row = (part * heads + every) * R + r
        # A part without keys has a top of -inf, and so no weight.
        weight = tl.exp2(tl.load(tops + row) - top)
        mass += tl.load(masses + row) * weight
        total += tl.load(totals + row.to(tl.int64) * D + d) * weight
    at = (every // KV).to(tl.int64) * o_batch + (r // G).to(tl.int64) * o_token + ((every % KV) * G + r % G) * o_head
    tl.store(out + at + d, (total * (1.0 / mass)).to(out.dtype.element_ty))


@triton.jit(do_not_specialize=["parts"])
def combine_round_kernel(
    totals, tops, masses, like, values, scales, KV, R, parts, G: tl.constexpr, H: tl.constexpr, D: tl.constexpr,
    HEADS: tl.constexpr, MOST: tl.constexpr,
):  # type: ignore[no-untyped-def]  # fmt: skip
    """Joins the parts of all H heads of a query, and rounds them as one row of H * D."""
    after_the_last()
    t, batch, heads = tl.program_id(0), tl.program_id(1), tl.num_programs(1) * KV
    h, d = tl.arange(0, HEADS), tl.arange(0, D)
    inside = h < H
    first = (batch * KV + h // G) * R + t * G + h % G
    top = tl.load(tops + first, mask=inside, other=0.0)
    for part in range(1, parts):
        top = tl.maximum(top, tl.load(tops + part * heads * R + first, mask=inside, other=0.0))
    total, mass = tl.zeros((HEADS, D), dtype=tl.float32), tl.zeros((HEADS,), dtype=tl.float32)
    for part in range(parts):
        row = part * heads * R + first
        weight = tl.exp2(tl.load(tops + row, mask=inside, other=0.0) - top)
        mass += tl.load(masses + row, mask=inside, other=1.0) * weight
        at = totals + row.to(tl.int64)[:, None] * D + d[None, :]
        total += tl.load(at, mask=inside[:, None], other=0.0) * weight[:, None]
    joined = as_stored(total * (1.0 / mass)[:, None], like)
    n = (batch * tl.num_programs(0) + t).to(tl.int64)
    scale = tl.max(tl.max(tl.abs(joined), axis=1), axis=0) / MOST
    at = values + n * H * D + h[:, None] * D + d[None, :]
    tl.store(at, over_scale(joined, scale, values), mask=inside[:, None])
    tl.store(scales + n, scale)
