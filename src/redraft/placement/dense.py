"""Linear layers that read the same rows, as one matrix for a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from redraft.kernels.int8 import PackedInt8
from redraft.kernels.matrices.float8 import Float8Matrix
from redraft.model.feedforward import Linear
from redraft.placement.quantized import Float8Linear, Int8Linear

if TYPE_CHECKING:
    from redraft.kernels.triton.dense import Operands
    from redraft.kernels.triton.rows import Rows

# M rows of activations, K columns, R rows of all matrices, P parts


class UnfitError(Exception):
    """Modules that do not go into one product."""


@dataclass(frozen=True, kw_only=True)
class Dense:
    """The matrices of some linear layers below each other; the layers themselves go on as parts of it.

    Attributes:
        weight: int8, e4m3, or floats, which torch multiplies.
        scale: of each row of 8 bits.
        operands: what is multiplied; None for floats.
        rounded: what activations are rounded to before; None for none.
    """

    weight: Tensor
    scale: Float[Tensor, "R"] | None = None
    operands: Operands | None = None
    rounded: torch.dtype | None = None

    @classmethod
    def of(cls, modules: Sequence[nn.Module], operands: Operands | None = None) -> Dense:
        """Joins layers of one form.

        Args:
            modules: linear layers with the same columns.
            operands: how e4m3 is multiplied, else by the GPU.

        Raises:
            UnfitError: they are of several forms, or of one that has no such product.
        """
        kinds = {type(module) for module in modules}
        if kinds == {Linear}:
            return cls(weight=_joined_floats(modules))  # type: ignore[arg-type]
        # Triton is imported where there is a GPU to run it.
        from redraft.kernels.triton.dense import ROUNDED, float8_operands

        if kinds == {Float8Linear}:
            weight, scale = _joined_float8(modules)  # type: ignore[arg-type]
            chosen = operands or float8_operands(weight.device)
        elif kinds == {Int8Linear} and all(module.packed.layout == "plain" for module in modules):  # type: ignore[union-attr]
            weight, scale = _joined_int8(modules)  # type: ignore[arg-type]
            chosen = "int8"
        else:
            raise UnfitError(f"no joint product of {', '.join(sorted(kind.__name__ for kind in kinds))}")
        return cls(weight=weight, scale=scale, operands=chosen, rounded=ROUNDED[chosen])

    def product(self, rows: Rows, dtype: torch.dtype) -> Float[Tensor, "M R"]:
        """rows @ weight^T, in the dtype of activations."""
        if self.scale is None:
            return F.linear(rows.values, self.weight)
        from redraft.kernels.triton.dense import dense_product

        assert self.operands is not None
        return dense_product(rows, self.weight, self.scale, self.operands, dtype)

    def parts(self, rows: Rows, dtype: torch.dtype) -> Float[Tensor, "P M R"]:
        """The same as parts that are to be added."""
        if self.scale is None:
            return F.linear(rows.values, self.weight)[None]
        from redraft.kernels.triton.dense import dense_parts

        assert self.operands is not None
        return dense_parts(rows, self.weight, self.scale, self.operands, dtype)


def _joined_floats(modules: Sequence[nn.Linear]) -> Tensor:
    if len(modules) == 1:
        return modules[0].weight.detach()
    weight = torch.cat([module.weight.detach() for module in modules])
    for module, part in zip(modules, weight.split([module.out_features for module in modules]), strict=True):
        module.weight.data = part
    return weight


def _joined_float8(modules: Sequence[Float8Linear]) -> tuple[Tensor, Tensor]:
    weight, scale, parts = _joined([(module.matrix.data, module.matrix.scale) for module in modules])
    for module, (data, own) in zip(modules, parts, strict=True):
        module.matrix = Float8Matrix(data=data, scale=own)
    return weight, scale


def _joined_int8(modules: Sequence[Int8Linear]) -> tuple[Tensor, Tensor]:
    weight, scale, parts = _joined([(module.packed.data, module.packed.scale) for module in modules])
    for module, (data, own) in zip(modules, parts, strict=True):
        module.packed = PackedInt8(data=data, scale=own, columns=module.packed.columns, layout="plain")
    return weight, scale


def _joined(matrices: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
    """(data, scales, both of each matrix as views of them)."""
    sizes = [len(scale) for _, scale in matrices]
    # Bytes: torch does not join e4m3 everywhere.
    kind = matrices[0][0].dtype
    data = torch.cat([data.view(torch.uint8) for data, _ in matrices]).view(kind)
    scale = torch.cat([scale.float() for _, scale in matrices])
    return data, scale, list(zip(data.split(sizes), scale.split(sizes), strict=True))
