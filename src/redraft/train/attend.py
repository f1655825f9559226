"""The two modes for training: padded batches, gradients through keys and values."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from redraft.kernels.attention import attention, causal_mask
from redraft.model.attention import Heads
from redraft.model.config import ModelConfig

# B batch, T encoded positions, L canvas positions, H query heads, K key-value heads, D head size


class EncodeBatch:
    """Causal attention over right-padded rows; keeps every layer's keys and values for `DenoiseBatch`."""

    repeatable = False

    def __init__(self, config: ModelConfig, length: int, device: torch.device) -> None:
        windows = [layer.window for layer in config.layers]
        masks = {window: causal_mask(length, length, window, device)[None] for window in set(windows)}
        self.masks = [masks[window] for window in windows]
        self.stored: list[tuple[Tensor, Tensor]] = []

    def __call__(self, layer: int, heads: Heads) -> Float[Tensor, "B T H D"]:
        q_BTHD, k_BTKD, v_BTKD = heads
        keys, values = k_BTKD.transpose(1, 2), v_BTKD.transpose(1, 2)
        self.stored.append((keys, values))
        return attention(q_BTHD, keys, values, self.masks[layer].expand(len(q_BTHD), -1, -1))


class DenoiseBatch:
    """Canvas attention over the prefix of each row (`prefix[b]` positions, the last window - 1 of them in sliding
    layers) and the whole canvas."""

    repeatable = True

    def __init__(
        self,
        config: ModelConfig,
        stored: list[tuple[Tensor, Tensor]],
        prefix: Int[Tensor, "B"],
        canvas_length: int,
    ) -> None:
        self.stored = stored
        windows = [layer.window for layer in config.layers]
        length = stored[0][0].shape[2]
        masks = {window: _prefix_mask(prefix, length, canvas_length, window) for window in set(windows)}
        self.masks = [masks[window] for window in windows]

    def __call__(self, layer: int, heads: Heads) -> Float[Tensor, "B L H D"]:
        q_BTHD, k_BTKD, v_BTKD = heads
        old_keys, old_values = self.stored[layer]
        keys = torch.cat([old_keys, k_BTKD.transpose(1, 2)], dim=2)
        values = torch.cat([old_values, v_BTKD.transpose(1, 2)], dim=2)
        return attention(q_BTHD, keys, values, self.masks[layer])


def _prefix_mask(
    prefix: Int[Tensor, "B"], length: int, canvas_length: int, window: int | None
) -> Bool[Tensor, "B L S"]:
    positions = torch.arange(length, device=prefix.device)
    visible = positions < prefix[:, None]
    if window is not None:
        # The window ends where the canvas begins, for every canvas position.
        visible &= positions >= prefix[:, None] - (window - 1)
    canvas = torch.ones(len(prefix), canvas_length, dtype=torch.bool, device=prefix.device)
    return torch.cat([visible, canvas], dim=1)[:, None].expand(-1, canvas_length, -1)
