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

from redraft.kernels.triton.attention_kernels import attention_kernel, combine_kernel, combine_round_kernel
from redraft.kernels.triton.rows import Rows
from redraft.kernels.triton.target import compute_dtype, lanes, launch, power_of_two, processors, shared_bytes, tiles

# B sequences, T queries, S cached keys, L keys of the canvas, H query heads, K key-value heads, D head size


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """Tiles of a program: packed rows, keys of a step, columns of the output and of a score's step, warps and stages;
    and whether a program holds its queries, at most two steps of them, or reads them anew for every tile of keys."""

    rows: int
    keys: int
    warps: int
    stages: int
    width: int = 256
    depth: int = 256
    held: bool = True


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
# Where a warp of 32 lanes has little shared memory as well, queries do not fit its registers beside the sums.
_NARROW = AttentionConfig(rows=64, keys=32, warps=8, stages=1, depth=64, held=False)


def attention_config(head_size: int, shared: int, warp: int) -> AttentionConfig:
    """Tiles for a head size, so much shared memory, and warps of so many threads."""
    for least, narrow, wide in _TABLE:
        if shared >= least:
            return narrow if head_size <= narrow.width else wide
    return _LEAST if warp > 32 else _NARROW


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What programs have found over parts of the keys: sums, largest scores and weights, and what they belong to."""

    totals: Float[Tensor, "P BK R D"]
    tops: Float[Tensor, "P BK R"]
    masses: Float[Tensor, "P BK R"]
    heads: int
    group: int


def attention_triton(
    q_BTHD: Float[Tensor, "B T H D"],
    cached_keys_BKSD: Float[Tensor, "B K S D"],
    cached_values_BKSD: Float[Tensor, "B K S D"],
    keys_BKLD: Float[Tensor, "B K L D"],
    values_BKLD: Float[Tensor, "B K L D"],
    used: Int[Tensor, "B"] | None = None,
    *,
    config: AttentionConfig | None = None,
    parts: int | None = None,
) -> Float[Tensor, "B T H D"]:
    """`redraft.kernels.attention.canvas_attention`, on a GPU; at least one key in all.

    Args:
        q_BTHD: queries.
        cached_keys_BKSD: what a layer sees of the cache, in any order; may be empty.
        cached_values_BKSD: their values.
        keys_BKLD: of the canvas; may be empty.
        values_BKLD: their values.
        used: how many of the cached keys count, read by the kernel; None: all. What is launched depends on S only.
        config: tiles, else by the device.
        parts: of the keys, else as many as fill the device: fewer in company, so that last bits may differ there.
    """
    given = (q_BTHD, cached_keys_BKSD, cached_values_BKSD, keys_BKLD, values_BKLD)
    found = _attended(given, used, config, parts)
    (B, T, _, D), G, K = q_BTHD.shape, found.group, found.heads
    out = torch.empty_like(q_BTHD, memory_format=torch.contiguous_format)
    launch(
        combine_kernel, (T * G, B * K), found.totals, found.tops, found.masses, out, K, T * G, len(found.totals),
        *out.stride()[:3], G=G, D=D,
    )  # fmt: skip
    return out


def rounded_attention(
    q_BTHD: Float[Tensor, "B T H D"],
    cached_keys_BKSD: Float[Tensor, "B K S D"],
    cached_values_BKSD: Float[Tensor, "B K S D"],
    keys_BKLD: Float[Tensor, "B K L D"],
    values_BKLD: Float[Tensor, "B K L D"],
    used: Int[Tensor, "B"] | None,
    dtype: torch.dtype,
    *,
    config: AttentionConfig | None = None,
    parts: int | None = None,
) -> Rows:
    """`attention_triton` as the B * T rows of H * D that an 8-bit product reads, rounded to `dtype`."""
    given = (q_BTHD, cached_keys_BKSD, cached_values_BKSD, keys_BKLD, values_BKLD)
    found = _attended(given, used, config, parts)
    (B, T, H, D), G, K = q_BTHD.shape, found.group, found.heads
    rows = Rows.empty(q_BTHD, (B * T, H * D), dtype)
    launch(
        combine_round_kernel, (T, B), found.totals, found.tops, found.masses, q_BTHD, *rows.pointers, K, T * G,
        len(found.totals), G=G, H=H, D=D, HEADS=power_of_two(H), MOST=rows.most, num_warps=4 if D <= 256 else 8,
    )  # fmt: skip
    return rows


def _attended(
    given: tuple[Tensor, ...], used: Tensor | None, config: AttentionConfig | None, parts: int | None
) -> _Parts:
    q, *sources = (x if x.stride(-1) == 1 else x.contiguous() for x in given)
    (B, T, H, D), device = q.shape, q.device
    (K, S), L = sources[0].shape[1:3], sources[2].shape[2]
    G = H // K
    R = T * G
    chosen = config or attention_config(D, shared_bytes(device, q.dtype), lanes(device))
    width, depth = min(D, chosen.width), min(D, chosen.depth)
    programs = tiles(R, chosen.rows) * (D // width)
    steps = tiles(S + L, chosen.keys)
    P = min(steps, parts or max(1, processors(device) // (programs * B * K)))
    totals = torch.empty(P, B * K, R, D, dtype=torch.float32, device=device)
    tops, masses = (torch.empty(P, B * K, R, dtype=torch.float32, device=device) for _ in range(2))
    strides = [stride for x in (q, *sources) for stride in x.stride()[:3]]
    launch(
        attention_kernel, (programs, B * K, P),
        # A pointer that a kernel does not follow may be any.
        q, *sources, q if used is None else used, totals, tops, masses, K, R, S, L, D, *strides,
        G=G, ROWS=chosen.rows, KEYS=chosen.keys, D=D, DEPTH=depth, WIDTH=width, COMPUTE=compute_dtype(q.dtype),
        USED=used is not None, HELD=chosen.held,
        num_warps=chosen.warps, num_stages=chosen.stages,
    )  # fmt: skip
    return _Parts(totals=totals, tops=tops, masses=masses, heads=K, group=G)
