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
    counts = torch.bincount(flat, minlength=gate_up_E2ID.shape[0]).tolist()
    rows = x_ND[order // A]
    outputs = []
    start = 0
    for expert, count in enumerate(counts):
        if count == 0:
            continue
        gate, up = F.linear(rows[start : start + count], gate_up_E2ID[expert]).chunk(2, dim=-1)
        outputs.append(F.linear(F.gelu(gate, approximate="tanh") * up, down_EDI[expert]))
        start += count
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(order.numel(), device=order.device)
    gathered = torch.cat(outputs)[inverse].view(N, A, -1)
    return (gathered * weight_NA[..., None].to(gathered.dtype)).sum(1)
