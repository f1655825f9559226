"""Float8 matrices (e4m3, one scale a row): half of bfloat16's bytes.

Products run in the activations' own dtype, but for GPUs that multiply e4m3: those round activations to it row by row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from redraft.kernels.triton.fallback import attempt, on_gpu

_MOST = torch.finfo(torch.float8_e4m3fn).max
# Activations that a GPU may round; wider ones are meant to keep their digits.
_NARROW = (torch.bfloat16, torch.float16)

# R rows (outputs), K columns (inputs)


@dataclass(frozen=True, kw_only=True)
class Float8Matrix:
    """A matrix, or a stack of them, whose row r is `data[..., r, :] * scale[..., r]`."""

    data: Float[Tensor, "... R K"]
    scale: Float[Tensor, "... R"]

    @classmethod
    def of(cls, weight: Float[Tensor, "... R K"]) -> Float8Matrix:
        """Rounds a matrix; the largest magnitude of each row becomes the largest that e4m3 has."""
        largest = weight.float().abs().amax(-1)
        scale = torch.where(largest > 0, largest / _MOST, 1.0)
        return cls(data=(weight.float() / scale[..., None]).to(torch.float8_e4m3fn), scale=scale)

    def dequantised(self, dtype: torch.dtype = torch.float32) -> Float[Tensor, "... R K"]:
        """The matrix that the floats stand for."""
        return (self.data.float() * self.scale[..., None]).to(dtype)

    def part(self, expert: int) -> Float8Matrix:
        """One matrix of a stack."""
        return Float8Matrix(data=self.data[expert], scale=self.scale[expert])

    def to(self, device: torch.device | str) -> Float8Matrix:
        """The same on another device."""
        return Float8Matrix(data=self.data.to(device), scale=self.scale.to(device))


def float8_linear(x: Float[Tensor, "... K"], weight: Float8Matrix) -> Float[Tensor, "... R"]:
    """x @ weight.T; the result has x's dtype."""

    def reference() -> Tensor:
        return F.linear(x, weight.dequantised(x.dtype))

    learning = torch.is_grad_enabled() and x.requires_grad
    if not learning and x.dtype in _NARROW and on_gpu(x, weight.data, weight.scale):

        def fast() -> Tensor:
            from redraft.kernels.triton.dense import dense_float8

            product = dense_float8(x.reshape(-1, x.shape[-1]), weight.data, weight.scale)
            return product.view(*x.shape[:-1], len(weight.data))

        return attempt("dense_float8", fast, reference)
    return reference()
