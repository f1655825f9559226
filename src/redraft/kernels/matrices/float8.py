"""Float8 matrices (e4m3, one scale a row): half of bfloat16's bytes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_MOST = torch.finfo(torch.float8_e4m3fn).max

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
