"""The mixture's product: rows grouped by expert once, two matrix products per expert, weighted sum back."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

# N rows, E experts, A experts per row, D hidden, I expert width


def experts(
    x_ND: Float[Tensor, "N D"],
    index_NA: Int[Tensor, "N A"],
    weight_NA: Float[Tensor, "N A"],
    gate_up_E2ID: Float[Tensor, "E 2I D"],
    down_EDI: Float[Tensor, "E D I"],
) -> Float[Tensor, "N D"]:
    """sum over a of weight[n, a] * down[e] (gelu(gate[e] x) * up[e] x), with e = index[n, a].

    Each row's A results are gathered and summed in the order of `index`, never scattered: no atomics, and the
    same bits on every run.
    """
    N, A = index_NA.shape
    flat = index_NA.flatten()
    order = torch.argsort(flat, stable=True)
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(order.numel(), device=order.device)
    counts = torch.bincount(flat, minlength=gate_up_E2ID.shape[0]).tolist()
    rows = _permute(x_ND[:, None].expand(N, A, -1).reshape(N * A, -1), order, inverse)
    # split and unbind, not slices: the backward pass of a slice fills a tensor of the whole's size with zeros.
    outputs = []
    for part, gate_up, down in zip(rows.split(counts), gate_up_E2ID.unbind(), down_EDI.unbind(), strict=True):
        if len(part):
            gate, up = F.linear(part, gate_up).chunk(2, dim=-1)
            outputs.append(F.linear(F.gelu(gate, approximate="tanh") * up, down))
    gathered = _permute(torch.cat(outputs), inverse, order).view(N, A, -1)
    return (gathered * weight_NA[..., None].to(gathered.dtype)).sum(1)


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
