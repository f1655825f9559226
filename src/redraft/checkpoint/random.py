"""A checkpoint of random weights that is made tensor by tensor as it is read, in whatever form is asked for: a model of
any size is written without ever being in memory."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import torch
from torch import Tensor

from redraft.checkpoint.layout import quantization_config
from redraft.checkpoint.names import names_for
from redraft.checkpoint.rounding import RECIPES
from redraft.checkpoint.source import Source
from redraft.checkpoint.stored import StoredTensor
from redraft.kernels.matrices import Matrix
from redraft.kernels.matrices.int4 import BYTES, COLUMNS, ROWS, Int4Matrix
from redraft.kernels.matrices.int8 import Int8Matrix
from redraft.model.config import ModelConfig
from redraft.model.model import shapes_of

# The root mean square of integers that are drawn evenly from -8..7 and from -127..127.
_INT4_SIZE, _INT8_SIZE = math.sqrt(21.5), math.sqrt(127 * 128 / 3)
# Scale bytes that are drawn: 1 to 31/16, whose mean square is about this.
_CODES, _CODE_SIZE = (0x70, 0x80), 1.47


def random_source(config: ModelConfig, name: str, seed: int = 0) -> Source:
    """Random weights of a shape, the same for the same seed: int4 experts, int8 matrices, the rest in float32.

    Matrices have a root mean square of 1 / sqrt(columns), so that what comes out is of the size of what goes in.
    """
    shapes, names = shapes_of(config), names_for(config)
    recipe = RECIPES["int4"]
    tensors = {}
    for parameter, shape in shapes.items():
        form = recipe.form_of(shapes, parameter)
        stored = _stored(names.of(parameter), shape, form, seed)
        tensors[stored.name] = stored
    return Source(
        path=Path(f"{name} (random)"),
        config=config,
        raw=config.raw | {"quantization_config": quantization_config(recipe.experts, recipe.rest)},
        tensors=tensors,
        names=names,
        quantised=True,
        entries={},
    )


def _stored(name: str, shape: tuple[int, ...], form: str | None, seed: int) -> StoredTensor:
    def generator() -> torch.Generator:
        digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)

    def matrix() -> Matrix:
        return _int4(shape, generator()) if form == "int4" else _int8(shape, generator())

    def load(part: int | None) -> Tensor:
        if form is None:
            return _plain(name, shape, generator())
        made = matrix()
        if isinstance(made, Int4Matrix):
            return made.all_dequantised() if part is None else made.dequantised(part)
        whole = made.dequantised()
        return whole if part is None else whole[part]

    return StoredTensor(
        name=name,
        shape=shape,
        form=form or "float32",
        nbytes=4 * math.prod(shape),
        files=(name,),
        load=load,
        matrix=None if form is None else matrix,
    )


def _int4(shape: tuple[int, ...], generator: torch.Generator) -> Int4Matrix:
    E, R, K = shape
    blocks = (E, R // ROWS, K // COLUMNS)
    return Int4Matrix(
        data=torch.empty(*blocks, BYTES, dtype=torch.uint8).random_(generator=generator),
        scale=torch.randint(*_CODES, (*blocks, ROWS), generator=generator, dtype=torch.uint8),
        row_scale=torch.full((E, R), K**-0.5 / (_INT4_SIZE * _CODE_SIZE)),
    )


def _int8(shape: tuple[int, ...], generator: torch.Generator) -> Int8Matrix:
    data = torch.empty(shape, dtype=torch.int8).random_(-127, 128, generator=generator)
    return Int8Matrix(data=data, scale=torch.full(shape[:-1], shape[-1] ** -0.5 / _INT8_SIZE))


def _plain(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """As `initialise` has it: attention starts saturated unless its norms start small."""
    if name.endswith(("q_norm.weight", "k_norm.weight")):
        return torch.full(shape, shape[0] ** -0.25)
    if len(shape) == 1:
        return torch.ones(shape)
    return torch.randn(shape, generator=generator) * shape[-1] ** -0.5
