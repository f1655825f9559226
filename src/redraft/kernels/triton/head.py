"""The head on a GPU: one product with the vocabulary, whose tiles leave their share of a softmax behind.

Raw logits stay in scratch memory, rounded to the embedding's dtype as a matrix product rounds them, so that
statistics, draw and soft embedding see the same numbers. Four passes follow each other:

- `logits_kernel`: logits of a tile, and its largest logit, mass, entropy moment and argmax, for each row;
- `finish_kernel`: a row's results out of its tiles' sums; the draw finds its tile by inverse CDF, then its token;
- `weights_kernel`: logits become probabilities;
- `soft_kernel` and `sum_kernel`: probabilities x embedding, split over the vocabulary, summed in a fixed order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from redraft.kernels.head import MAX_ROWS, HeadStats
from redraft.kernels.int8 import Int8Matrix
from redraft.kernels.triton.dense import rounded_rows
from redraft.kernels.triton.head_kernels import (
    finish_kernel,
    logits_kernel,
    soft_kernel,
    sum_kernel,
    weights_kernel,
)
from redraft.kernels.triton.target import compute_dtype, launch, power_of_two, shared_bytes, stored_dtype, tiles

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
    """

    rows: int = 128
    columns: int = 128
    depth: int = 64
    width: int = 128
    warps: int = 8
    stages: int = 3
    soft_stages: int = 3
    parts: int = 6


def head_config(rows: int, shared: int) -> HeadConfig:
    """Tiles for so many rows and so much shared memory."""
    height = min(128, max(16, power_of_two(rows)))
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
    chosen = config or head_config(len(hidden_ND), shared_bytes(hidden_ND.device, hidden_ND.dtype))
    temperature, uniform = temperature_N.float().contiguous(), uniform_N.float().contiguous()
    parts = [
        _pass(h, embedding, cap, embed_scale, t, u, chosen)
        for h, t, u in zip(hidden_ND.split(MAX_ROWS), temperature.split(MAX_ROWS), uniform.split(MAX_ROWS), strict=True)
    ]
    if len(parts) == 1:
        return parts[0]
    return HeadStats(**{name: torch.cat([getattr(p, name) for p in parts]) for name in vars(parts[0])})


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
    logits = hidden.new_empty(N, V, dtype=stored_dtype(torch.float16 if integer else weight.dtype))
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
    entropy, log_prob, top, mass = (hidden.new_empty(N, dtype=torch.float32) for _ in range(4))
    launch(
        finish_kernel, (N,),
        logits, temperature, uniform, tops, masses, moments, bests, argmax, sample, entropy, log_prob, top, mass,
        V, J, cap, COLUMNS=config.columns, TILES=power_of_two(J),
    )  # fmt: skip

    # Probabilities take the place of their logits.
    floating = stored_dtype(hidden.dtype if integer else weight.dtype)
    fits = logits.dtype.itemsize == floating.itemsize
    weights = logits.view(floating) if fits else torch.empty_like(logits, dtype=floating)
    launch(
        weights_kernel, (N, tiles(V, WEIGHTS_BLOCK)),
        logits, temperature, column_scale, top, mass, weights, V, cap, BLOCK=WEIGHTS_BLOCK, INTEGER=integer,
    )  # fmt: skip
    return HeadStats(
        argmax=argmax,
        sample=sample,
        entropy=entropy,
        log_prob=log_prob,
        soft_embedding=_soft(weights, weight, column_scale, temperature, argmax, embed_scale, hidden.dtype, config),
        dropped_mass=torch.zeros_like(entropy),
    )


def _soft(
    weights: Tensor,
    embedding: Tensor,
    column_scale: Tensor,
    temperature: Tensor,
    argmax: Tensor,
    embed_scale: Tensor,
    dtype: torch.dtype,
    config: HeadConfig,
) -> Float[Tensor, "N D"]:
    """weights @ embedding, scaled; weights already hold the scales of an int8 embedding."""
    (N, V), D = weights.shape, embedding.shape[1]
    soft = weights.new_empty(N, D, dtype=dtype)
    partial = weights.new_empty(config.parts, N, D, dtype=torch.float32)
    launch(
        soft_kernel, (tiles(N, config.rows) * tiles(D, config.width), config.parts),
        weights, embedding, partial, N, V, D,
        ROWS=config.rows, WIDTH=config.width, DEPTH=config.depth, COMPUTE=compute_dtype(weights.dtype),
        num_warps=config.warps, num_stages=config.soft_stages,
    )  # fmt: skip
    launch(
        sum_kernel, (N, tiles(D, SUM_BLOCK)),
        partial, embedding, column_scale, temperature, argmax, embed_scale.to(soft.device), soft, N, D, config.parts,
        BLOCK=SUM_BLOCK, INTEGER=embedding.dtype == torch.int8,
    )  # fmt: skip
    return soft
