"""Encoding what a request has not encoded yet."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from redraft.engine.sequence import Costs
from redraft.engine.stops import ENCODE_CHUNK
from redraft.model.cache import KVCache, SequenceCache
from redraft.model.model import DiffusionGemma

Encode = Callable[[Tensor, SequenceCache], Tensor]


class Pending(Protocol):
    """What has ids to encode: see `Sequence`."""

    cache: SequenceCache
    pending: list[int]
    stops: list[int]
    costs: Costs


def encode_pending(
    model: DiffusionGemma, sequence: Pending, encode: Encode | None = None
) -> Float[Tensor, "1 1 D"] | None:
    """Appends the next piece of a request's pending ids to its cache.

    Args:
        model: whose cache it is.
        sequence: the request.
        encode: what takes the place of the model's own `encode` for one sequence.

    Returns:
        The hidden state of the last of them (zeros if there was none), or None while others are pending.
    """
    started = time.perf_counter()
    hidden = torch.zeros(1, 1, model.config.hidden_size, dtype=model.dtype, device=model.device)
    chunk = next_piece(sequence)
    if chunk:
        ids = torch.tensor(chunk, dtype=torch.long, device=model.device)[None]
        states = model.encode(ids, KVCache([sequence.cache])) if encode is None else encode(ids, sequence.cache)
        hidden = states[:, -1:].clone()
        sequence.costs.encode_passes += 1
    sequence.costs.encode_s += time.perf_counter() - started
    return None if sequence.pending else hidden


def next_piece(sequence: Pending) -> list[int]:
    """Takes the next piece off what is pending."""
    stop = next((stop for stop in sequence.stops if stop > sequence.cache.length), None)
    count = ENCODE_CHUNK if stop is None else stop - sequence.cache.length
    chunk, sequence.pending = sequence.pending[:count], sequence.pending[count:]
    return chunk
