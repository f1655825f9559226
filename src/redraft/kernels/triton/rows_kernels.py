"""The kernels between the products of a layer, a row each; `rows.py` launches them.

Everything is computed in float32 and rounded where the torch modules round, so that a row's digits are theirs.
"""

from __future__ import annotations

import triton
import triton.language as tl

from redraft.kernels.triton.dependent import after_the_last

# N rows, D width, I units of a gated MLP, P parts of a product, A results of experts

# Adding this to a float32 and taking it away rounds to a whole number, halves to even ones.
_MAGIC = tl.constexpr(12582912.0)


@triton.jit
def as_stored(x, at):  # type: ignore[no-untyped-def]
    """x with the digits that memory at `at` keeps."""
    return x.to(at.dtype.element_ty).to(tl.float32)


@triton.jit
def wide(at, inside):  # type: ignore[no-untyped-def]
    """What lies there, in float32; zeros outside."""
    return tl.load(at, mask=inside, other=0).to(tl.float32)


@triton.jit
def every_row():  # type: ignore[no-untyped-def]
    """N, of kernels with a program a row."""
    return tl.num_programs(0).to(tl.int64)


@triton.jit
def normed(row, D, eps):  # type: ignore[no-untyped-def]
    """A row, zero beyond D, over its root mean square."""
    return row * tl.rsqrt(tl.sum(row * row, axis=0) / D + eps)


@triton.jit
def summed(parts, n, d, inside, P, stride, D):  # type: ignore[no-untyped-def]
    """Row n of P parts of a product, in their order."""
    total = wide(parts + n * D + d, inside)
    for part in range(1, P):
        total += wide(parts + part * stride + n * D + d, inside)
    return total


@triton.jit
def over_scale(x, scale, at):  # type: ignore[no-untyped-def]
    """x / scale as the 8 bits that memory at `at` keeps; zeros have scale 0.

    A scale that is nearly as small counts as zero: its reciprocal would be infinite, and NaN beside a zero.
    """
    x = x * (1.0 / tl.where(scale > 1e-30, scale, 1.0))
    if at.dtype.element_ty == tl.int8:
        x = (x + _MAGIC) - _MAGIC
    return x.to(at.dtype.element_ty)


@triton.jit
def store_row(row, values, scales, n, d, inside, D, MOST: tl.constexpr):  # type: ignore[no-untyped-def]
    """A row as the next product reads it: as it is, or over a scale that makes MOST of its largest magnitude."""
    if MOST > 0:
        scale = tl.max(tl.abs(row), axis=0) / MOST
        tl.store(values + n * D + d, over_scale(row, scale, values), mask=inside)
        tl.store(scales + n, scale)
    else:
        tl.store(values + n * D + d, row.to(values.dtype.element_ty), mask=inside)


@triton.jit
def round_kernel(
    x, values, scales, D, x_row, MOST: tl.constexpr, BLOCK: tl.constexpr
):  # type: ignore[no-untyped-def]  # fmt: skip
    """One row, rounded; zeros have scale 0."""
    after_the_last()
    n = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK)
    inside = d < D
    row = wide(x + n * x_row + d, inside)
    store_row(row, values, scales, n, d, inside, D, MOST)


@triton.jit
def norm_round_kernel(
    x, weight, values, scales, D, eps, MOST: tl.constexpr, BLOCK: tl.constexpr
):  # type: ignore[no-untyped-def]  # fmt: skip
    """One row, normed and rounded."""
    after_the_last()
    n = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK)
    inside = d < D
    row = normed(wide(x + n * D + d, inside), D, eps)
    row = as_stored(row * wide(weight + d, inside), x)
    store_row(row, values, scales, n, d, inside, D, MOST)


@triton.jit
def gate_kernel(
    parts, like, values, scales, I, P, MOST: tl.constexpr, BLOCK: tl.constexpr
):  # type: ignore[no-untyped-def]  # fmt: skip
    """gelu(gate) * up of a row whose 2 I columns lie beside each other, rounded."""
    after_the_last()
    n = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    inside = i < I
    # Rows of 2 I: `summed` counts in whole rows, of which the second half begins I further on.
    stride = every_row() * 2 * I
    gate = as_stored(summed(parts, n, i, inside, P, stride, 2 * I), like)
    up = as_stored(summed(parts + I, n, i, inside, P, stride, 2 * I), like)
    # gelu(tanh): (1 + tanh(u)) / 2 is sigmoid(2 u).
    active = as_stored(gate * tl.sigmoid(1.5957691216057308 * (gate + 0.044715 * gate * gate * gate)), like)
    store_row(as_stored(active * up, like), values, scales, n, i, inside, I, MOST)


