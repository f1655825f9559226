"""Rows by the experts that they go to, for devices whose products are launched one by one, and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

# N rows, A experts per row, S slots, D hidden, I expert width


@dataclass(frozen=True)
class Groups:
    """The N * A assignments in order of their experts, each expert's share rounded up to a multiple of rows.

    Attributes:
        source: the row of x in each slot; slots that only fill up hold row 0.
        slot: of each assignment (row * A + place).
        counts: slots of each expert.
    """

    source: Int[Tensor, "S"]
    slot: Int[Tensor, "NA"]
    counts: list[int]

    @classmethod
    def of(cls, index_NA: Int[Tensor, "N A"], num_experts: int, multiple: int = 1) -> Groups:
        """Of these choices, with shares rounded up to a `multiple`; the host waits for them."""
        # In numpy: fifteen operators on a few hundred numbers, whose counts are needed here in any case.
        flat = index_NA.flatten().cpu().numpy()
        order = np.argsort(flat, kind="stable")
        counts = np.bincount(flat, minlength=num_experts)
        slots = (counts + multiple - 1) // multiple * multiple
        # How far each expert's slots lie behind its place in the sorted order.
        shift = (slots.cumsum() - slots) - (counts.cumsum() - counts)
        place = np.arange(len(order)) + shift[flat[order]]
        slot, source = np.empty_like(order), np.zeros(slots.sum(), order.dtype)
        slot[order] = place
        source[place] = order // index_NA.shape[1]
        device = index_NA.device
        return cls(torch.from_numpy(source).to(device), torch.from_numpy(slot).to(device), slots.tolist())


def gated(gate_up: Float[Tensor, "S 2I"]) -> Float[Tensor, "S I"]:
    """gelu(gate) * up."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.gelu(gate, approximate="tanh") * up


def weighted(outputs: Float[Tensor, "S D"], groups: Groups, weight_NA: Float[Tensor, "N A"]) -> Float[Tensor, "N D"]:
    """Each row's results by their weights, gathered and summed in the order of its experts."""
    N, A = weight_NA.shape
    if not outputs.requires_grad and outputs.device.type == "cpu":
        weights = weight_NA.to(outputs.dtype)
        return F.embedding_bag(groups.slot.view(N, A), outputs, mode="sum", per_sample_weights=weights)
    slots = groups.slot
    gathered = permuted(outputs, slots, inverse_of(slots)) if outputs.requires_grad else outputs[slots]
    return (gathered.view(N, A, -1) * weight_NA[..., None].to(gathered.dtype)).sum(1)


def inverse_of(permutation: Int[Tensor, "P"]) -> Int[Tensor, "P"]:
    """Where each place went."""
    inverse = torch.empty_like(permutation)
    inverse[permutation] = torch.arange(len(permutation), device=permutation.device)
    return inverse


def permuted(x: Float[Tensor, "P D"], order: Int[Tensor, "P"], inverse: Int[Tensor, "P"]) -> Float[Tensor, "P D"]:
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
