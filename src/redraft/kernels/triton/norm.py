"""Norms of the denoising step on a GPU, each with what follows it: one pass over a row where torch takes several.

Sums and products are float32; results are rounded where the torch forms round, apart from a rotation, which is
rounded once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from redraft.kernels.triton.dependent import after_the_last
from redraft.kernels.triton.target import launch, power_of_two

# N rows, D width, B batch, T positions, H query heads, K key-value heads, F = D / 2 pairs


@triton.jit
def norm_kernel(
    x, weight, residual, scalar, out, D, eps,
    BLOCK: tl.constexpr, WEIGHTED: tl.constexpr, ADDS: tl.constexpr, SCALES: tl.constexpr,
):  # type: ignore[no-untyped-def]  # fmt: skip
    """(residual + normed row) * scalar, or less of it."""
    after_the_last()
    n = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK)
    inside = d < D
    row = tl.load(x + n * D + d, mask=inside, other=0.0).to(tl.float32)
    normed = row / tl.sqrt(tl.sum(row * row, axis=0) / D + eps)
    if WEIGHTED:
        normed *= tl.load(weight + d, mask=inside, other=0.0).to(tl.float32)
    result = normed.to(out.dtype.element_ty)
    if ADDS:
        old = tl.load(residual + n * D + d, mask=inside, other=0.0).to(tl.float32)
        result = (old + result.to(tl.float32)).to(out.dtype.element_ty)
    if SCALES:
        result = (result.to(tl.float32) * tl.load(scalar).to(tl.float32)).to(out.dtype.element_ty)
    tl.store(out + n * D + d, result, mask=inside)


@triton.jit
def normed_halves(at, weight, eps, F: tl.constexpr, WEIGHTED: tl.constexpr):  # type: ignore[no-untyped-def]
    """The two halves of a normed head, in float32 but with the digits that it is stored with."""
    f = tl.arange(0, F)
    first, second = tl.load(at + f).to(tl.float32), tl.load(at + F + f).to(tl.float32)
    mean = (tl.sum(first * first, axis=0) + tl.sum(second * second, axis=0)) / (2 * F)
    size = tl.sqrt(mean + eps)
    first, second = first / size, second / size
    if WEIGHTED:
        first *= tl.load(weight + f).to(tl.float32)
        second *= tl.load(weight + F + f).to(tl.float32)
    kind = at.dtype.element_ty
    return first.to(kind).to(tl.float32), second.to(kind).to(tl.float32)


@triton.jit
def store_halves(at, first, second, F: tl.constexpr):  # type: ignore[no-untyped-def]
    """Rounds and writes a head."""
    f = tl.arange(0, F)
    tl.store(at + f, first.to(at.dtype.element_ty))
    tl.store(at + F + f, second.to(at.dtype.element_ty))


@triton.jit
def heads_kernel(
    queries, keys, values, q_weight, k_weight, cos, sin, q_out, k_out, v_out, H, KV, eps, q_row, k_row, v_row,
    F: tl.constexpr,
):  # type: ignore[no-untyped-def]  # fmt: skip
    """One head of one position: a query's, or a key's with its value."""
    after_the_last()
    n, h = tl.program_id(0).to(tl.int64), tl.program_id(1)
    f = tl.arange(0, F)
    turn_cos, turn_sin = tl.load(cos + n * F + f).to(tl.float32), tl.load(sin + n * F + f).to(tl.float32)
    if h < H:
        first, second = normed_halves(queries + n * q_row + h * 2 * F, q_weight, eps, F, True)  # type: ignore[misc]
        at = q_out + (n * H + h) * 2 * F
        store_halves(at, first * turn_cos - second * turn_sin, second * turn_cos + first * turn_sin, F)
    else:
        k = h - H
        own = (n * KV + k) * 2 * F
        first, second = normed_halves(keys + n * k_row + k * 2 * F, k_weight, eps, F, True)  # type: ignore[misc]
        store_halves(k_out + own, first * turn_cos - second * turn_sin, second * turn_cos + first * turn_sin, F)
        first, second = normed_halves(values + n * v_row + k * 2 * F, k_weight, eps, F, False)
        store_halves(v_out + own, first, second, F)


def rms_norm_triton(x: Float[Tensor, "... D"], weight: Float[Tensor, "D"] | None, eps: float) -> Float[Tensor, "... D"]:
    """`redraft.kernels.norm.rms_norm`, on a GPU."""
    return _norm(x, weight, None, None, eps)


def norm_add_triton(
    x: Float[Tensor, "... D"],
    weight: Float[Tensor, "D"],
    residual: Float[Tensor, "... D"],
    scalar: Float[Tensor, "1"] | None,
    eps: float,
) -> Float[Tensor, "... D"]:
    """`redraft.kernels.norm.norm_add`, on a GPU."""
    return _norm(x, weight, residual, scalar, eps)


def _norm(x: Tensor, weight: Tensor | None, residual: Tensor | None, scalar: Tensor | None, eps: float) -> Tensor:
    D = x.shape[-1]
    x, residual = x.contiguous(), None if residual is None else residual.contiguous()
    out = torch.empty_like(x)
    if x.numel() == 0:
        return out
    # A pointer that a kernel does not follow may be any.
    pointers = [out if pointer is None else pointer for pointer in (weight, residual, scalar)]
    launch(
        norm_kernel, (x.numel() // D,), x, *pointers, out, D, eps, BLOCK=power_of_two(D),
        WEIGHTED=weight is not None, ADDS=residual is not None, SCALES=scalar is not None, num_warps=8,
    )  # fmt: skip
    return out


def norm_heads_triton(
    q_BTHD: Float[Tensor, "B T H D"],
    k_BTKD: Float[Tensor, "B T K D"],
    v_BTKD: Float[Tensor, "B T K D"],
    weights: tuple[Float[Tensor, "D"], Float[Tensor, "D"]],
    table: tuple[Float[Tensor, "B T 1 F"], Float[Tensor, "B T 1 F"]],
    eps: float,
) -> tuple[Float[Tensor, "B T H D"], Float[Tensor, "B T K D"], Float[Tensor, "B T K D"]]:
    """`redraft.kernels.norm.norm_heads`, on a GPU; D is a power of 2."""
    (B, T, H, D), K = q_BTHD.shape, k_BTKD.shape[2]
    out = tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q_BTHD, k_BTKD, v_BTKD))
    if B * T == 0:
        return out  # type: ignore[return-value]
    # Heads lie beside each other; rows may be apart, as in a joint projection.
    flat = [x.flatten(0, 1) for x in (q_BTHD, k_BTKD, v_BTKD)]
    q, k, v = (x if x.stride()[1:] == (D, 1) else x.contiguous() for x in flat)
    cos, sin = (x.expand(B, T, 1, D // 2).contiguous() for x in table)
    launch(
        heads_kernel, (B * T, H + K), q, k, v, *weights, cos, sin, *out, H, K, eps, q.stride(0), k.stride(0),
        v.stride(0), F=D // 2, num_warps=1 if D <= 256 else 2,
    )  # fmt: skip
    return out  # type: ignore[return-value]
