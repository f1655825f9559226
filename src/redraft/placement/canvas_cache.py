"""What the canvases of a batch see of their prefixes, at addresses that stay: what captured work reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from redraft.kernels.attention import attention, canvas_attention
from redraft.kernels.triton.fallback import on_gpu
from redraft.model.attention import Heads
from redraft.model.cache import SequenceCache
from redraft.model.config import ModelConfig

if TYPE_CHECKING:
    from redraft.kernels.triton.rows import Rows

# B batch, T positions, H query heads, K key-value heads, S slots, D head size


# Positions that the smallest room holds.
_LEAST = 512


def room_for(length: int) -> int:
    """The capacity for prefixes of so many positions: a power of two, so that few captures serve all."""
    return max(_LEAST, 1 << max(0, length - 1).bit_length())


class CanvasCache:
    """Keys and values of up to `capacity` positions of B sequences; sliding layers have their window only.

    Lengths lie on the device, and so do the places of adapters. A prefix is copied in once a canvas, which is a few
    layers' worth of reading; in return one launch serves every length, and the sequences go on growing where they are.
    """

    def __init__(
        self, config: ModelConfig, batch_size: int, capacity: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.capacity = capacity
        self.lengths = torch.zeros(batch_size, dtype=torch.long, device=device)
        self.adapters = torch.zeros(batch_size, dtype=torch.long, device=device)
        self.windows = [layer.window for layer in config.layers]
        slots = [capacity if window is None else min(capacity, window - 1) for window in self.windows]
        # One row a kind of layer; the last is that of the full ones.
        self._kinds = sorted({count for count in slots})
        self._kind = [self._kinds.index(count) for count in slots]
        self.used = torch.zeros(len(self._kinds), batch_size, dtype=torch.int32, device=device)
        # Zeros: what no key is there for is weighed with zero, and must be a number.
        self.keys, self.values = (
            [
                torch.zeros(
                    batch_size, layer.num_key_value_heads, count, layer.head_dim, dtype=dtype, device=device
                )
                for layer, count in zip(config.layers, slots, strict=True)
            ]
            for _ in range(2)
        )  # fmt: skip

    def fill(self, row: int, sequence: SequenceCache) -> None:
        """Copies what a canvas behind `sequence` sees.

        Raises:
            ValueError: it is longer than the capacity.
        """
        if sequence.length > self.capacity:
            raise ValueError(f"{sequence.length} positions do not fit {self.capacity}")
        # Triton's loads are masked; torch multiplies what is not used with zero, which does not undo what is no number.
        multiplied = not on_gpu(self.lengths)
        for layer, window in enumerate(self.windows):
            seen = sequence.layers[layer].last(None if window is None else window - 1)
            for room, found in zip((self.keys, self.values), seen, strict=True):
                room[layer][row, :, : found.shape[1]] = found
                if multiplied:
                    room[layer][row, :, found.shape[1] :] = 0.0
        self.lengths[row], self.adapters[row] = sequence.length, sequence.adapter
        for kind, slots in enumerate(self._kinds):
            self.used[kind, row] = min(sequence.length, slots)

    def clear(self, row: int) -> None:
        """A row that sees nothing of what lies there."""
        self.lengths[row] = 0
        self.used[:, row] = 0

    def kind_of(self, layer: int) -> int:
        """What a layer has in common with those that see as much of the cache."""
        return self._kind[layer]

    def used_by(self, layer: int) -> Tensor:
        """[B] slots of a layer that hold something."""
        return self.used[self._kind[layer]]

    @property
    def nbytes(self) -> int:
        """Of all keys and values."""
        return sum(layer.nbytes for layer in (*self.keys, *self.values))


class DenoiseStatic:
    """As `attend.Denoise`, over a `CanvasCache`."""

    repeatable = True

    def __init__(self, cache: CanvasCache) -> None:
        self.cache = cache

    def __call__(self, layer: int, heads: Heads) -> Float[Tensor, "B T H D"]:
        return canvas_attention(*self._given(layer, heads))

    def rounded(self, layer: int, heads: Heads, dtype: torch.dtype) -> Rows:
        """The same as rows of H * D for an 8-bit product on a GPU."""
        from redraft.kernels.triton.attention import rounded_attention

        return rounded_attention(*self._given(layer, heads), dtype)

    def _given(self, layer: int, heads: Heads) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        cache, own = self.cache, (heads.k_BTKD.transpose(1, 2), heads.v_BTKD.transpose(1, 2))
        return heads.q_BTHD, cache.keys[layer], cache.values[layer], *own, cache.used_by(layer)


class EncodeStatic:
    """Causal attention over a `CanvasCache` and T new positions, whose keys and values are kept here."""

    repeatable = True

    def __init__(self, cache: CanvasCache, length: int) -> None:
        """`length` is T."""
        self.cache = cache
        self._masks: dict[tuple[int, int | None], Bool[Tensor, "B T S"]] = {}
        self.new_keys, self.new_values = (
            [layer.new_zeros(len(layer), layer.shape[1], length, layer.shape[3]) for layer in cache.keys]
            for _ in range(2)
        )  # fmt: skip

    def __call__(self, layer: int, heads: Heads) -> Float[Tensor, "B T H D"]:
        q_BTHD, k_BTKD, v_BTKD = heads
        self.new_keys[layer].copy_(k_BTKD.transpose(1, 2))
        self.new_values[layer].copy_(v_BTKD.transpose(1, 2))
        keys = torch.cat([self.cache.keys[layer], self.new_keys[layer]], dim=2)
        values = torch.cat([self.cache.values[layer], self.new_values[layer]], dim=2)
        return attention(q_BTHD, keys, values, self._mask(layer, q_BTHD.shape[1]))

    def begin(self) -> None:
        """Another forward: lengths may have changed."""
        self._masks.clear()

    def _mask(self, layer: int, length: int) -> Bool[Tensor, "B T S"]:
        """One for all layers of a kind, which is a handful of launches for each."""
        kind = (self.cache.kind_of(layer), self.cache.windows[layer])
        if kind not in self._masks:
            self._masks[kind] = self._made(layer, length)
        return self._masks[kind]

    def _made(self, layer: int, length: int) -> Bool[Tensor, "B T S"]:
        slots, device = self.cache.keys[layer].shape[2], self.cache.lengths.device
        used = self.cache.used_by(layer)[:, None, None]
        query = torch.arange(length, device=device)[:, None]
        slot = torch.arange(slots + length, device=device)[None]
        # Slot j of the cache holds the position `used - j` before the first of the new ones.
        age = torch.where(slot < slots, query + used - slot, query - (slot - slots))
        seen = (age >= 0) & ((slot < used) | (slot >= slots))
        window = self.cache.windows[layer]
        return seen if window is None else seen & (age < window)
