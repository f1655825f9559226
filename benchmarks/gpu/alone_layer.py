"""Kernels of a layer that stand between its products, for `alone.py`: the router, and the passes over a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from context import Context
from torch import Generator, Tensor
from weights import DTYPE

_EPS = 1e-6
# Parts of the products that a row is read in.
_PARTS = 3


def works(context: Context, generator: Generator) -> dict[str, Callable[[], tuple[Callable[[], Any], float]]]:
    """By name what makes (work, bytes that it must move); on a GPU only."""
    from redraft.kernels.triton.dense import ROUNDED, float8_operands

    config = context.config
    N, D, E, A = config.canvas_length, config.hidden_size, config.num_experts, config.top_k_experts

    def random(*shape: int, dtype: torch.dtype = DTYPE) -> Tensor:
        return torch.randn(shape, device=context.clock.device, generator=generator).to(dtype)

    def router() -> tuple[Callable[[], Any], float]:
        from redraft.kernels.triton.router import route

        x, weight, scale = random(N, D), random(E, D), random(E)
        return lambda: route(x, weight, scale, A), 2 * (N * D + E * D) + 8 * N * A

    def middle() -> tuple[Callable[[], Any], float]:
        from redraft.kernels.triton import rows

        attended, hidden, norms = random(_PARTS, N, D, dtype=torch.float32), random(N, D), random(4, D)
        names = ("post_attention", "pre_dense", "pre_experts", "router")
        weights = rows.MiddleWeights(**dict(zip(names, norms, strict=True)))
        kind = ROUNDED[float8_operands(hidden.device)]
        # Parts and hidden states in; hidden states and three kinds of rows out.
        return lambda: rows.middle(attended, hidden, weights, _EPS, kind, None), N * D * (4 * _PARTS + 2 + 2 + 1 + 4)

    def end() -> tuple[Callable[[], Any], float]:
        from redraft.kernels.triton import rows

        outputs, dense = random(N, A, D), random(_PARTS, N, D, dtype=torch.float32)
        hidden, norms = random(N, D), random(4, D)
        weights = rows.EndWeights(post_experts=norms[0], post_dense=norms[1], post=norms[2], scalar=random(1))
        following = rows.NextNorm(weight=norms[3], dtype=ROUNDED[float8_operands(hidden.device)])
        moved = N * D * (2 * A + 4 * _PARTS + 2 + 2 + 1)
        return lambda: rows.end(outputs, dense, hidden, weights, following, _EPS), moved

    return {"router": router, "rows after attention": middle, "rows after the experts": end}
