"""The head's fast form for CPUs: one pass over tiles of the vocabulary, all rows at a time.

Each tile's logits meet an online softmax while they are in cache: largest logit, mass and entropy moment of a row are
carried from tile to tile and rescaled when a larger logit comes, as flash attention does with keys = values =
embedding. Sums over short blocks are kept, so that a row's draw finds its block afterwards, and only that block's
logits are made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from redraft.core.automaton import Parts
from redraft.kernels.class_scores import ClassScores, first_above
from redraft.kernels.int8 import integer_mm
from redraft.kernels.matrices.int8 import Int8Matrix, quantise_rows
from redraft.kernels.native.build import library
from redraft.kernels.native.call import KINDS, call, expect
from redraft.kernels.tile_softmax import BLOCK, State, Tile, native_tile, torch_tile
from redraft.kernels.watched import ScaledColumns, Watch

TILE_COLUMNS = {torch.float32: 2048, torch.bfloat16: 4096, torch.int8: 4096}
# Bounds the buffers of a tile; a canvas of the released checkpoint is one such pass.
MAX_ROWS = 512
# A sum in which this share is missing has every digit that float32 can hold.
MASS_BOUND = 2.0**-24
# Below this share of columns, gathering them costs less than multiplying them all.
_SPARSE = 0.4

# N rows, V vocabulary, D hidden, C columns of a tile, J blocks


@dataclass(frozen=True, kw_only=True)
class TileResults:
    """What the pass yields of each row; see `HeadStats`. `classes` only where an automaton's parts were given."""

    argmax: Int[Tensor, "N"]
    sample: Int[Tensor, "N"]
    entropy: Float[Tensor, "N"]
    log_prob: Float[Tensor, "N"]
    best_log_prob: Float[Tensor, "N"]
    soft: Float[Tensor, "N D"]
    dropped: Float[Tensor, "N"]
    classes: ClassScores | None = None


def runs_by_tiles(embedding: Float[Tensor, "V D"] | Int8Matrix) -> bool:
    """Whether an embedding of this kind can be walked by tiles."""
    return isinstance(embedding, Int8Matrix) or embedding.dtype in TILE_COLUMNS


def head_tiles(
    hidden_ND: Float[Tensor, "N D"],
    embedding: Float[Tensor, "V D"] | Int8Matrix,
    *,
    cap: float,
    temperature_N: Float[Tensor, "N"],
    uniform_N: Float[Tensor, "N"],
    mass_bound: float = MASS_BOUND,
    parts: Parts | None = None,
) -> TileResults:
    """The head for positive temperatures, on a CPU; `soft` is not scaled yet.

    Args:
        hidden_ND: rows in the embedding's dtype, or in any with an int8 embedding.
        embedding: of the vocabulary.
        cap: of the logits.
        temperature_N: of each row.
        uniform_N: one draw a row from [0, 1).
        mass_bound: share of a row's probability that may be left out of `soft`.
        parts: of an automaton under which these rows are one canvas, for `classes`.
    """
    if parts is not None:
        return _pass(hidden_ND, embedding, cap, temperature_N, uniform_N, mass_bound, parts)
    passes = [
        _pass(h, embedding, cap, t, u, mass_bound)
        for h, t, u in zip(
            hidden_ND.split(MAX_ROWS), temperature_N.split(MAX_ROWS), uniform_N.split(MAX_ROWS), strict=True
        )
    ]
    if len(passes) == 1:
        return passes[0]
    return TileResults(
        argmax=torch.cat([p.argmax for p in passes]),
        sample=torch.cat([p.sample for p in passes]),
        entropy=torch.cat([p.entropy for p in passes]),
        log_prob=torch.cat([p.log_prob for p in passes]),
        best_log_prob=torch.cat([p.best_log_prob for p in passes]),
        soft=torch.cat([p.soft for p in passes]),
        dropped=torch.cat([p.dropped for p in passes]),
    )


