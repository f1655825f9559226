"""Attention of a canvas over cached keys and its own, on a GPU, without putting the two beside each other.

The query heads of a key-value head are packed into rows of one product. Keys are split into parts, so that a short
canvas fills the device; what the parts find is joined in their order, so that the bits are the same on every run.
Heads of 512 are walked twice, half of the output dims each: more than 256 do not fit a program's registers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from redraft.kernels.triton.attention_kernels import attention_kernel, combine_kernel
from redraft.kernels.triton.target import compute_dtype, launch, processors, shared_bytes, tiles

# T queries, S cached keys, L keys of the canvas, H query heads, K key-value heads, D head size

_WIDEST = 256


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """Tiles of a program: packed rows, keys of a step, warps and stages."""

    rows: int
    keys: int
    warps: int
    stages: int


# (head sizes up to 256, 512) by the shared memory that they take; the first that fits is the best that does not spill.
_TABLE = [
    (
        224 * 2**10,
        AttentionConfig(rows=128, keys=64, warps=8, stages=2),
        AttentionConfig(rows=128, keys=32, warps=8, stages=2),
    ),
    (
        160 * 2**10,
        AttentionConfig(rows=128, keys=32, warps=8, stages=2),
        AttentionConfig(rows=64, keys=32, warps=8, stages=2),
    ),
    (
        96 * 2**10,
        AttentionConfig(rows=64, keys=32, warps=8, stages=2),
        AttentionConfig(rows=32, keys=32, warps=4, stages=2),
    ),
]
_LEAST = AttentionConfig(rows=64, keys=32, warps=4, stages=1)


def attention_config(head_size: int, shared: int) -> AttentionConfig:
    """Tiles for a head size and so much shared memory."""
    for least, narrow, wide in _TABLE:
        if shared >= least:
            return narrow if head_size <= _WIDEST else wide
    return _LEAST


def attention_triton(
    q_THD: Float[Tensor, "T H D"],
    cached_keys_KSD: Float[Tensor, "K S D"],
    cached_values_KSD: Float[Tensor, "K S D"],
    keys_KLD: Float[Tensor, "K L D"],
    values_KLD: Float[Tensor, "K L D"],
    used: Int[Tensor, ""] | None = None,
    *,
    config: AttentionConfig | None = None,
    parts: int | None = None,
) -> Float[Tensor, "T H D"]:
    """`redraft.kernels.attention.canvas_attention`, on a GPU; at least one key in all.

    Args:
        q_THD: queries.
        cached_keys_KSD: what a layer sees of the cache, in any order; may be empty.
        cached_values_KSD: their values.
        keys_KLD: of the canvas; may be empty.
        values_KLD: their values.
        used: how many of the cached keys count, read by the kernel; None: all. What is launched depends on S only.
        config: tiles, else by the device.
        parts: of the keys, else as many as fill the device.
    """
    (T, H, D), device = q_THD.shape, q_THD.device
    (K, S, _), L = cached_keys_KSD.shape, keys_KLD.shape[1]
    G, width = H // K, min(D, _WIDEST)
    R = T * G
    chosen = config or attention_config(D, shared_bytes(device, q_THD.dtype))
    q, *sources = (
        x if x.stride(-1) == 1 else x.contiguous()
        for x in (q_THD, cached_keys_KSD, cached_values_KSD, keys_KLD, values_KLD)
    )
    programs = tiles(R, chosen.rows) * (D // width)
    steps = tiles(S + L, chosen.keys)
    P = min(steps, parts or max(1, processors(device) // (programs * K)))
    totals = torch.empty(P, K, R, D, dtype=torch.float32, device=device)
    tops, masses = (torch.empty(P, K, R, dtype=torch.float32, device=device) for _ in range(2))
    out = torch.empty_like(q_THD, memory_format=torch.contiguous_format)
    strides = [stride for x in (q, *sources) for stride in x.stride()[:2]]
    launch(
        attention_kernel, (programs, K, P),
        # A pointer that a kernel does not follow may be any.
        q, *sources, q if used is None else used, totals, tops, masses, R, S, L, *strides,
        G=G, ROWS=chosen.rows, KEYS=chosen.keys, D=D, DEPTH=width, WIDTH=width, COMPUTE=compute_dtype(q.dtype),
        USED=used is not None,
        num_warps=chosen.warps, num_stages=chosen.stages,
    )  # fmt: skip
    launch(combine_kernel, (R, K), totals, tops, masses, out, R, P, *out.stride()[:2], G=G, D=D)
    return out
