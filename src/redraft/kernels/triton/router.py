"""The router on a GPU: its product split over columns, then each row's experts and their weights in one pass."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from redraft.kernels.triton.dependent import after_the_last
from redraft.kernels.triton.target import compute_dtype, launch, power_of_two, tiles

# N rows, D hidden, E experts, A experts a row, P parts of the columns

# Rows and columns of a program's tile. Few rows: the product is small, and only many programs read it fast.
ROWS, DEPTH, PARTS = 16, 64, 8


@triton.jit(do_not_specialize=["N"])
def scores_kernel(
    x, weight, partial, N, D, E, ROWS: tl.constexpr, BINS: tl.constexpr, DEPTH: tl.constexpr, COMPUTE: tl.constexpr
):  # type: ignore[no-untyped-def]  # fmt: skip
    """One part of x @ weight^T for ROWS rows and all experts; parts are whole steps of DEPTH columns."""
    after_the_last()
    n = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    e, d = tl.arange(0, BINS), tl.arange(0, DEPTH)
    part = tl.program_id(1)
    length = tl.cdiv(tl.cdiv(D, DEPTH), tl.num_programs(1)) * DEPTH
    first = part * length
    total = tl.zeros((ROWS, BINS), dtype=tl.float32)
    for start in range(first, tl.minimum(first + length, D), DEPTH):
        at = start + d
        rows = tl.load(x + n[:, None] * D + at[None, :], mask=(n < N)[:, None] & (at < D)[None, :], other=0.0)
        columns = tl.load(weight + e[None, :] * D + at[:, None], mask=(e < E)[None, :] & (at < D)[:, None], other=0.0)
        total = tl.dot(rows.to(COMPUTE), columns.to(COMPUTE), total, input_precision="ieee")
    out = partial + (part * N + n)[:, None] * E + e[None, :]
    tl.store(out, total, mask=(n < N)[:, None] & (e < E)[None, :])


@triton.jit
def choose_kernel(
    partial, like, expert_scale, index, weight, E, A, P, BINS: tl.constexpr, PLACES: tl.constexpr
):  # type: ignore[no-untyped-def]  # fmt: skip
    """The A likeliest experts of a row, of equal ones the first, and weights that sum to 1 before `expert_scale`."""
    after_the_last()
    n = tl.program_id(0)
    e, place = tl.arange(0, BINS), tl.arange(0, PLACES)
    total = tl.zeros((BINS,), dtype=tl.float32)
    for part in range(P):
        total += tl.load(partial + (part * tl.num_programs(0) + n) * E + e, mask=e < E, other=0.0)
    # With the digits of a product: a tie there is a tie here.
    scores = tl.where(e < E, total.to(like.dtype.element_ty).to(tl.float32), -float("inf"))
    shares = tl.exp(scores - tl.max(scores, axis=0))
    left = shares / tl.sum(shares, axis=0)
    left = tl.where(e < E, left, -1.0)
    found, chosen = tl.zeros((PLACES,), dtype=tl.float32), tl.zeros((PLACES,), dtype=tl.int32)
    for a in range(A):
        best = tl.max(left, axis=0)
        # Where scores are no numbers none is the best, but an expert it must be.
        expert = tl.minimum(tl.min(tl.where(left == best, e, E - 1), axis=0), E - 1)
        found, chosen = tl.where(place == a, best, found), tl.where(place == a, expert, chosen)
        left = tl.where(e == expert, -1.0, left)
    found = found / tl.sum(found, axis=0)
    found *= tl.load(expert_scale + chosen, mask=place < A, other=0.0).to(tl.float32)
    tl.store(index + n * A + place, chosen, mask=place < A)
    tl.store(weight + n * A + place, found, mask=place < A)


def route(
    x_ND: Float[Tensor, "N D"], weight_ED: Float[Tensor, "E D"], expert_scale: Float[Tensor, "E"], top_k: int
) -> tuple[Int[Tensor, "N A"], Float[Tensor, "N A"]]:
    """(expert ids, float32 weights) as `model.feedforward.Router` has them, from its scaled rows.

    Args:
        x_ND: normed rows, times both of the router's factors.
        weight_ED: the projection.
        expert_scale: of each expert.
        top_k: A.
    """
    (N, D), E = x_ND.shape, len(weight_ED)
    parts, bins = min(PARTS, tiles(D, DEPTH)), max(16, power_of_two(E))
    partial = x_ND.new_empty(parts, N, E, dtype=torch.float32)
    launch(
        scores_kernel, (tiles(N, ROWS), parts), x_ND, weight_ED, partial, N, D, E,
        ROWS=ROWS, BINS=bins, DEPTH=DEPTH, COMPUTE=compute_dtype(x_ND.dtype), num_warps=4, num_stages=3,
    )  # fmt: skip
    index, weight = x_ND.new_empty(N, top_k, dtype=torch.int32), x_ND.new_empty(N, top_k, dtype=torch.float32)
    launch(
        choose_kernel, (N,), partial, x_ND, expert_scale, index, weight, E, top_k, parts,
        BINS=bins, PLACES=power_of_two(top_k), num_warps=1,
    )  # fmt: skip
    return index, weight
