"""Float8 matrices (e4m3, one scale a row): half the bytes of bfloat16. The products run in the activations' own dtype."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

_MOST = torch.finfo(torch.float8_e4m3fn).max


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

    def rows(self, index: Int[Tensor, "..."], dtype: torch.dtype) -> Float[Tensor, "... K"]:
        """Some of its rows."""
        # Indexing of float8 is not everywhere; that of bytes is.
        data = F.embedding(index, self.data.view(torch.uint8)).view(torch.float8_e4m3fn)
        return (data.float() * self.scale[index][..., None]).to(dtype)
