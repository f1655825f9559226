"""Encoding what a request has not encoded yet."""

from __future__ import annotations

import time

import torch
from jaxtyping import Float
from torch import Tensor

from redraft.engine.sequence import Sequence
from redraft.model.cache import KVCache
from redraft.model.model import DiffusionGemma

# Longer prompts are encoded piece by piece, which bounds the attention mask and lets a cancelled request go.
ENCODE_CHUNK = 1024


def encode_pending(model: DiffusionGemma, sequence: Sequence) -> Float[Tensor, "1 1 D"]:
    """Appends a request's pending ids to its cache; the hidden state of the last of them (zeros if there was none)."""
    started = time.perf_counter()
    ids = torch.tensor(sequence.pending, dtype=torch.long, device=model.device)[None]
    hidden = torch.zeros(1, 1, model.config.hidden_size, dtype=model.dtype, device=model.device)
    for chunk in ids.split(ENCODE_CHUNK, dim=1):
        if chunk.numel():
            hidden = model.encode(chunk, KVCache([sequence.cache]))[:, -1:]
            sequence.costs.encode_passes += 1
    sequence.pending = []
    sequence.costs.encode_s += time.perf_counter() - started
    return hidden
