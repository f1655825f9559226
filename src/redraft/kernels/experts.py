"""The mixture's product: rows grouped by expert once, two matrix products per expert, weighted sum back.

Each row's A results are gathered and summed in the order of `index`, never scattered: no atomics, and the same bits
on every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from redraft.kernels.int8 import PackedInt8, gate_quantised, quantise_unsigned, quantised_linear

# N rows, E experts, A experts per row, D hidden, I expert width


@dataclass(frozen=True)
class _Groups:
    """The N * A assignments in order of their experts.

    Attributes:
        order: assignment numbers (row * A + place), sorted by expert.
        inverse: where each assignment went.
        counts: assignments of each expert.
    """

    order: Int[Tensor, "NA"]
    inverse: Int[Tensor, "NA"]
    counts: list[int]

    @classmethod
    def of(cls, index_NA: Int[Tensor, "N A"], num_experts: int) -> _Groups:
        flat = index_NA.flatten()
        order = torch.argsort(flat, stable=True)
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(order.numel(), device=order.device)
        return cls(order, inverse, torch.bincount(flat, minlength=num_experts).tolist())


def experts(
    x_ND: Float[Tensor, "N D"],
    index_NA: Int[Tensor, "N A"],
    weight_NA: Float[Tensor, "N A"],
    gate_up_E2ID: Float[Tensor, "E 2I D"],
    down_EDI: Float[Tensor, "E D I"],
) -> Float[Tensor, "N D"]:
    """sum over a of weight[n, a] * down[e] (gelu(gate[e] x) * up[e] x), with e = index[n, a]."""
    groups = _Groups.of(index_NA, gate_up_E2ID.shape[0])
    if torch.is_grad_enabled() and (x_ND.requires_grad or gate_up_E2ID.requires_grad):
        outputs = _with_gradient(x_ND, groups, index_NA.shape[1], gate_up_E2ID, down_EDI)
    else:
        rows = x_ND[groups.order // index_NA.shape[1]]
        outputs = _products(_gated(_products(rows, groups.counts, gate_up_E2ID)), groups.counts, down_EDI)
    return _weighted(outputs, groups, weight_NA)


def experts_int8(
    x_ND: Float[Tensor, "N D"],
    index_NA: Int[Tensor, "N A"],
    weight_NA: Float[Tensor, "N A"],
    gate_up: Sequence[PackedInt8],
    down: Sequence[PackedInt8],
) -> Float[Tensor, "N D"]:
    """`experts` with int8 weights; every row is quantised once, however many experts it goes to."""
    groups = _Groups.of(index_NA, len(gate_up))
    values, scale = quantise_unsigned(x_ND)
    source = groups.order // index_NA.shape[1]
    gated, gated_scale = gate_quantised(_int8_products(values[source], groups.counts, gate_up), scale[source])
    outputs = _int8_products(gated, groups.counts, down)
    # A row's scale goes into its weight: one pass less over the widest results.
    weights = weight_NA.float() * gated_scale[groups.inverse].view_as(weight_NA)
    return _weighted(outputs, groups, weights).to(x_ND.dtype)


def _gated(gate_up: Float[Tensor, "NA 2I"]) -> Float[Tensor, "NA I"]:
    gate, up = gate_up.chunk(2, dim=-1)
    return F.gelu(gate, approximate="tanh") * up


def _products(rows: Float[Tensor, "NA K"], counts: list[int], weights_EOK: Float[Tensor, "E O K"]) -> Tensor:
    """Each run of rows times its expert's matrix, into one result."""
    out = rows.new_empty(len(rows), weights_EOK.shape[1])
    for part, into, weight in zip(rows.split(counts), out.split(counts), weights_EOK, strict=True):
        if len(part):
            torch.mm(part, weight.T, out=into)
    return out


def _int8_products(values: Tensor, counts: list[int], weights: Sequence[PackedInt8]) -> Float[Tensor, "NA O"]:
    """`_products` of quantised rows, without the rows' scales."""
    outputs = [
        quantised_linear(part, None, weight)
        for part, weight in zip(values.split(counts), weights, strict=True)
        if len(part)
    ]
    return torch.cat(outputs)


def _weighted(outputs: Float[Tensor, "NA D"], groups: _Groups, weight_NA: Float[Tensor, "N A"]) -> Tensor:
    N, A = weight_NA.shape
    if not outputs.requires_grad and outputs.device.type == "cpu":
        weights = weight_NA.to(outputs.dtype)
        return F.embedding_bag(groups.inverse.view(N, A), outputs, mode="sum", per_sample_weights=weights)
    gathered = _permute(outputs, groups.inverse, groups.order).view(N, A, -1)
    return (gathered * weight_NA[..., None].to(gathered.dtype)).sum(1)


def _with_gradient(x: Tensor, groups: _Groups, A: int, gate_up: Tensor, down: Tensor) -> Tensor:
    rows = _permute(x[:, None].expand(-1, A, -1).reshape(len(x) * A, -1), groups.order, groups.inverse)
    # split and unbind, not slices: the backward pass of a slice fills a tensor of the whole's size with zeros.
    outputs = [
        F.linear(_gated(F.linear(part, wide)), narrow)
        for part, wide, narrow in zip(rows.split(groups.counts), gate_up.unbind(), down.unbind(), strict=True)
        if len(part)
    ]
    return torch.cat(outputs)


def _permute(x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
    """x[order]; its gradient is gathered through the inverse instead of scattered."""
    return _Permute.apply(x, order, inverse) if x.requires_grad else x[order]  # type: ignore[return-value]


class _Permute(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, order, inverse):  # type: ignore[override]
        ctx.save_for_backward(inverse)
        return x[order]

    @staticmethod
    def backward(ctx, grad):  # type: ignore[override]
        (inverse,) = ctx.saved_tensors
        return grad[inverse], None, None
