"""The KV cache: one causal prefix per sequence, each with its own length.

A batch is a list of sequences, so requests of different lengths join, leave, fork and go back on their own, and
attention runs over exact lengths. Full layers keep every position. Sliding layers keep at least the last
window - 1 positions and one canvas more, so that a canvas can be taken back.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from redraft.model.config import ModelConfig

# K key-value heads, S slots, T new positions, D head size


class LayerCache:
    """Keys and values of one layer of one sequence, in a buffer that grows by doubling.

    Slot i holds position `start + i`. A fork shares the buffer until either side writes.
    """

    def __init__(self, heads: int, head_dim: int, keep: int | None, dtype: torch.dtype, device: torch.device):
        self.keep = keep
        self.start = 0
        self.used = 0
        self.shared = False
        self.keys = torch.empty(heads, 0, head_dim, dtype=dtype, device=device)
        self.values = torch.empty_like(self.keys)

    def keeps(self, count: int) -> bool:
        """Whether the last `count` positions are all there once they are stored."""
        return self.keep is None or count <= self.keep

    def reserve(self, slots: int) -> None:
        """Makes room for `slots` positions in all."""
        if slots <= self.keys.shape[1] and not self.shared:
            return
        capacity = max(slots, self.keys.shape[1])
        self.keys, self.values = (self._moved(old, capacity, 0) for old in (self.keys, self.values))
        self.shared = False

    def append(self, keys_KTD: Float[Tensor, "K T D"], values_KTD: Float[Tensor, "K T D"]) -> None:
        """Stores the next T positions; a sliding layer drops the oldest beyond what it keeps."""
        new = keys_KTD.shape[1]
        if self.keep is not None and self.used + new > self.keys.shape[1] and self.used + new > self.keep:
            self._drop(min(self.used, self.used + new - self.keep))
        if self.used + new > self.keys.shape[1] or self.shared:
            self.reserve(max(self.used + new, min(2 * self.keys.shape[1], 2 * (self.keep or 2**62)), 16))
        slots = slice(self.used, self.used + new)
        self.keys[:, slots] = keys_KTD
        self.values[:, slots] = values_KTD
        self.used += new

    def with_canvas(
        self, keys_KLD: Float[Tensor, "K L D"], values_KLD: Float[Tensor, "K L D"], count: int | None
    ) -> tuple[Tensor, Tensor]:
        """Views [K, S + L, D] of the last `count` positions and of a canvas, laid into free slots behind them.

        The slots stay free: the next call or `append` writes over them. A buffer that is shared with a fork is copied
        first, once.
        """
        end = self.used + keys_KLD.shape[1]
        if end > self.keys.shape[1] or self.shared:
            self.reserve(end)
        self.keys[:, self.used : end] = keys_KLD
        self.values[:, self.used : end] = values_KLD
        first = 0 if count is None else max(0, self.used - count)
        return self.keys[:, first:end], self.values[:, first:end]

    def last(self, count: int | None) -> tuple[Tensor, Tensor]:
        """Views [K, S, D] of the last `count` positions (of all that are kept when None)."""
        first = 0 if count is None else max(0, self.used - count)
        return self.keys[:, first : self.used], self.values[:, first : self.used]

    def truncate(self, length: int) -> None:
        """Forgets positions from `length` on."""
        self.used = max(0, length - self.start)
        if length == 0:
            self.start = 0

    def can_restore(self, length: int, window: int | None) -> bool:
        """Whether the prefix of this length is still complete for every later query."""
        return window is None or self.start <= max(0, length - (window - 1))

    @property
    def nbytes(self) -> int:
        """Bytes of the positions in use."""
        return 2 * self.used * self.keys.shape[0] * self.keys.shape[2] * self.keys.element_size()

    def _drop(self, count: int) -> None:
        capacity = self.keys.shape[1]
        self.keys, self.values = (self._moved(old, capacity, count) for old in (self.keys, self.values))
        self.shared = False
        self.start += count
        self.used -= count

    def _moved(self, old: Tensor, capacity: int, first: int) -> Tensor:
        new = old.new_empty(old.shape[0], capacity, old.shape[2])
        new[:, : self.used - first] = old[:, first : self.used]
        return new


@dataclass(frozen=True, kw_only=True)
class SetAside:
    """The last positions of a sequence while a canvas lies in their place.

    Attributes:
        length: with them.
        ends: see `SequenceCache`.
        layers: keys and values of each; empty where there are none.
    """

    length: int
    ends: list[int]
    layers: list[tuple[Tensor, ...]]


class SequenceCache:
    """All layers of one sequence.

    Attributes:
        windows: of each layer, None where it sees everything.
        length: positions that are encoded.
        ends: lengths after each encode, in order; -1 among them once a part of one was taken back.
        layers: keys and values.
        adapter: the place of the adapter that it is made with, among those that lie side by side; 0 is none.
    """

    def __init__(self, config: ModelConfig, dtype: torch.dtype, device: torch.device) -> None:
        self.windows = [layer.window for layer in config.layers]
        self.length = 0
        self.ends: list[int] = []
        self.adapter = 0
        self.layers = [
            LayerCache(
                layer.num_key_value_heads,
                layer.head_dim,
                None if layer.window is None else layer.window - 1 + config.canvas_length,
                dtype,
                device,
            )
            for layer in config.layers
        ]

    def fork(self) -> SequenceCache:
        """An independent copy; memory is shared until one of the two writes."""
        twin = copy.copy(self)
        for layer in self.layers:
            layer.shared = True
        twin.layers = [copy.copy(layer) for layer in self.layers]
        twin.ends = list(self.ends)
        return twin

    def advance(self, count: int) -> None:
        """Notes that every layer has taken so many positions more, in one encode."""
        self.length += count
        self.ends.append(self.length)

    def cut(self, length: int) -> int:
        """Goes back to the longest prefix of at most `length` positions that can be restored; returns its length.

        A sliding layer that has dropped positions the shorter prefix needs cannot restore it: then 0 is left.
        """
        length = min(length, self.length)
        if not all(l.can_restore(length, w) for l, w in zip(self.layers, self.windows, strict=True)):
            length = 0
        for layer in self.layers:
            layer.truncate(length)
        if length != self.length:
            kept = [end for end in self.ends if end <= length]
            # What is left of a longer encode may have other last bits than one that ends here.
            self.ends = kept if kept[-1:] == [length] or not length else [*kept, -1]
        self.length = length
        return length

    def set_aside(self, length: int) -> SetAside:
        """Goes back to a shorter prefix, and returns what `bring_back` puts behind it again.

        Raises:
            ValueError: a sliding layer no longer holds what that prefix needs.
        """
        rows, total, ends = self.length - length, self.length, list(self.ends)
        if not all(l.can_restore(length, w) for l, w in zip(self.layers, self.windows, strict=True)):
            raise ValueError(f"a cache of {total} positions cannot go back to {length}")
        # A canvas will lie where these lay.
        taken = [tuple(x.clone() for x in layer.last(rows)) for layer in self.layers] if rows else []
        if rows:
            self.cut(length)
        return SetAside(length=total, ends=ends, layers=taken)

    def bring_back(self, aside: SetAside) -> None:
        """Puts what was set aside behind the prefix again."""
        for layer, (keys, values) in zip(self.layers, aside.layers, strict=bool(aside.layers)):
            layer.append(keys, values)
        self.length, self.ends = aside.length, aside.ends

    def bytes_at(self, length: int, canvas_length: int) -> int:
        """Bytes that the buffers have grown to, at most, once `length` positions are encoded and a canvas lies behind
        them. `engine.footprint.kv_bytes` counts exactly, and for longer than a request can wait."""
        slots = max(2 * length, length + canvas_length)
        return sum(
            2 * min(slots, slots if layer.keep is None else 2 * layer.keep + canvas_length)
            * layer.keys.shape[0] * layer.keys.shape[2] * layer.keys.element_size()
            for layer in self.layers
        )  # fmt: skip

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values in use."""
        return sum(layer.nbytes for layer in self.layers)


class KVCache:
    """The sequences of a batch, in its row order."""

    def __init__(self, sequences: Iterable[SequenceCache]) -> None:
        self.sequences = list(sequences)

    @property
    def lengths(self) -> Int[Tensor, "B"]:
        """Encoded positions of each sequence."""
        return torch.tensor([sequence.length for sequence in self.sequences])

    @property
    def adapters(self) -> Int[Tensor, "B"]:
        """The place of each sequence's adapter."""
        return torch.tensor([sequence.adapter for sequence in self.sequences])

    def fork(self) -> KVCache:
        """An independent copy of every sequence; memory is shared until one side writes."""
        return KVCache(sequence.fork() for sequence in self.sequences)

    def cut(self, length: int) -> int | list[int]:
        """Cuts every sequence to at most `length` positions.

        Returns:
            The length that is left: one number for a single sequence, else one for each.
        """
        left = [sequence.cut(length) for sequence in self.sequences]
        return left[0] if len(left) == 1 else left

    def reserve(self, length: int) -> None:
        """Preallocates full layers for `length` positions, and sliding ones for what they keep at most."""
        for sequence in self.sequences:
            for layer in sequence.layers:
                layer.reserve(length if layer.keep is None else min(length, 2 * layer.keep))
