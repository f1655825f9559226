"""From a stored tensor to a matrix in one of the forms we multiply by; a stack of experts one at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from redraft.checkpoint.stored import StoredTensor
from redraft.kernels.matrices import Matrix
from redraft.kernels.matrices.float8 import Float8Matrix
from redraft.kernels.matrices.int4 import BYTES, COLUMNS, ROWS, Int4Matrix, quantise_int4
from redraft.kernels.matrices.int8 import Int8Matrix

Form = Literal["int4", "int8", "fp8"]
_MATRICES: dict[str, type[Matrix]] = {"int4": Int4Matrix, "int8": Int8Matrix, "fp8": Float8Matrix}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What the matrices of a model are rounded to. Norms, scalars and the router stay as they are: the router is 0.04%
    of the weights, and a choice of experts that flips changes everything after it.

    Attributes:
        experts: their form; those whose shape does not divide into int4 blocks are int8 instead.
        rest: of attention, the dense MLP and self-conditioning. The embedding is int8 in either case.
    """

    experts: Form
    rest: Literal["int8", "fp8"]

    def form_of(self, shapes: Mapping[str, tuple[int, ...]], parameter: str) -> Form | None:
        """The form of one of the backbone's parameters, given the shapes of all; None for what is not rounded."""
        module, _, name = parameter.rpartition(".")
        if ".router." in parameter or len(shapes[parameter]) < 2:
            return None
        if name not in ("gate_up_proj", "down_proj"):
            return "int8" if parameter == "embed_tokens.weight" else self.rest
        stacks = (shapes[f"{module}.gate_up_proj"], shapes[f"{module}.down_proj"])
        return "int8" if self.experts == "int4" and not all(map(Int4Matrix.fits, stacks)) else self.experts


RECIPES = {
    "int8": Recipe(experts="int8", rest="int8"),
    "int4": Recipe(experts="int4", rest="int8"),
    "fp8": Recipe(experts="fp8", rest="fp8"),
}


def rounded(tensor: StoredTensor, form: Form, importance: Tensor | None = None) -> Matrix:
    """The tensor's matrix in this form; as it lies in its file where that is the form it has.

    Args:
        tensor: [R, K] or [E, R, K].
        form: to round to.
        importance: [K] or [E, K] for int4, see `quantise_int4`.
    """
    if tensor.matrix is not None and tensor.form == form:
        return tensor.matrix()
    if len(tensor.shape) == 2:
        if form == "int4":
            raise ValueError(f"{tensor.name}: int4 is for experts")
        return _MATRICES[form].of(tensor.read().float())  # type: ignore[union-attr]
    parts = (tensor.read(e).float() for e in range(tensor.shape[0]))
    if form == "int4":
        made = [quantise_int4(w, None if importance is None else importance[e]) for e, w in enumerate(parts)]
        data, scale, row_scale = (torch.stack(parts) for parts in zip(*made, strict=True))
        return Int4Matrix(data=data, scale=scale, row_scale=row_scale)
    matrices = [_MATRICES[form].of(part) for part in parts]  # type: ignore[union-attr]
    return _MATRICES[form](  # type: ignore[call-arg]
        data=torch.stack([m.data for m in matrices]), scale=torch.stack([m.scale for m in matrices])
    )


def rounded_bytes(shape: tuple[int, ...], form: Form) -> int:
    """What a matrix, or a stack of them, takes in a form: codes, scales, and a float32 for each row."""
    count = math.prod(shape)
    codes = count // (ROWS * COLUMNS) * (BYTES + ROWS) if form == "int4" else count
    return codes + 4 * (count // shape[-1])
