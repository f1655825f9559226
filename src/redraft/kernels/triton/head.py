"""The head on a GPU: one product with the vocabulary, whose tiles leave their share of a softmax behind.

Raw logits stay in scratch memory, rounded as a matrix product rounds them, so that
statistics, draw and soft embedding see the same numbers. These passes follow each other:

- `logits_kernel`: logits of a tile, and its largest logit, mass, entropy moment and argmax, for each row;
- `finish_kernel`: a row's results out of its tiles' sums; the draw finds its tile by inverse CDF, then its token;
- `select_kernel`: lists of a row's likely tokens, where they are few and hold all of its mass but a bound;
- `weights_kernel`: logits of the other rows become probabilities;
- `soft_kernel` and `sum_kernel`: probabilities x embedding, split over the vocabulary, summed in a fixed order; or the
  rows of the embedding that a list names. A canvas that is nearly done has lists only: the product is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from redraft.kernels.head_stats import MAX_ROWS, HeadStats
from redraft.kernels.matrices.int8 import Int8Matrix
from redraft.kernels.triton.dense import rounded_rows
from redraft.kernels.triton.head_kernels import (
    finish_kernel,
    logits_kernel,
    select_kernel,
    soft_kernel,
    sum_kernel,
    weights_kernel,
)
from redraft.kernels.triton.target import compute_dtype, launch, power_of_two, shared_bytes, stored_dtype, tiles

# Probability that a soft embedding of 16 bits may lack: less than what rounding it loses. One of 32 bits: as on a CPU.
MASS_BOUND, SMALL_BOUND = 2.0**-11, 2.0**-24
# Columns of the elementwise passes.
WEIGHTS_BLOCK, SUM_BLOCK = 4096, 1024

# N rows, V vocabulary, D hidden, J tiles of the vocabulary, P parts of it


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """Tiles of the two products.

    Attributes:
        rows: positions of a tile.
        columns: tokens of a tile of logits; also what a draw searches at the end.
        depth: of a product's step.
        width: columns of a tile of the soft embedding.
        warps, stages: of both.
        soft_stages: of the soft embedding's product.
        parts: of the vocabulary in the soft embedding, one program each.
        lists: of a row's likely tokens, one for each part of the vocabulary; a power of 2.
        places: of a list; with `lists` a multiple of 16.
        together: tiles of logits that are passed over at once; a power of 2.
        bound: probability that may be missing in a soft embedding; None: by its dtype.
    """

    rows: int = 128
    columns: int = 128
    depth: int = 64
    width: int = 128
    warps: int = 8
    stages: int = 3
    soft_stages: int = 3
    parts: int = 6
    lists: int = 8
    places: int = 32
    together: int = 16
    bound: float | None = None


@dataclass(frozen=True, kw_only=True)
class _Lists:
    """Likely tokens of each row, with their probabilities (times the scale of an int8 embedding's row), how many there
    would be, and their mass."""

    tokens: Int[Tensor, "N C K"]
    shares: Float[Tensor, "N C K"]
    counts: Int[Tensor, "N C"]
    kept: Float[Tensor, "N C"]
    bound: float

    @classmethod
    def empty(cls, rows: int, config: HeadConfig, dtype: torch.dtype, device: torch.device) -> _Lists:
        bound = config.bound or (MASS_BOUND if dtype.itemsize == 2 else SMALL_BOUND)
        shape = (rows, config.lists, config.places)
        return cls(
            tokens=torch.empty(shape, dtype=torch.int32, device=device),
            shares=torch.empty(shape, dtype=torch.float32, device=device),
            counts=torch.empty(shape[:2], dtype=torch.int32, device=device),
            kept=torch.empty(shape[:2], dtype=torch.float32, device=device),
            bound=bound,
        )

    @property
    def pointers(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.tokens, self.shares, self.counts, self.kept

    @property
    def constants(self) -> dict[str, float]:
        return {"LISTS": self.tokens.shape[1], "PLACES": self.tokens.shape[2], "BOUND": self.bound}


def head_config(rows: int, shared: int, itemsize: int = 2) -> HeadConfig:
    """Tiles for so many rows, so much shared memory, and operands of so many bytes."""
    height = min(128, max(16, power_of_two(rows)))
    if itemsize == 4:
        # Sums and operands of 32 bits: smaller tiles, or registers spill.
        return HeadConfig(rows=min(64, height), depth=32, width=64, stages=2, soft_stages=2)
    if shared < 96 * 2**10:
        return HeadConfig(rows=height, depth=32, stages=2, soft_stages=2)
    # Twice as wide where it fits: probabilities are read half as often.
    return HeadConfig(rows=height, width=256) if shared >= 160 * 2**10 else HeadConfig(rows=height)


def head_triton(
    hidden_ND: Float[Tensor, "N D"],
    embedding: Float[Tensor, "V D"] | Int8Matrix,
    *,
    cap: float,
    embed_scale: Float[Tensor, ""],
    temperature_N: Float[Tensor, "N"],
    uniform_N: Float[Tensor, "N"],
    config: HeadConfig | None = None,
) -> HeadStats:
    """`redraft.kernels.head.head`, on a GPU. An int8 embedding is multiplied with rows that are rounded as well."""
    itemsize = 1 if isinstance(embedding, Int8Matrix) else embedding.dtype.itemsize
    shared = shared_bytes(hidden_ND.device, hidden_ND.dtype)
    chosen = config or head_config(len(hidden_ND), shared, itemsize)
    temperature, uniform = temperature_N.float().contiguous(), uniform_N.float().contiguous()
    parts = [
        _pass(h, embedding, cap, embed_scale, t, u, chosen)
        for h, t, u in zip(hidden_ND.split(MAX_ROWS), temperature.split(MAX_ROWS), uniform.split(MAX_ROWS), strict=True)
    ]
    if len(parts) == 1:
        return parts[0]
    return HeadStats.joined(parts)


def _pass(
    hidden: Tensor,
    embedding: Tensor | Int8Matrix,
    cap: float,
    embed_scale: Tensor,
    temperature: Tensor,
    uniform: Tensor,
    config: HeadConfig,
) -> HeadStats:
    (N, D), device = hidden.shape, hidden.device
    integer = isinstance(embedding, Int8Matrix)
    if integer:
        weight, column_scale = embedding.data.contiguous(), embedding.scale.float().contiguous()
        operand, row_scale = rounded_rows(hidden, torch.int8)
    else:
        weight, column_scale, row_scale = embedding.contiguous(), temperature, temperature
        operand = hidden.to(weight.dtype).contiguous()
    V = len(weight)
    J = tiles(V, config.columns)
    # int8 products are exact: of what 16 bits can keep of them, float16 keeps most. Above its range a logit is the cap.
    # Wide activations keep all: near ties, what a CPU draws is drawn here too.
    kept = torch.float16 if hidden.dtype.itemsize == 2 else torch.float32
    logits = hidden.new_empty(N, V, dtype=stored_dtype(kept if integer else weight.dtype))
    tops, masses, moments = (hidden.new_empty(N, J, dtype=torch.float32) for _ in range(3))
    bests = torch.empty(N, J, dtype=torch.int32, device=device)
    launch(
        logits_kernel, (J * tiles(N, config.rows),),
        operand, weight, row_scale, column_scale, temperature, logits, tops, masses, moments, bests, N, V, D, J, cap,
        ROWS=config.rows, COLUMNS=config.columns, DEPTH=config.depth, INTEGER=integer,
        COMPUTE=tl.int8 if integer else compute_dtype(weight.dtype), EVEN=D % config.depth == 0,
        num_warps=config.warps, num_stages=config.stages,
    )  # fmt: skip

    argmax, sample = (torch.empty(N, dtype=torch.long, device=device) for _ in range(2))
    entropy, log_prob, best_log_prob, top, mass = (hidden.new_empty(N, dtype=torch.float32) for _ in range(5))
    launch(
        finish_kernel, (N,),
        logits, temperature, uniform, tops, masses, moments, bests, argmax, sample, entropy, log_prob,
        best_log_prob, top, mass, V, J, cap, COLUMNS=config.columns, TILES=power_of_two(J),
    )  # fmt: skip

    lists = _Lists.empty(N, config, hidden.dtype, device)
    launch(
        select_kernel, (N, config.lists),
        logits, temperature, column_scale, tops, top, mass, *lists.pointers, V, J, cap,
        COLUMNS=config.columns, TILES=config.together, PLACES=config.places, INTEGER=integer,
    )  # fmt: skip

    # Probabilities take the place of their logits.
    floating = stored_dtype(hidden.dtype if integer else weight.dtype)
    fits = logits.dtype.itemsize == floating.itemsize
    weights = logits.view(floating) if fits else torch.empty_like(logits, dtype=floating)
    launch(
        weights_kernel, (N, tiles(V, WEIGHTS_BLOCK)),
        logits, temperature, column_scale, top, mass, lists.counts, lists.kept, weights, V, cap,
        BLOCK=WEIGHTS_BLOCK, INTEGER=integer, **lists.constants,
    )  # fmt: skip
    soft, dropped = _soft(
        weights, weight, column_scale, temperature, argmax, lists, embed_scale, hidden.dtype, config
    )  # fmt: skip
    return HeadStats(
        argmax=argmax,
        sample=sample,
        entropy=entropy,
        log_prob=log_prob,
        best_log_prob=best_log_prob,
        soft_embedding=soft,
        dropped_mass=dropped,
    )


def _soft(
    weights: Tensor,
    embedding: Tensor,
    column_scale: Tensor,
    temperature: Tensor,
    argmax: Tensor,
    lists: _Lists,
    embed_scale: Tensor,
    dtype: torch.dtype,
    config: HeadConfig,
) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N"]]:
    """(weights @ embedding, scaled; the mass that it lacks); weights already hold the scales of an int8 embedding."""
    (N, V), D = weights.shape, embedding.shape[1]
    soft, dropped = weights.new_empty(N, D, dtype=dtype), weights.new_empty(N, dtype=torch.float32)
    partial = weights.new_empty(config.parts, N, D, dtype=torch.float32)
    launch(
        soft_kernel, (tiles(N, config.rows) * tiles(D, config.width), config.parts),
        weights, embedding, temperature, lists.counts, lists.kept, partial, N, V, D,
        ROWS=config.rows, WIDTH=config.width, DEPTH=config.depth, COMPUTE=compute_dtype(weights.dtype),
        **lists.constants,
        num_warps=config.warps, num_stages=config.soft_stages,
    )  # fmt: skip
    launch(
        sum_kernel, (N, tiles(D, SUM_BLOCK)),
        partial, embedding, column_scale, temperature, argmax, *lists.pointers, embed_scale.to(soft.device), soft,
        dropped, N, D, config.parts, BLOCK=SUM_BLOCK, INTEGER=embedding.dtype == torch.int8, **lists.constants,
    )  # fmt: skip
    return soft, dropped
