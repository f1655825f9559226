"""A canvas of which only some positions are computed: the others are seen as they were when they were computed last.

That is an approximation: their keys and values would follow what changes around them.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from redraft.core.errors import OptionError
from redraft.kernels.attention import attention
from redraft.model.attention import Heads
from redraft.model.cache import KVCache, SequenceCache
from redraft.model.gemma4 import NO_CANVAS
from redraft.model.model import DiffusionGemma

# A positions that are computed, H query heads, K key-value heads, D head size


class CanvasKeys:
    """Keys and values of a canvas in every layer, from one step to the next."""

    def __init__(self) -> None:
        self.layers: list[tuple[Tensor, Tensor]] = []

    def put(self, layer: int, keys: Float[Tensor, "K A D"], values: Float[Tensor, "K A D"], places: Tensor) -> None:
        """Takes those of some positions; the first time, of all."""
        if layer == len(self.layers):
            self.layers.append((keys.clone(), values.clone()))
        for held, new in zip(self.layers[layer], (keys, values), strict=True):
            held[:, places] = new

    def cut(self, length: int) -> None:
        """Drops the positions from `length` on."""
        self.layers = [(keys[:, :length], values[:, :length]) for keys, values in self.layers]


class DenoiseSome:
    """As `Denoise`, of one canvas of which only some positions are computed. They see the others as these were when
    they were computed last."""

    repeatable = True

    def __init__(self, sequence: SequenceCache, kept: CanvasKeys, places: Int[Tensor, "A"]) -> None:
        self.sequence, self.kept, self.places = sequence, kept, places
        self.cache = KVCache([sequence])

    def __call__(self, layer: int, heads: Heads) -> Float[Tensor, "1 A H D"]:
        q_BAHD, k_BAKD, v_BAKD = heads
        window = self.sequence.windows[layer]
        self.kept.put(layer, k_BAKD[0].transpose(0, 1), v_BAKD[0].transpose(0, 1), self.places)
        keys, values = self.sequence.layers[layer].with_canvas(
            *self.kept.layers[layer], None if window is None else window - 1
        )
        return attention(q_BAHD, keys[None], values[None])


@torch.no_grad()
def denoise_some(
    model: DiffusionGemma,
    token_ids: Int[Tensor, "A"],
    places: Int[Tensor, "A"],
    sequence: SequenceCache,
    kept: CanvasKeys,
    self_conditioning: Float[Tensor, "A D"] | None = None,
) -> Float[Tensor, "A D"]:
    """Hidden states of some positions of a canvas after the final norm. The model's modules run it, whatever runner
    there is.

    Args:
        model: the model.
        token_ids, places: of these positions; the first time, of the whole canvas.
        sequence: what is encoded before it.
        kept: keys and values of the canvas, which this changes.
        self_conditioning: as `denoise_hidden` takes it.

    Raises:
        OptionError: the checkpoint has no canvas mode.
    """
    if not model.config.has_canvas:
        raise OptionError(NO_CANVAS)
    backbone, soft = model.backbone, None if self_conditioning is None else self_conditioning[None]
    embedded = backbone.self_conditioning.condition(backbone.embed(token_ids[None]), soft)
    attend = DenoiseSome(sequence, kept, places)
    return backbone(embedded, (places + sequence.length)[None], attend, causal=False)[0]
