"""When a canvas is done: its argmax has stood still and the model is sure of it."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# H remembered canvases: the stability threshold
UNSEEN = -1


def new_history(threshold: int, batch_size: int, length: int, device: torch.device) -> Int[Tensor, "H B L"]:
    """A history in which no canvas has been seen; no token id equals `UNSEEN`."""
    return torch.full((threshold, batch_size, length), UNSEEN, dtype=torch.long, device=device)


def remember(history: Int[Tensor, "H B L"], argmax: Int[Tensor, "B L"]) -> Int[Tensor, "H B L"]:
    """The history with this step's canvas in place of the oldest."""
    return torch.cat([history, argmax[None]])[1:]


def stable_and_confident(
    history: Int[Tensor, "H B L"],
    argmax: Int[Tensor, "B L"],
    entropy: Float[Tensor, "B L"],
    confidence_threshold: float | Float[Tensor, "B"],
) -> Bool[Tensor, "B"]:
    """Whether the canvas equals all H *previous* ones and its mean entropy is below the threshold (nats).

    `history` must not hold this step's canvas yet. H = 0 asks for confidence alone.

    Source: transformers `StableAndConfidentStoppingCriteria`.
    """
    stable = (history == argmax).all(-1).all(0)
    return stable & (entropy.mean(-1) < confidence_threshold)
