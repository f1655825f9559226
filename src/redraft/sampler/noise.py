"""Noise as a function of (seed, stream, canvas, step, position): the same on every device, alone or in a batch.

Philox4x32-10 on 64-bit integer tensors; the seed is its key, the rest its counter.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), section 3.3.
"""

from __future__ import annotations

from enum import IntEnum

import torch
from jaxtyping import Float, Int
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = 0xFFFFFFFF
_ROUNDS = 10


class Stream(IntEnum):
    """What a draw is for; no two purposes share one."""

    START = 0
    SAMPLE = 1
    RENOISE = 2
    ACCEPT = 3
    RESIDUAL = 4
    TOKEN = 5


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Four 32-bit words, as int64 tensors, for counters and keys of 32-bit words that broadcast."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(_MULTIPLIERS[0], c0)
        high1, low1 = _multiply(_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return c0, c1, c2, c3


def _multiply(factor: int, word: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a 64-bit product, by halves: int64 has no room for an unsigned one."""
    low = factor * (word & 0xFFFF)
    high = factor * (word >> 16) + (low >> 16)
    return high >> 16, ((high << 16) | (low & 0xFFFF)) & _LOW


def words(
    seed: Int[Tensor, "B"], stream: Stream, canvas: Int[Tensor, "B"], step: Int[Tensor, "B"], length: int
) -> Int[Tensor, "B L"]:
    """One 32-bit word for each position of each row.

    Args:
        seed: 64-bit seeds, as int64 bit patterns.
        stream: what the draw is for.
        canvas: number of each row's canvas, from 0.
        step: number of each row's denoising step, from 0.
        length: positions in a canvas.
    """
    position = torch.arange(length, device=seed.device)[None]
    fixed = torch.full_like(position, int(stream))
    counter = (position, step[:, None], canvas[:, None], fixed)
    return philox(counter, ((seed & _LOW)[:, None], ((seed >> 32) & _LOW)[:, None]))[0]


def uniform(
    seed: Int[Tensor, "B"], stream: Stream, canvas: Int[Tensor, "B"], step: Int[Tensor, "B"], length: int
) -> Float[Tensor, "B L"]:
    """Draws from (0, 1): the middle of each of 2^23 equal parts, which float32 holds exactly; 2^24 would round to 1."""
    bits = words(seed, stream, canvas, step, length) >> 9
    return (bits.to(torch.float32) + 0.5) * 2.0**-23


def token_ids(
    seed: Int[Tensor, "B"],
    stream: Stream,
    canvas: Int[Tensor, "B"],
    step: Int[Tensor, "B"],
    length: int,
    vocab_size: int,
) -> Int[Tensor, "B L"]:
    """Ids drawn uniformly from the whole vocabulary, in integer arithmetic."""
    return (words(seed, stream, canvas, step, length) * vocab_size) >> 32


def as_int64(seed: int) -> int:
    """The int64 with the bits of a seed from 0 to 2^64 - 1."""
    return seed - 2**64 if seed >= 2**63 else seed
