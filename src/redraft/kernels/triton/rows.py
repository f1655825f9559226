"""What a layer does between its products, in one pass over a row where its modules take many.

A row leaves each pass as the next product reads it: rounded to 8 bits beside its scale, or as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from redraft.kernels.matrices.int8 import Int8Matrix
from redraft.kernels.triton.rows_kernels import (
    begin_kernel,
    end_kernel,
    gate_kernel,
    middle_kernel,
    norm_round_kernel,
    round_kernel,
)
from redraft.kernels.triton.target import launch, power_of_two

# N rows, D width, I units of a gated MLP, P parts of a product, A results of experts

# With twice as many, compilers for compute capability 9 and 12 keep a register on the stack.
_MIDDLE_WARPS = 4
# The largest magnitudes of int8 (symmetric) and of e4m3.
MOST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Activations that a product reads.

    Attributes:
        values: int8 or e4m3, or floats.
        scale: of each row of 8-bit values; None for floats.
    """

    values: Tensor
    scale: Float[Tensor, "N"] | None = None

    @classmethod
    def empty(cls, like: Tensor, shape: tuple[int, int], dtype: torch.dtype | None) -> Rows:
        """Room for rows of this dtype, on the device of `like`; None: of its dtype."""
        if dtype is None:
            return cls(values=like.new_empty(shape))
        return cls(values=like.new_empty(shape, dtype=dtype), scale=like.new_empty(shape[0], dtype=torch.float32))

    @property
    def pointers(self) -> tuple[Tensor, Tensor]:
        """Values and scales; one that a kernel does not follow may be any."""
        return self.values, self.values if self.scale is None else self.scale

    @property
    def most(self) -> float:
        """The largest magnitude of a row, over its scale; 0 for floats."""
        return MOST.get(self.values.dtype, 0.0)


