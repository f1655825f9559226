"""The two modes for training: padded rows, gradients through keys and values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from redraft.kernels.attention import attention, causal_mask
from redraft.model.attention import Heads
from redraft.model.config import ModelConfig
from redraft.model.images import image_mask

# B batch, R rows, T encoded positions, N canvases, C canvases of a row, L canvas positions, S keys, H query heads,
# K key-value heads, D head size


class EncodeBatch:
    """Causal attention over right-padded rows; keeps every layer's keys and values for the canvases.

    Where rows hold several conversations, each position sees its own alone.
    """

    repeatable = False

    def __init__(
        self,
        config: ModelConfig,
        length: int,
        device: torch.device,
        begins: Int[Tensor, "B T"] | None = None,
        runs: Sequence[Sequence[tuple[int, int]]] = (),
    ) -> None:
        """`runs` are the pictures of each row, (first, behind the last); nothing where no row has any. Inside one,
        positions see each other as the weights were trained."""
        windows = [layer.window for layer in config.layers]
        masks = {window: causal_mask(length, length, window, device)[None] for window in set(windows)}
        if any(runs):
            masks = {w: torch.stack([_seeing(length, w, row, device) for row in runs]) for w in set(windows)}
        if begins is not None:
            same = begins[:, :, None] == begins[:, None]
            masks = {window: mask & same for window, mask in masks.items()}
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


class DenoiseCanvases:
    """Attention of several canvases of a row: each over what stands before it, and over itself.

    A row's canvases lie behind each other as the queries of one product, whose mask is block-diagonal, so that a row's
    keys are there once however many canvases look at them. The other layers see canvases alone.
    """

    repeatable = True

    def __init__(
        self,
        config: ModelConfig,
        stored: list[tuple[Tensor, Tensor]],
        row: Int[Tensor, "N"],
        prefix: Int[Tensor, "N"],
        begin: Int[Tensor, "N"],
        canvas_length: int,
    ) -> None:
        """`row`, `prefix` and `begin`, where a canvas's conversation begins in its row, are on the host."""
        self.stored = stored
        rows, length, device = len(stored[0][0]), stored[0][0].shape[2], stored[0][0].device
        same = row[:, None] == row
        # How many of its row stand before each.
        earlier = torch.tril(same, -1).sum(1)
        self.slots = (rows, int(earlier.max()) + 1)
        place = row * self.slots[1] + earlier
        self.place = None if torch.equal(place, torch.arange(rows * self.slots[1])) else place.to(device)
        windows = [layer.window for layer in config.layers]
        # A slot without a canvas sees itself, since attention to nothing is no number.
        starts = prefix.new_zeros(2, rows * self.slots[1]).index_copy(1, place, torch.stack([begin, prefix]))
        begin_RC, prefix_RC = starts.to(device).view(2, *self.slots)
        masks = {w: _canvas_mask(begin_RC, prefix_RC, length, canvas_length, w) for w in set(windows)}
        self.masks = [masks[window] for window in windows]

    def __call__(self, layer: int, heads: Heads) -> Float[Tensor, "N L H D"]:
        (q_RTHD, k_RTKD, v_RTKD), N = (self._in_rows(x) for x in heads), len(heads[0])
        old_keys, old_values = self.stored[layer]
        keys = torch.cat([old_keys, k_RTKD.transpose(1, 2)], dim=2)
        values = torch.cat([old_values, v_RTKD.transpose(1, 2)], dim=2)
        out = attention(q_RTHD, keys, values, self.masks[layer])
        out = out.reshape(-1, *heads[0].shape[1:])
        return out if self.place is None else out.index_select(0, self.place).view(N, *heads[0].shape[1:])

    def _in_rows(self, x: Float[Tensor, "N L H D"]) -> Float[Tensor, "R CL H D"]:
        R, C = self.slots
        if self.place is not None:
            x = x.new_zeros(R * C, *x.shape[1:]).index_copy(0, self.place, x)
        return x.reshape(R, C * x.shape[1], *x.shape[2:])


def _seeing(
    length: int, window: int | None, runs: Sequence[tuple[int, int]], device: torch.device
) -> Bool[Tensor, "T T"]:
    return image_mask(length, length, window, runs, "google", device)


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


def _canvas_mask(
    begin: Int[Tensor, "R C"], prefix: Int[Tensor, "R C"], length: int, canvas_length: int, window: int | None
) -> Bool[Tensor, "R CL S"]:
    """S: the row's positions, then its canvases."""
    R, C = prefix.shape
    positions = torch.arange(length, device=prefix.device)
    first = begin if window is None else torch.maximum(begin, prefix - (window - 1))
    before = (positions >= first[..., None]) & (positions < prefix[..., None])
    own = torch.eye(C, dtype=torch.bool, device=prefix.device).repeat_interleave(canvas_length, 1)
    seen = torch.cat([before, own.expand(R, -1, -1)], dim=2)
    return seen.repeat_interleave(canvas_length, 1)
