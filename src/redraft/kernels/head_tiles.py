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
from jaxtyping import Float, Int
from torch import Tensor

from redraft.core.automaton import Parts
from redraft.kernels.class_scores import ClassScores, first_above
from redraft.kernels.head_product import TILE_COLUMNS, Product
from redraft.kernels.matrices.int8 import Int8Matrix
from redraft.kernels.native.build import library
from redraft.kernels.tile_softmax import BLOCK, State, Tile, native_tile, torch_tile
from redraft.kernels.watched import Watch

# Bounds the buffers of a tile; a canvas of the released checkpoint is one such pass.
MAX_ROWS = 512
# A sum in which this share is missing has every digit that float32 can hold.
MASS_BOUND = 2.0**-24
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
    product = Product(hidden, embedding)
    N, V, columns = len(hidden), product.vocabulary, TILE_COLUMNS[product.dtype]
    state, tile_of = State(N), native_tile if library("head") is not None else torch_tile
    inverse = temperature.float().reciprocal().contiguous()
    watch = None if parts is None else Watch(parts, N, V, columns, hidden.device)
    soft, dropped = torch.zeros(N, hidden.shape[1]), torch.zeros(N)
    tiles: list[Tile] = []
    blocks, tops = [], []
    for first in range(0, V, columns):
        last = min(V, first + columns)
        tile = tile_of(state, product, product.logits(first, last), first, cap, inverse, watch)
        if product.dtype != torch.float32:
            # What of it counts is seen once the largest logits are known.
            tiles.append(tile)
        else:
            if first and bool((tile.rescale != 1).any()):
                soft.mul_(tile.rescale[:, None])
                dropped.mul_(tile.rescale)
            product.add_soft(soft, dropped, tile, first, last, state.mass * (bound / V))
        blocks.append(tile.blocks)
        tops.append(state.top.clone())
    for number, tile in enumerate(tiles):
        factor = (tops[number] - state.top).exp_()
        product.add_late(soft, dropped, tile, number * columns, factor, state.mass, bound)
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


def _draw(
    product: Product,
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
