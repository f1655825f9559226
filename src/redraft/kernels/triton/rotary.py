"""The rotary table of a step in one launch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from redraft.kernels.triton.dependent import after_the_last
from redraft.kernels.triton.target import launch, power_of_two

# B batch, T positions, F pairs of a head


@triton.jit
def rotary_kernel(positions, frequencies, cos, sin, F, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """One position. Angles are products in float32, as torch's are."""
    after_the_last()
    n, f = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside = f < F
    angle = tl.load(positions + n).to(tl.float32) * tl.load(frequencies + f, mask=inside, other=0.0)
    tl.store(cos + n * F + f, tl.cos(angle).to(cos.dtype.element_ty), mask=inside)
    tl.store(sin + n * F + f, tl.sin(angle).to(sin.dtype.element_ty), mask=inside)


def rotary_triton(
    positions: Int[Tensor, "B T"], frequencies: Float[Tensor, "F"], dtype: torch.dtype
) -> tuple[Float[Tensor, "B T 1 F"], Float[Tensor, "B T 1 F"]]:
    """`redraft.model.rope.rotary`, on a GPU."""
    (B, T), F = positions.shape, len(frequencies)
    cos, sin = (torch.empty(B, T, 1, F, dtype=dtype, device=positions.device) for _ in range(2))
    launch(
        rotary_kernel, (B * T,), positions.contiguous(), frequencies, cos, sin, F, BLOCK=power_of_two(F), num_warps=1
    )
    return cos, sin