@triton.jit
def begin_kernel(
    tokens, embedding, token_scale, embed_scale, conditioning, next_weight, hidden, values, scales, D, P, eps,
    MOST: tl.constexpr, BLOCK: tl.constexpr, INTEGER: tl.constexpr, CONDITIONED: tl.constexpr,
    NORMED: tl.constexpr,
):  # type: ignore[no-untyped-def]  # fmt: skip
    """A token's scaled embedding, plus its conditioning: the first hidden state, and that normed for layer 0."""
    after_the_last()
    n = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK)
    inside = d < D
    token = tl.load(tokens + n).to(tl.int64)
    row = wide(embedding + token * D + d, inside)
    if INTEGER:
        row = as_stored(row * tl.load(token_scale + token), hidden)
    row = as_stored(row * tl.load(embed_scale).to(tl.float32), hidden)
    if CONDITIONED:
        row = as_stored(row + as_stored(summed(conditioning, n, d, inside, P, every_row() * D, D), hidden), hidden)
    if NORMED:
        row = as_stored(normed(row, D, eps), hidden)
    tl.store(hidden + n * D + d, row.to(hidden.dtype.element_ty), mask=inside)
    row = as_stored(normed(row, D, eps) * wide(next_weight + d, inside), hidden)
    store_row(row, values, scales, n, d, inside, D, MOST)


@triton.jit
def middle_kernel(
    attended, hidden, post_weight, dense_weight, expert_weight, router_scale, new_hidden, values, scales,
    expert_values, expert_scales, router_rows, D, P, eps, router_factor, EXPERT_MOST: tl.constexpr, MOST: tl.constexpr,
    BLOCK: tl.constexpr,
):  # type: ignore[no-untyped-def]  # fmt: skip
    """After attention: its norm and the residual, then what the dense MLP, the experts and the router read."""
    after_the_last()
    n = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK)
    inside = d < D
    at = n * D + d
    row = as_stored(summed(attended, n, d, inside, P, every_row() * D, D), hidden)
    row = as_stored(normed(row, D, eps) * wide(post_weight + d, inside), hidden)
    row = as_stored(wide(hidden + at, inside) + row, hidden)
    tl.store(new_hidden + at, row.to(hidden.dtype.element_ty), mask=inside)
    row = normed(row, D, eps)
    dense = as_stored(row * wide(dense_weight + d, inside), hidden)
    store_row(dense, values, scales, n, d, inside, D, MOST)
    expert = as_stored(row * wide(expert_weight + d, inside), hidden)
    store_row(expert, expert_values, expert_scales, n, d, inside, D, EXPERT_MOST)
    router = as_stored(as_stored(row, hidden) * wide(router_scale + d, inside), hidden)
    tl.store(router_rows + at, (router * router_factor).to(router_rows.dtype.element_ty), mask=inside)


@triton.jit
def end_kernel(
    outputs, dense, hidden, expert_weight, dense_weight, post_weight, scalar, next_weight, new_hidden, values, scales,
    D, A, P, eps, MOST: tl.constexpr, BLOCK: tl.constexpr,
):  # type: ignore[no-untyped-def]  # fmt: skip
    """The end of a layer: the experts' results in their order, both feed-forward paths normed and added, the residual
    and the layer's scalar; then the row as the next layer reads it."""
    after_the_last()
    n = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK)
    inside = d < D
    row = as_stored(summed(outputs + n * (A - 1) * D, n, d, inside, A, D, D), hidden)
    row = as_stored(normed(row, D, eps) * wide(expert_weight + d, inside), hidden)
    other = as_stored(summed(dense, n, d, inside, P, every_row() * D, D), hidden)
    other = as_stored(normed(other, D, eps) * wide(dense_weight + d, inside), hidden)
    row = as_stored(other + row, hidden)
    row = as_stored(normed(row, D, eps) * wide(post_weight + d, inside), hidden)
    row = as_stored(wide(hidden + n * D + d, inside) + row, hidden)
    row = as_stored(row * tl.load(scalar).to(tl.float32), hidden)
    tl.store(new_hidden + n * D + d, row.to(hidden.dtype.element_ty), mask=inside)
    row = as_stored(normed(row, D, eps) * wide(next_weight + d, inside), hidden)
    store_row(row, values, scales, n, d, inside, D, MOST)