def _options(rows: Rows, width: int) -> dict[str, float | int]:
    block = power_of_two(width)
    return {"MOST": rows.most, "BLOCK": block, "num_warps": min(8, max(1, block // 256))}


def rounded(x: Float[Tensor, "N D"], dtype: torch.dtype | None) -> Rows:
    """Rows of a dtype; those of x itself for None."""
    if dtype is None:
        return Rows(values=x)
    x = x if x.stride(-1) == 1 else x.contiguous()
    rows = Rows.empty(x, x.shape, dtype)  # type: ignore[arg-type]
    if len(x):
        launch(round_kernel, (len(x),), x, *rows.pointers, x.shape[1], x.stride(0), **_options(rows, x.shape[1]))
    return rows


def norm_rounded(x: Float[Tensor, "N D"], weight: Float[Tensor, "D"], eps: float, dtype: torch.dtype | None) -> Rows:
    """Rows of rms_norm(x)."""
    x = x.contiguous()
    rows = Rows.empty(x, x.shape, dtype)  # type: ignore[arg-type]
    launch(norm_round_kernel, (len(x),), x, weight, *rows.pointers, x.shape[1], eps, **_options(rows, x.shape[1]))
    return rows


def gate_rounded(gate_up: Float[Tensor, "P N 2I"], like: Tensor, dtype: torch.dtype | None) -> Rows:
    """Rows of gelu(gate) * up, each rounded as `like` is before.

    Args:
        gate_up: parts of a product, gate and then up in each row.
        like: gives the dtype of activations.
        dtype: of the rows; None: that of activations.
    """
    P, N, width = gate_up.shape
    rows = Rows.empty(like, (N, width // 2), dtype)
    launch(gate_kernel, (N,), gate_up, like, *rows.pointers, width // 2, P, **_options(rows, width // 2))
    return rows


@dataclass(frozen=True, kw_only=True)
class NextNorm:
    """The norm that stands before the next product, and what its rows are rounded to."""

    weight: Float[Tensor, "D"]
    dtype: torch.dtype | None


def begin(
    tokens: Int[Tensor, "N"],
    embedding: Float[Tensor, "V D"] | Int8Matrix,
    embed_scale: Float[Tensor, ""],
    conditioning: Float[Tensor, "P N D"] | None,
    following: NextNorm,
    eps: float,
    *,
    normed: bool,
) -> tuple[Float[Tensor, "N D"], Rows]:
    """(hidden states, the first layer's rows): scaled embeddings, plus their conditioning, normed without weight.

    Args:
        tokens: ids.
        embedding: the model's.
        embed_scale: in the dtype of activations, which it gives.
        conditioning: parts of the product that self-conditioning ends with; None at the first step.
        following: the first layer's norm.
        eps: of the norms.
        normed: whether hidden states are: those of a canvas.
    """
    integer = isinstance(embedding, Int8Matrix)
    table, token_scale = (embedding.data, embedding.scale) if integer else (embedding, embedding)
    N, D = len(tokens), table.shape[1]
    hidden = embed_scale.new_empty(N, D)
    rows = Rows.empty(hidden, (N, D), following.dtype)
    parts = 1 if conditioning is None else len(conditioning)
    launch(
        begin_kernel, (N,), tokens, table, token_scale, embed_scale, hidden if conditioning is None else conditioning,
        following.weight, hidden, *rows.pointers, D, parts, eps, INTEGER=integer,
        CONDITIONED=conditioning is not None, NORMED=normed, **_options(rows, D),
    )  # fmt: skip
    return hidden, rows


@dataclass(frozen=True, kw_only=True)
class MiddleWeights:
    """Norms and scales that `middle` applies, [D] each."""

    post_attention: Tensor
    pre_dense: Tensor
    pre_experts: Tensor
    router: Tensor


def middle(
    attended: Float[Tensor, "P N D"], hidden: Float[Tensor, "N D"], weights: MiddleWeights, eps: float,
    dtype: torch.dtype | None, expert_dtype: torch.dtype | None,
) -> tuple[Float[Tensor, "N D"], Rows, Rows, Float[Tensor, "N D"]]:  # fmt: skip
    """(hidden states after attention, rows of the dense MLP, of the experts, of the router).

    Args:
        attended: parts of the output projection.
        hidden: before attention.
        weights: of the norms.
        eps: of the norms.
        dtype: of the dense MLP's rows.
        expert_dtype: of the experts'.
    """
    P, N, D = attended.shape
    new_hidden, router_rows = torch.empty_like(hidden), torch.empty_like(hidden)
    rows, expert_rows = Rows.empty(hidden, (N, D), dtype), Rows.empty(hidden, (N, D), expert_dtype)
    launch(
        middle_kernel, (N,), attended, hidden, weights.post_attention, weights.pre_dense, weights.pre_experts,
        weights.router, new_hidden, *rows.pointers, *expert_rows.pointers, router_rows, D, P, eps, D**-0.5,
        EXPERT_MOST=expert_rows.most, **(_options(rows, D) | {"num_warps": _MIDDLE_WARPS}),
    )  # fmt: skip
    return new_hidden, rows, expert_rows, router_rows


@dataclass(frozen=True, kw_only=True)
class EndWeights:
    """Norms that `end` applies, [D] each, and the layer's scalar, [1]."""

    post_experts: Tensor
    post_dense: Tensor
    post: Tensor
    scalar: Tensor


def end(
    outputs: Float[Tensor, "N A D"], dense: Float[Tensor, "P N D"], hidden: Float[Tensor, "N D"], weights: EndWeights,
    following: NextNorm, eps: float,
) -> tuple[Float[Tensor, "N D"], Rows]:  # fmt: skip
    """(hidden states, the next layer's rows).

    Args:
        outputs: weighed results of each row's experts, summed in their order.
        dense: parts of the dense MLP's last product.
        hidden: after attention.
        weights: of the norms.
        following: the next layer's norm, or the final one.
        eps: of the norms.
    """
    N, A, D = outputs.shape
    new_hidden, rows = torch.empty_like(hidden), Rows.empty(hidden, (N, D), following.dtype)
    launch(
        end_kernel, (N,), outputs, dense, hidden, weights.post_experts, weights.post_dense, weights.post,
        weights.scalar, following.weight, new_hidden, *rows.pointers, D, A, len(dense), eps, **_options(rows, D),
    )  # fmt: skip
    return new_hidden, rows
