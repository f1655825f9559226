"""Products with a matrix in floating point as it is stored. On a CPU few rows only wait for it to be read."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from redraft.kernels.native.call import KINDS, call, runs_natively

# N rows, K columns (inputs), R rows of the matrix (outputs), E experts, A experts a row

# Rows up to which reading row by row is faster than torch's products, which are better in bfloat16.
_FEW = {torch.float32: 16, torch.bfloat16: 4}
# The same of an expert's share, on average.
_FEW_OF_EXPERT = {torch.float32: 16, torch.bfloat16: 12}


def linear(x: Float[Tensor, "... K"], weight: Float[Tensor, "R K"], *, alike: bool = False) -> Float[Tensor, "... R"]:
    """x @ weight.T; where gradients are on, as torch has it, whatever has one.

    Args:
        x: rows.
        weight: the matrix.
        alike: whether a row's bits must be the same in any company, though many rows may be slower.
    """
    rows = x.numel() // max(1, x.shape[-1])
    most = _FEW.get(x.dtype, 0) if not alike else rows
    fits = 0 < rows <= most and x.dtype == weight.dtype and not torch.is_grad_enabled()
    if not fits or not runs_natively("floats", x, weight):
        return F.linear(x, weight)
    if x.shape[-1] != weight.shape[1]:
        raise ValueError(f"rows of {x.shape[-1]} columns do not meet a matrix of {weight.shape[1]}")
    out = torch.empty(*x.shape[:-1], len(weight), dtype=x.dtype)
    call("floats", "float_linear", x, KINDS[x.dtype], rows, x.shape[-1], weight, len(weight), out)
    return out


def runs_few(x: Tensor, picks: int, *stacks: Tensor) -> bool:
    """Whether `few_experts` takes these and is faster than one product after the other."""
    if torch.is_grad_enabled() or not runs_natively("floats", x, *stacks):
        return False
    fits = all(stack.dtype == x.dtype for stack in stacks)
    return fits and len(x) * picks <= _FEW_OF_EXPERT[x.dtype] * len(stacks[0])


def few_experts(
    x: Float[Tensor, "N D"],
    index: Tensor,
    weight: Tensor,
    gate_up: Float[Tensor, "E 2I D"],
    down: Float[Tensor, "E D I"],
) -> Float[Tensor, "N D"]:
    """The mixture's product in one call; each row's experts are added up in float32, in order of their numbers."""
    (N, D), A, E = x.shape, index.shape[1], len(gate_up)
    width = gate_up.shape[1] // 2
    if gate_up.shape != (E, 2 * width, D) or down.shape != (E, D, width) or weight.shape != (N, A):
        raise ValueError(f"experts {tuple(gate_up.shape)} and {tuple(down.shape)} do not meet rows {tuple(x.shape)}")
    out = torch.empty(N, D)
    given = (index.contiguous(), weight.float().contiguous(), A, E, width, gate_up, down)
    call("floats", "float_experts", x, KINDS[x.dtype], N, D, *given, out)
    return out.to(x.dtype)
