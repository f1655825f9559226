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

from redraft.kernels.int8 import integer_mm
from redraft.kernels.matrices.int8 import Int8Matrix, quantise_rows
from redraft.kernels.native.build import library
from redraft.kernels.native.call import KINDS, call, expect

BLOCK = 64
TILE_COLUMNS = {torch.float32: 2048, torch.bfloat16: 4096, torch.int8: 4096}
# Bounds the buffers of a tile; a canvas of the released checkpoint is one such pass.
MAX_ROWS = 512
# A sum in which this share is missing has every digit that float32 can hold.
MASS_BOUND = 2.0**-24
# Below this share of columns, gathering them costs less than multiplying them all.
_SPARSE = 0.4
_LEAST = -87.0
_DTYPES = {torch.float32: torch.float32, torch.bfloat16: torch.bfloat16, torch.int8: torch.uint8}

# N rows, V vocabulary, D hidden, C columns of a tile, J blocks


@dataclass(frozen=True, kw_only=True)
class TileResults:
    """What the pass yields of each row; see `HeadStats`."""

    argmax: Int[Tensor, "N"]
    sample: Int[Tensor, "N"]
    entropy: Float[Tensor, "N"]
    log_prob: Float[Tensor, "N"]
    soft: Float[Tensor, "N D"]
    dropped: Float[Tensor, "N"]


class _State:
    """The online softmax of all rows. `top` starts at -inf, which every logit exceeds."""

    def __init__(self, rows: int) -> None:
        self.top = torch.full((rows,), -torch.inf)
        self.mass, self.moment = torch.zeros(rows), torch.zeros(rows)
        self.argmax = torch.zeros(rows, dtype=torch.long)


@dataclass(frozen=True)
class _Tile:
    """A tile's share: what earlier sums are multiplied with, block sums, exp(logit - top), and their unit."""

    rescale: Float[Tensor, "N"]
    blocks: Float[Tensor, "N J"]
    weights: Tensor
    unit: Float[Tensor, "N"] | None = None


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
) -> TileResults:
    """The head for positive temperatures, on a CPU; `soft` is not scaled yet.

    Args:
        hidden_ND: rows in the embedding's dtype, or in any with an int8 embedding.
        embedding: of the vocabulary.
        cap: of the logits.
        temperature_N: of each row.
        uniform_N: one draw a row from [0, 1).
        mass_bound: share of a row's probability that may be left out of `soft`.
    """
    parts = [
        _pass(h, embedding, cap, t, u, mass_bound)
        for h, t, u in zip(
            hidden_ND.split(MAX_ROWS), temperature_N.split(MAX_ROWS), uniform_N.split(MAX_ROWS), strict=True
        )
    ]
    if len(parts) == 1:
        return parts[0]
    return TileResults(**{name: torch.cat([getattr(p, name) for p in parts]) for name in vars(parts[0])})


def _pass(
    hidden: Tensor, embedding: Tensor | Int8Matrix, cap: float, temperature: Tensor, uniform: Tensor, bound: float
) -> TileResults:
    product = _Product(hidden, embedding)
    N, V, columns = len(hidden), product.vocabulary, TILE_COLUMNS[product.dtype]
    state, tile_of = _State(N), _native_tile if library("head") is not None else _torch_tile
    inverse = temperature.float().reciprocal().contiguous()
    soft, dropped = torch.zeros(N, hidden.shape[1]), torch.zeros(N)
    blocks, tops = [], []
    for first in range(0, V, columns):
        last = min(V, first + columns)
        tile = tile_of(state, product, product.logits(first, last), first, cap, inverse)
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
        # Rounding may leave a sure row a hair below 0, and its sample's log-probability above.
        entropy=(log_mass - state.moment / state.mass).clamp_(min=0.0),
        log_prob=(logit - state.top - log_mass).clamp_(max=0.0),
        soft=soft.div_(state.mass[:, None]),
        dropped=dropped / state.mass,
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

    def block_logits(self, block: Int[Tensor, "N"]) -> Float[Tensor, "N J"]:
        """Float32 logits of one block of each row; columns beyond the vocabulary are -inf."""
        columns = block[:, None] * BLOCK + torch.arange(BLOCK)
        inside = columns < self.vocabulary
        columns = columns.clamp(max=self.vocabulary - 1)
        logits = self._native_block(block) if library("head") is not None else self._gathered_block(columns)
        if self.row_scale is not None and self.column_scale is not None:
            logits = logits * self.row_scale[:, None] * self.column_scale[columns]
        return logits.masked_fill_(~inside, -torch.inf)

    def _native_block(self, block: Int[Tensor, "N"]) -> Float[Tensor, "N J"]:
        hidden, out = self.hidden.contiguous(), torch.empty(len(block), BLOCK)
        expect("the embedding", self.weight, self.vocabulary, hidden.shape[1])
        expect("the blocks", block, len(hidden))
        call(
            "head", "head_block", hidden, self.weight, KINDS[self.dtype], *hidden.shape, self.vocabulary,
            block * BLOCK, BLOCK, out,
        )  # fmt: skip
        return out

    def _gathered_block(self, columns: Int[Tensor, "N J"]) -> Float[Tensor, "N J"]:
        rows = []
        for part, hidden in zip(columns.split(32), self.hidden.split(32), strict=True):
            weight = F.embedding(part, self.weight)
            if self.dtype == torch.int8:
                weight, hidden = weight.float(), hidden.float()
            rows.append(torch.bmm(weight, hidden[:, :, None])[:, :, 0].float())
        return torch.cat(rows)

    def add_soft(self, soft: Tensor, dropped: Tensor, tile: _Tile, first: int, last: int, least: Tensor) -> None:
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

    def _may_drop(self, tile: _Tile, least: Tensor) -> bool:
        """Whether enough blocks are so light as a whole that looking at single columns can pay."""
        heavy = (tile.blocks > least[:, None]).any(0)
        return bool(heavy.float().mean() < _SPARSE)


