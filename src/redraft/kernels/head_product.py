"""The products of the head with tiles of the vocabulary: a tile's logits, and probabilities times embeddings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from redraft.kernels.integers import integer_mm
from redraft.kernels.matrices.int8 import Int8Matrix, quantise_rows
from redraft.kernels.native.build import library
from redraft.kernels.native.call import KINDS, call, expect
from redraft.kernels.tile_softmax import Tile
from redraft.kernels.watched import ScaledColumns

TILE_COLUMNS = {torch.float32: 2048, torch.bfloat16: 4096, torch.int8: 4096}
# Where probabilities are rounded to bytes, each beside the largest of its row in a tile: tiles that all together hold
# less of a row are left out of its sum.
_LIGHT = 2.0**-12
# Below this share of columns, gathering them costs less than multiplying them all.
_SPARSE = 0.4

# N rows, V vocabulary, D hidden, C columns of a tile, J blocks


class Product:
    """The two products with a tile of the embedding, in the dtype that its weights are held in."""

    def __init__(self, hidden: Tensor, embedding: Tensor | Int8Matrix) -> None:
        if isinstance(embedding, Int8Matrix):
            self.hidden, self.row_scale = quantise_rows(hidden)
            self.weight, self.column_scale = embedding.data, embedding.scale
        else:
            self.hidden, self.row_scale = hidden.to(embedding.dtype), None
            self.weight, self.column_scale = embedding, None
        self.dtype = self.weight.dtype
        self.vocabulary = len(self.weight)
        # One buffer for the logits of all tiles: a fresh one for each costs a page fault every 4 KB.
        kind = torch.int32 if self.dtype == torch.int8 else self.dtype
        self.buffer = torch.empty(len(hidden) * min(TILE_COLUMNS[self.dtype], self.vocabulary), dtype=kind)

    def logits(self, first: int, last: int) -> Tensor:
        """Raw logits of a tile: float32, bfloat16, or int32 still to be scaled."""
        tile = self.weight[first:last].T
        out = self.buffer[: len(self.hidden) * (last - first)].view(len(self.hidden), last - first)
        if self.dtype == torch.int8:
            return integer_mm(self.hidden, tile, out=out)
        return torch.mm(self.hidden, tile, out=out)

    def scaled_by(self, cap: float, inverse: Tensor) -> ScaledColumns:
        """Scaled logits of runs of columns of some rows."""

        def of(rows: Int[Tensor, "P"], columns: Int[Tensor, "P J"]) -> Float[Tensor, "P J"]:
            return torch.tanh(self.column_logits(rows, columns) / cap).mul_((cap * inverse[rows])[:, None])

        return of

    def column_logits(self, rows: Int[Tensor, "P"], columns: Int[Tensor, "P J"]) -> Float[Tensor, "P J"]:
        """Float32 logits of one run of columns of each of these rows; those beyond the vocabulary are -inf."""
        inside, hidden = columns < self.vocabulary, self.hidden[rows].contiguous()
        native = library("head") is not None
        logits = self._native_run(hidden, columns) if native else self._gathered(hidden, columns)
        if self.row_scale is not None and self.column_scale is not None:
            scale = self.column_scale[columns.clamp(max=self.vocabulary - 1)]
            logits = logits * self.row_scale[rows, None] * scale
        return logits.masked_fill_(~inside, -torch.inf)

    def _native_run(self, hidden: Tensor, columns: Int[Tensor, "P J"]) -> Float[Tensor, "P J"]:
        out = torch.empty(columns.shape)
        expect("the embedding", self.weight, self.vocabulary, hidden.shape[1])
        call(
            "head", "head_block", hidden, self.weight, KINDS[self.dtype], *hidden.shape, self.vocabulary,
            columns[:, 0].contiguous(), columns.shape[1], out,
        )  # fmt: skip
        return out

    def _gathered(self, hidden: Tensor, columns: Int[Tensor, "P J"]) -> Float[Tensor, "P J"]:
        found = []
        for part, of_row in zip(columns.clamp(max=self.vocabulary - 1).split(32), hidden.split(32), strict=True):
            weight = F.embedding(part, self.weight)
            if self.dtype == torch.int8:
                weight, of_row = weight.float(), of_row.float()
            found.append(torch.bmm(weight, of_row[:, :, None])[:, :, 0].float())
        return torch.cat(found)

    def add_soft(self, soft: Tensor, dropped: Tensor, tile: Tile, first: int, last: int, least: Tensor) -> None:
        """Adds weights @ embedding in float32, over the columns in which some row has more than `least`."""
        weights, embedding = tile.weights, self.weight[first:last]
        columns = (weights > least[:, None]).any(0).nonzero()[:, 0] if self._may_drop(tile, least) else None
        if columns is not None and len(columns) < _SPARSE * (last - first):
            kept = weights[:, columns]
            dropped.add_((weights.float().sum(-1) - kept.float().sum(-1)).clamp_(min=0.0))
            weights, embedding = kept, embedding[columns]
        if weights.shape[1] == 0:
            return
        soft.addmm_(weights, embedding)

    def add_late(
        self, soft: Tensor, dropped: Tensor, tile: Tile, first: int, factor: Tensor, mass: Tensor, bound: float
    ) -> None:
        """The same once each row's largest logit is known: of few columns, where a model has made up its mind.

        Args:
            soft, dropped: what is added to.
            tile: of the columns from `first` on, in bfloat16 or bytes.
            first: of these.
            factor: what the tile's sums are multiplied with, by now.
            mass: the sum of each row.
            bound: share of it that may be left out.
        """
        weights, embedding = tile.weights, self.weight[first : first + tile.weights.shape[1]]
        here, share = tile.blocks.sum(1), mass / self.vocabulary / factor
        if tile.unit is None:
            kept = _columns_above(weights, (bound * share).to(weights.dtype))
        else:
            light = here <= share * (_LIGHT * len(embedding))
            if light.any():
                weights = weights.masked_fill(light[:, None], 0)
                dropped.add_(torch.where(light, here * factor, 0.0))
            kept = weights.any(0)
        columns = None if kept is None else kept.nonzero()[:, 0]
        if columns is not None and len(columns) < _SPARSE * len(embedding):
            weights, embedding = weights[:, columns], embedding[columns]
            if tile.unit is None:
                all_of, some = (w.sum(-1, dtype=torch.float32) for w in (tile.weights, weights))
                dropped.add_((all_of - some).clamp_(min=0.0) * factor)
        if tile.unit is None:
            soft.addcmul_((weights @ embedding).float(), factor[:, None])
        else:
            product = integer_mm(weights, embedding).float() if weights.shape[1] else torch.zeros_like(soft)
            soft.addcmul_(product, (tile.unit * factor)[:, None])

    def _may_drop(self, tile: Tile, least: Tensor) -> bool:
        """Whether enough blocks are so light as a whole that looking at single columns can pay."""
        heavy = (tile.blocks > least[:, None]).any(0)
        return bool(heavy.float().mean() < _SPARSE)


def _columns_above(weights: Float[Tensor, "N C"], least: Float[Tensor, "N"]) -> Bool[Tensor, "C"] | None:
    """Columns in which some row has more than its least; None where a few rows alone say that most have."""

    def above(rows: slice) -> Tensor:
        # Not: greater. What is no number stays in its row.
        return (weights[rows] <= least[rows, None]).logical_not_().any(0)

    if above(slice(None, None, 32)).float().mean() >= _SPARSE:
        return None
    return above(slice(None))
