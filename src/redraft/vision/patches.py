"""From pixels to patches, bit for bit as the reference's processor makes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from redraft.vision.config import VisionConfig
from redraft.vision.size import check_budget, grid_of

# H, W height and width in pixels, p side of a patch, N patches


@dataclass(frozen=True, kw_only=True, eq=False)
class Patches:
    """One picture, cut into squares.

    Attributes:
        values: [N, p * p * 3] float32 in 0..1, patches in row-major order; in each its pixels, row by row, each with
            red, green and blue side by side.
        rows, columns: of the grid, in patches.
        pooling: side of the square of patches that becomes one soft token; rows and columns are multiples of it.
    """

    values: Float[Tensor, "N P"]
    rows: int
    columns: int
    pooling: int

    @property
    def soft_tokens(self) -> int:
        """How many soft tokens it becomes."""
        return self.rows * self.columns // self.pooling**2

    @property
    def places(self) -> Int[Tensor, "N 2"]:
        """(column, row) of each patch."""
        rows, columns = torch.meshgrid(torch.arange(self.rows), torch.arange(self.columns), indexing="ij")
        return torch.stack([columns, rows], dim=-1).flatten(0, 1)


def patches_of(pixels: UInt8[np.ndarray, "H W 3"], config: VisionConfig, image_tokens: int) -> Patches:
    """The patches of a picture, brought to the size that fills its budget.

    Args:
        pixels: red, green and blue.
        config: of the tower that they are for.
        image_tokens: the most soft tokens that it may become, one of `BUDGETS`.

    Raises:
        OptionError: another budget.

    Source: transformers `Gemma4ImageProcessor`, the form that runs on torchvision.
    """
    return cut(brought_to_size(pixels, config, image_tokens), config)


def brought_to_size(
    pixels: UInt8[np.ndarray, "H W 3"], config: VisionConfig, image_tokens: int
) -> UInt8[np.ndarray, "3 H W"]:
    """A picture at the size that fills its budget: all that its soft tokens depend on.

    Args:
        pixels, config, image_tokens: see `patches_of`.

    Raises:
        OptionError: no such budget.
        ImageError: more patches along a side than the checkpoint knows places.
    """
    height, width = pixels.shape[:2]
    rows, columns = grid_of(height, width, check_budget(image_tokens), config.unit)
    config.check_side(max(rows, columns) * config.pooling_kernel_size)
    return _resized(pixels, rows * config.unit, columns * config.unit).numpy()


def cut(resized: UInt8[np.ndarray, "3 H W"], config: VisionConfig) -> Patches:
    """The patches of a picture that `brought_to_size` made."""
    p, k = config.patch_size, config.pooling_kernel_size
    rows, columns = resized.shape[1] // p, resized.shape[2] // p
    # Times the reciprocal, not divided: the two differ in the last bit.
    scaled = torch.from_numpy(resized).to(torch.float32) * (1 / 255)
    squares = scaled.view(3, rows, p, columns, p).permute(1, 3, 2, 4, 0)
    return Patches(values=squares.reshape(rows * columns, -1), rows=rows, columns=columns, pooling=k)


def _resized(pixels: UInt8[np.ndarray, "H W 3"], height: int, width: int) -> UInt8[Tensor, "3 H W"]:
    """Bicubic with antialias on whole numbers.

    They saturate between the pass along rows and the one along columns, so float arithmetic is not the same: at hard
    edges it is off by up to 24 of 255.
    """
    image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1).contiguous()
    if image.shape[1:] == (height, width):
        return image
    return torch.nn.functional.interpolate(image[None], size=(height, width), mode="bicubic", antialias=True)[0]
