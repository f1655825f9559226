"""Rotation by two axes: the first half of a head turns with a patch's column, the second with its row."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from redraft.kernels.norm import rotate

# N patches, H heads, D head size, F = D / 4 frequencies

AxialRotary = tuple[Float[Tensor, "N 1 2 F"], Float[Tensor, "N 1 2 F"]]


def axial_table(places: Int[Tensor, "N 2"], head_dim: int, theta: float, dtype: torch.dtype) -> AxialRotary:
    """(cos, sin) of the angles that each axis turns its pairs by, in radians.

    Args:
        places: (column, row) of each patch.
        head_dim: a multiple of 4.
        theta: base of the frequencies, theta^(-2j / (head_dim / 2)).
        dtype: of the tables, which are computed in float32.

    Source: transformers `Gemma4VisionRotaryEmbedding`.
    """
    half = head_dim // 2
    exponents = torch.arange(0, half, 2, dtype=torch.float32, device=places.device) / half
    angles = places[..., None].float() * (1.0 / theta**exponents)
    return angles.cos().to(dtype)[:, None], angles.sin().to(dtype)[:, None]


def rotate_axial(x_NHD: Float[Tensor, "N H D"], table: AxialRotary) -> Float[Tensor, "N H D"]:
    """Turns the pairs (j, j + D/4) of each half by the angles of its axis.

    Pairs over the whole head, (j, j + D/2), would be the text model's rotation and mix the axes.
    """
    return rotate(x_NHD.unflatten(-1, (2, -1)), table).flatten(-2)
