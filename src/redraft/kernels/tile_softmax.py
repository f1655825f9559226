"""A tile of the head's pass over the vocabulary: the online softmax of all rows, in C++ and in torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from redraft.kernels.native.call import KINDS, call, expect
from redraft.kernels.watched import Watch

# Columns whose sum is kept.
BLOCK = 64
_LEAST = -87.0
_DTYPES = {torch.float32: torch.float32, torch.bfloat16: torch.bfloat16, torch.int8: torch.uint8}

# N rows, C columns of a tile, J blocks


class Product(Protocol):
    """What made a tile's logits: their dtype, and what integers are multiplied with."""

    dtype: torch.dtype
    row_scale: Float[Tensor, "N"] | None
    column_scale: Float[Tensor, "V"] | None


class State:
    """The online softmax of all rows. `top` starts at -inf, which every logit exceeds."""

    def __init__(self, rows: int) -> None:
        self.top = torch.full((rows,), -torch.inf)
        self.mass, self.moment = torch.zeros(rows), torch.zeros(rows)
        self.argmax = torch.zeros(rows, dtype=torch.long)


@dataclass(frozen=True)
class Tile:
    """A tile's share: what earlier sums are multiplied with, block sums, exp(logit - top), and their unit."""

    rescale: Float[Tensor, "N"]
    blocks: Float[Tensor, "N J"]
    weights: Tensor
    unit: Float[Tensor, "N"] | None = None


def native_tile(
    state: State,
    product: Product,
    logits: Tensor,
    first: int,
    cap: float,
    inverse: Tensor,
    watch: Watch | None,
) -> Tile:
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
        "head", "head_tile" if watch is None else "head_tile_watched", logits, KINDS[product.dtype], N, C, first, cap,
        product.row_scale, scale, inverse, state.top, state.mass, state.moment, state.argmax, rescale, blocks, BLOCK,
        weights, unit, *(() if watch is None else watch.native_arguments(first)),
    )  # fmt: skip
    return Tile(rescale, blocks, weights, unit)


def torch_tile(
    state: State,
    product: Product,
    logits: Tensor,
    first: int,
    cap: float,
    inverse: Tensor,
    watch: Watch | None,
) -> Tile:
    """The same arithmetic in torch operations; runs where there is no compiler."""
    scaled = logits.float()
    if product.row_scale is not None and product.column_scale is not None:
        scaled = scaled * product.row_scale[:, None] * product.column_scale[first : first + logits.shape[1]]
    scaled = scaled.div_(cap).tanh_().mul_((cap * inverse)[:, None])
    if watch is not None:
        watch.see(scaled, first)
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
        return Tile(rescale, blocks, weights.to(product.dtype))
    weights = weights * product.column_scale[first : first + logits.shape[1]]
    most = weights.amax(-1)
    factor = torch.where(most > 0, 255 / most, 0.0)
    return Tile(rescale, blocks, (weights * factor[:, None] + 0.5).to(torch.uint8), most / 255)