def _pass(
    hidden: Tensor,
    embedding: Tensor | Int8Matrix,
    cap: float,
    temperature: Tensor,
    uniform: Tensor,
    bound: float,
    parts: Parts | None = None,
) -> TileResults:
    product = _Product(hidden, embedding)
    N, V, columns = len(hidden), product.vocabulary, TILE_COLUMNS[product.dtype]
    state, tile_of = State(N), native_tile if library("head") is not None else torch_tile
    inverse = temperature.float().reciprocal().contiguous()
    watch = None if parts is None else Watch(parts, N, V, columns, hidden.device)
    soft, dropped = torch.zeros(N, hidden.shape[1]), torch.zeros(N)
    blocks, tops = [], []
    for first in range(0, V, columns):
        last = min(V, first + columns)
        tile = tile_of(state, product, product.logits(first, last), first, cap, inverse, watch)
        if first and bool((tile.rescale != 1).any()):
            soft.mul_(tile.rescale[:, None])
            dropped.mul_(tile.rescale)
        product.add_soft(soft, dropped, tile, first, last, state.mass * (bound / V))
        blocks.append(tile.blocks)
        tops.append(state.top.clone())
    log_mass = state.mass.log()
    sample, logit = _draw(product, blocks, tops, state, uniform, cap, inverse)
    return TileResults(
        argmax=state.argmax,
        sample=sample,
        # Rounding may leave a sure row a hair below 0, and its log-probabilities above.
        entropy=(log_mass - state.moment / state.mass).clamp_(min=0.0),
        log_prob=(logit - state.top - log_mass).clamp_(max=0.0),
        best_log_prob=(-log_mass).clamp_(max=0.0),
        soft=soft.div_(state.mass[:, None]),
        dropped=dropped / state.mass,
        classes=None if watch is None else watch.result(product.scaled_by(cap, inverse)),
    )


class _Product:
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
        """Adds weights @ embedding, over the columns in which some row has more than `least`."""
        weights, embedding = tile.weights, self.weight[first:last]
        if tile.unit is not None:
            soft.addcmul_(integer_mm(weights, embedding).float(), tile.unit[:, None])
            return
        columns = (weights > least[:, None]).any(0).nonzero()[:, 0] if self._may_drop(tile, least) else None
        if columns is not None and len(columns) < _SPARSE * (last - first):
            kept = weights[:, columns]
            dropped.add_((weights.float().sum(-1) - kept.float().sum(-1)).clamp_(min=0.0))
            weights, embedding = kept, embedding[columns]
        if weights.shape[1] == 0:
            return
        if self.dtype == torch.float32:
            soft.addmm_(weights, embedding)
        else:
            soft.add_(weights @ embedding)

    def _may_drop(self, tile: Tile, least: Tensor) -> bool:
        """Whether enough blocks are so light as a whole that looking at single columns can pay."""
        heavy = (tile.blocks > least[:, None]).any(0)
        return bool(heavy.float().mean() < _SPARSE)


def _draw(
    product: _Product,
    blocks: Sequence[Tensor],
    tops: Sequence[Tensor],
    state: State,
    uniform: Tensor,
    cap: float,
    inverse: Tensor,
) -> tuple[Int[Tensor, "N"], Float[Tensor, "N"]]:
    """(token, its scaled logit): inverse CDF over the blocks, then inside one block. Sums run in float64."""
    shifted = [
        mass.double() * (top - state.top).double().exp()[:, None] for mass, top in zip(blocks, tops, strict=True)
    ]
    mass = torch.cat(shifted, dim=1)
    cumulative = mass.cumsum(-1)
    threshold = uniform.double() * cumulative[:, -1]
    block = first_above(cumulative, threshold)
    before = (cumulative - mass).gather(1, block[:, None])[:, 0]
    columns = block[:, None] * BLOCK + torch.arange(BLOCK)
    # tanh would make the cap's opposite of what lies beyond the vocabulary.
    scaled = product.scaled_by(cap, inverse)(torch.arange(len(block)), columns)
    scaled = scaled.masked_fill_(columns >= product.vocabulary, -torch.inf)
    inner = (scaled - state.top[:, None]).double().exp().cumsum(-1)
    token = first_above(inner, threshold - before)
    # Where a row is not finite, the search means nothing, but an id it must be.
    ids = (block * BLOCK + token).clamp_(max=product.vocabulary - 1)
    return ids, scaled.gather(1, token[:, None])[:, 0]