def _native_tile(state: _State, product: _Product, logits: Tensor, first: int, cap: float, inverse: Tensor) -> _Tile:
    N, C = logits.shape
    rescale, blocks = torch.empty(N), torch.empty(N, -(-C // BLOCK))
    # float32 probabilities take the place of their logits.
    weights = logits if product.dtype == torch.float32 else torch.empty(N, C, dtype=_DTYPES[product.dtype])
    unit, scale = None, None
    if product.column_scale is not None:
        unit, scale = torch.empty(N), product.column_scale[first : first + C]
    expect("a tile's scale", scale, C)
    expect("the rows' scale", product.row_scale, N)
    call(
        "head", "head_tile", logits, KINDS[product.dtype], N, C, first, cap, product.row_scale, scale, inverse,
        state.top, state.mass, state.moment, state.argmax, rescale, blocks, BLOCK, weights, unit,
    )  # fmt: skip
    return _Tile(rescale, blocks, weights, unit)


def _torch_tile(state: _State, product: _Product, logits: Tensor, first: int, cap: float, inverse: Tensor) -> _Tile:
    """The same arithmetic in torch operations; runs where there is no compiler."""
    scaled = logits.float()
    if product.row_scale is not None and product.column_scale is not None:
        scaled = scaled * product.row_scale[:, None] * product.column_scale[first : first + logits.shape[1]]
    scaled = scaled.div_(cap).tanh_().mul_((cap * inverse)[:, None])
    largest, index = scaled.max(-1)
    above = largest > state.top
    step = torch.where(above, state.top - largest, 0.0)
    rescale = torch.where(step < _LEAST, 0.0, step.exp())
    state.argmax = torch.where(above, index + first, state.argmax)
    state.top = torch.where(above, largest, state.top)
    carried = torch.where(state.mass == 0, 0.0, state.moment + step * state.mass)
    state.moment, state.mass = carried * rescale, state.mass * rescale
    below = scaled.sub_(state.top[:, None])
    weights = below.exp().masked_fill_(below < _LEAST, 0.0)
    below.clamp_(min=_LEAST)
    state.moment = state.moment + (weights * below).sum(-1)
    padded = F.pad(weights, (0, -weights.shape[1] % BLOCK))
    blocks = padded.view(len(weights), -1, BLOCK).sum(-1)
    state.mass = state.mass + blocks.sum(-1)
    if product.column_scale is None:
        return _Tile(rescale, blocks, weights.to(product.dtype))
    weights = weights * product.column_scale[first : first + logits.shape[1]]
    most = weights.amax(-1)
    factor = torch.where(most > 0, 255 / most, 0.0)
    return _Tile(rescale, blocks, (weights * factor[:, None] + 0.5).to(torch.uint8), most / 255)


def _draw(
    product: _Product,
    blocks: Sequence[Tensor],
    tops: Sequence[Tensor],
    state: _State,
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
    block = _first_above(cumulative, threshold)
    before = (cumulative - mass).gather(1, block[:, None])[:, 0]
    scaled = torch.tanh(product.block_logits(block) / cap).mul_((cap * inverse)[:, None])
    scaled = scaled.masked_fill_(block[:, None] * BLOCK + torch.arange(BLOCK) >= product.vocabulary, -torch.inf)
    inner = (scaled - state.top[:, None]).double().exp().cumsum(-1)
    token = _first_above(inner, threshold - before)
    # Where a row is not finite, the search means nothing, but an id it must be.
    ids = (block * BLOCK + token).clamp_(max=product.vocabulary - 1)
    return ids, scaled.gather(1, token[:, None])[:, 0]


def _first_above(cumulative: Float[Tensor, "N J"], threshold: Float[Tensor, "N"]) -> Int[Tensor, "N"]:
    """The first entry above the threshold; where rounding leaves none, the last one that adds anything."""
    threshold = torch.minimum(threshold, cumulative[:, -1] * (1 - 1e-12))
    found = torch.searchsorted(cumulative, threshold[:, None].contiguous(), right=True)[:, 0]
    return found.clamp(max=cumulative.shape[1] - 1)
