"""Rotary position embedding: full rotary in sliding layers, "proportional" in full ones."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from redraft.kernels.triton.fallback import attempt, on_gpu

Rotary = tuple[Tensor, Tensor]


def inverse_frequencies(theta: float, partial_rotary_factor: float, head_dim: int) -> Float[Tensor, "H"]:
    """Angles per position of each of the head_dim / 2 pairs, in radians.

    The proportional form turns the first `partial_rotary_factor` of the pairs with exponents relative to the
    *whole* head, and leaves the others at angle 0.

    Source: transformers `_compute_proportional_rope_parameters`; factor 1 is the ordinary form.
    """
    turned = int(partial_rotary_factor * head_dim // 2)
    # Explicitly on the CPU: a model is made on the meta device, where a power imports sympy too.
    exponents = torch.arange(0, 2 * turned, 2, dtype=torch.float32, device="cpu") / head_dim
    return torch.cat([1.0 / theta**exponents, torch.zeros(head_dim // 2 - turned, device="cpu")])


def rotary(positions: Int[Tensor, "B T"], frequencies: Float[Tensor, "H"], dtype: torch.dtype) -> Rotary:
    """(cos, sin), each [B, T, 1, head_dim / 2], for heads laid out as [B, T, heads, head_dim]."""

    def reference() -> Rotary:
        angles = positions[..., None].float() * frequencies
        return angles.cos().to(dtype)[:, :, None], angles.sin().to(dtype)[:, :, None]

    def fast() -> Rotary:
        from redraft.kernels.triton.rotary import rotary_triton

        return rotary_triton(positions, frequencies, dtype)

    return attempt("rotary", fast, reference, dtype) if on_gpu(positions, frequencies) else reference()
