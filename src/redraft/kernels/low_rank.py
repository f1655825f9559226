"""What an adapter adds to a product: s B (A x), with A [r, K] and B [R, r].

It is made beside the product and not in its weights: a weight's gradient would be as large as the weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from redraft.kernels.experts import int8_products
from redraft.kernels.groups import Groups, gated, inverse_of, permuted, weighted
from redraft.kernels.int4 import int4_products
from redraft.kernels.int8 import PackedInt8
from redraft.kernels.matrices.int4 import Int4Matrix
from redraft.kernels.matrices.int8 import quantise_rows, quantise_unsigned
from redraft.kernels.widened import Stack, widened_products

# N rows, A experts a row, S = N A rows in order of their experts, E experts, D hidden, I expert width, r rank


@dataclass(frozen=True, kw_only=True)
class Factors:
    """A low-rank change of a matrix, or of each of a stack.

    Attributes:
        a: [r, K], [E, r, K], or [1, r, K] for one that all experts share.
        b: [R, r], [E, R, r] or [1, R, r].
        scale: what their product weighs.
    """

    a: Float[Tensor, "*E r K"]
    b: Float[Tensor, "*E R r"]
    scale: float

    def of(self, x: Float[Tensor, "... K"]) -> Float[Tensor, "... R"]:
        """scale * B (A x) of one matrix, in x's dtype."""
        return F.linear(F.linear(x, self.a.to(x.dtype)), self.b.to(x.dtype)) * self.scale

    def delta(self) -> Float[Tensor, "*E R K"]:
        """What it adds to the weights, in float32."""
        return self.b.float() @ self.a.float() * self.scale


def adapted_experts(
    x_ND: Float[Tensor, "N D"],
    index_NA: Int[Tensor, "N A"],
    weight_NA: Float[Tensor, "N A"],
    stacks: tuple[Stack, Stack],
    num_experts: int,
    gate_up: Factors | None,
    down: Factors | None,
) -> Float[Tensor, "N D"]:
    """The mixture with low-rank changes of its matrices; see `redraft.kernels.experts.experts`.

    Args:
        x_ND: rows.
        index_NA, weight_NA: their experts.
        stacks: gate-up and down, frozen, in any form.
        num_experts: E.
        gate_up: the change of the first; an A that is shared is multiplied once a row.
        down: that of the second; a B that is shared is multiplied behind the sum over experts.
    """
    N, A = index_NA.shape
    groups = Groups.of(index_NA, num_experts)
    counts, inverse = groups.counts, inverse_of(groups.slot)

    def sorted_rows(rows: Tensor) -> Tensor:
        if not rows.requires_grad:
            return rows[groups.source]
        repeated = rows[:, None].expand(-1, A, -1).reshape(N * A, -1)
        return permuted(repeated, inverse, groups.slot)

    rows = sorted_rows(x_ND)
    wide = frozen_products(rows, counts, stacks[0])
    if gate_up is not None:
        first = gate_up.a.to(x_ND.dtype)
        inner = sorted_rows(F.linear(x_ND, first[0])) if len(first) == 1 else _grouped(rows, counts, first)
        wide = wide + _grouped(inner, counts, gate_up.b.to(x_ND.dtype)) * gate_up.scale
    middle = gated(wide)
    out = frozen_products(middle, counts, stacks[1])
    if down is None:
        return weighted(out, groups, weight_NA)
    inner, last = _grouped(middle, counts, down.a.to(x_ND.dtype)), down.b.to(x_ND.dtype)
    if len(last) == 1:
        shared = F.linear(weighted(inner, groups, weight_NA), last[0])
        return weighted(out, groups, weight_NA) + shared * down.scale
    return weighted(out + _grouped(inner, counts, last) * down.scale, groups, weight_NA)


def frozen_products(rows: Float[Tensor, "S K"], counts: list[int], stack: Stack) -> Float[Tensor, "S R"]:
    """Each run of rows times its expert's frozen matrix: as inference has it on a CPU, by rounded rows where weights
    are int8 or int4; where gradients are on, and elsewhere, by widened weights."""
    if not torch.is_grad_enabled() and rows.device.type == "cpu" and len(rows):
        if isinstance(stack, Int4Matrix):
            values, scale = quantise_rows(rows)
            return (int4_products(values, counts, stack) * scale[:, None]).to(rows.dtype)
        if isinstance(stack, Sequence) and isinstance(stack[0], PackedInt8):
            values, scale = quantise_unsigned(rows)
            return (int8_products(values, counts, stack) * scale[:, None]).to(rows.dtype)
    return widened_products(rows, counts, stack)


def _grouped(rows: Float[Tensor, "S K"], counts: list[int], stack: Float[Tensor, "E R K"]) -> Float[Tensor, "S R"]:
    """Each run of rows times its expert's matrix of a stack that learns; one that is shared takes all rows."""
    if len(stack) == 1:
        return F.linear(rows, stack[0])
    # unbind, not slices: the backward pass of a slice fills a tensor of the whole's size with zeros.
    pairs = zip(rows.split(counts), stack.unbind(), strict=True)
    return torch.cat([F.linear(part, matrix) for part, matrix in pairs if len(part)])
