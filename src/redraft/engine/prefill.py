"""Encoding what a request has not encoded yet."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from redraft.engine.prompt_images import PromptImage, SoftTokens, placed
from redraft.engine.sequence import Costs
from redraft.engine.stops import ENCODE_CHUNK
from redraft.model.cache import KVCache, SequenceCache
from redraft.model.model import DiffusionGemma

Encode = Callable[[Tensor, SequenceCache], Tensor]


class Pending(Protocol):
    """What has ids to encode: see `Sequence`."""

    images: tuple[PromptImage, ...]
    cache: SequenceCache
    pending: list[int]
    stops: list[int]
    costs: Costs


def encode_pending(
    model: DiffusionGemma, sequence: Pending, encode: Encode | None = None, soft: SoftTokens | None = None
) -> Float[Tensor, "1 1 D"] | None:
    """Appends the next piece of a request's pending ids to its cache.

    Args:
        model: whose cache it is.
        sequence: the request.
        encode: what takes the place of the model's own `encode` for one sequence, but for pictures.
        soft: what makes soft tokens of pictures; None where there are none.

    Returns:
        The hidden state of the last of them (zeros if there was none), or None while others are pending.
    """
    started = time.perf_counter()
    hidden = torch.zeros(1, 1, model.config.hidden_size, dtype=model.dtype, device=model.device)
    # Before anything is taken off what is pending: a picture may fail.
    begun, images = sequence.cache.length, sequence.images
    seen = placed(images, begun, begun + min(_length(sequence), len(sequence.pending)), soft) if images else ()
    chunk = next_piece(sequence)
    if chunk:
        ids = torch.tensor(chunk, dtype=torch.long, device=model.device)[None]
        if seen:
            states = model.encode(ids, KVCache([sequence.cache]), images=[seen], reading=images[0].reading)
        else:
            states = model.encode(ids, KVCache([sequence.cache])) if encode is None else encode(ids, sequence.cache)
        hidden = states[:, -1:].clone()
        sequence.costs.encode_passes += 1
    sequence.costs.encode_s += time.perf_counter() - started
    return None if sequence.pending else hidden


def next_piece(sequence: Pending) -> list[int]:
    """Takes the next piece off what is pending."""
    count = _length(sequence)
    chunk, sequence.pending = sequence.pending[:count], sequence.pending[count:]
    return chunk


def _length(sequence: Pending) -> int:
    """Of the next piece, at most."""
    stop = next((stop for stop in sequence.stops if stop > sequence.cache.length), None)
    return ENCODE_CHUNK if stop is None else stop - sequence.cache.length
