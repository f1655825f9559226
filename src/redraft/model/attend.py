"""The two modes of inference as `Attend` strategies over the KV cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from redraft.kernels.attention import attention, causal_attention
from redraft.model.attention import Heads
from redraft.model.cache import KVCache, SequenceCache
from redraft.model.images import Placed, Reading, image_mask

# B batch, T positions, H query heads, K key-value heads, S keys, D head size


class Encode:
    """Causal attention over the cached prefix and the new positions, which it appends to the cache.

    Sequences are attended one by one at their exact lengths, so that no padding can touch a result. Inside a picture
    positions also see what follows, by a reading.
    """

    repeatable = False

    def __init__(
        self,
        cache: KVCache,
        lengths: list[int],
        images: Sequence[Sequence[Placed]] = (),
        reading: Reading = "google",
    ) -> None:
        """`images` are the pictures in each row, which see themselves by a reading; none in any where it is empty."""
        self.cache = cache
        self.lengths = lengths
        self.runs = [[image.run for image in placed] for placed in images] or [[] for _ in lengths]
        self.reading: Reading = reading

    def __call__(self, layer: int, heads: Heads) -> Float[Tensor, "B T H D"]:
        q_BTHD, k_BTKD, v_BTKD = heads
        if self.lengths == [q_BTHD.shape[1]]:
            return self._of(layer, 0, heads)
        out = torch.zeros_like(q_BTHD)
        for b, new in enumerate(self.lengths):
            if new:
                out[b, :new] = self._of(layer, b, Heads(*(x[b : b + 1, :new] for x in (q_BTHD, k_BTKD, v_BTKD))))[0]
        return out

    def _of(self, layer: int, b: int, heads: Heads) -> Float[Tensor, "1 T H D"]:
        sequence = self.cache.sequences[b]
        stored, window, new = sequence.layers[layer], sequence.windows[layer], self.lengths[b]
        before = None if window is None else window - 1
        new_keys, new_values = heads.k_BTKD[0].transpose(0, 1), heads.v_BTKD[0].transpose(0, 1)
        if before is None or stored.keeps(before + new):
            stored.append(new_keys, new_values)
            keys, values = stored.last(None if before is None else before + new)
        else:
            old_keys, old_values = stored.last(before)
            keys, values = torch.cat([old_keys, new_keys], dim=1), torch.cat([old_values, new_values], dim=1)
            stored.append(new_keys, new_values)
        if not self.runs[b]:
            return causal_attention(heads.q_BTHD, keys[None], values[None], window)
        mask = image_mask(new, keys.shape[1], window, self.runs[b], self.reading, keys.device)
        return attention(heads.q_BTHD, keys[None], values[None], mask[None])


class Denoise:
    """Every canvas position sees the cached prefix (its last window - 1 positions in sliding layers) and the
    whole canvas, which lies in free slots of the cache while a layer runs. The cache's own positions are only read."""

    repeatable = True

    def __init__(self, cache: KVCache) -> None:
        self.cache = cache

    def __call__(self, layer: int, heads: Heads) -> Float[Tensor, "B T H D"]:
        q_BTHD, k_BTKD, v_BTKD = heads
        rows = []
        for b, sequence in enumerate(self.cache.sequences):
            window = sequence.windows[layer]
            keys, values = sequence.layers[layer].with_canvas(
                k_BTKD[b].transpose(0, 1), v_BTKD[b].transpose(0, 1), None if window is None else window - 1
            )
            rows.append(attention(q_BTHD[b : b + 1], keys[None], values[None]))
        return rows[0] if len(rows) == 1 else torch.cat(rows)


class EncodeThenDenoise:
    """The causal mode over the next positions of one sequence, and canvases behind them, in one forward: the rows of
    the first stand before those of each canvas. What the canvases see is encoded in the same layer, so that every
    matrix is read once for both."""

    repeatable = False

    def __init__(self, sequence: SequenceCache, new: int, canvases: int) -> None:
        self.new, self.canvases = new, canvases
        self.cache = KVCache([sequence])
        self._encode = Encode(self.cache, [new])
        # A canvas lies behind the prefix only while it is attended to, one after the other.
        self._denoise = Denoise(KVCache([sequence] * canvases))

    def __call__(self, layer: int, heads: Heads) -> Float[Tensor, "1 T H D"]:
        encoded = self._encode(layer, Heads(*(x[:, : self.new] for x in heads)))
        behind = Heads(*(x[0, self.new :].unflatten(0, (self.canvases, -1)) for x in heads))
        return torch.cat([encoded, self._denoise(layer, behind).flatten(0, 1)[None]], dim=1)
