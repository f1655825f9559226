"""One tensor of a checkpoint, whatever form its file holds it in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from redraft.kernels.matrices import Matrix


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """A tensor under its Hugging Face name, read when it is asked for.

    Attributes:
        name: as transformers calls it, such as "model.decoder.layers.0.experts.gate_up_proj".
        shape: as the model has it: [rows, columns], experts stacked as [experts, rows, columns].
        form: how it is stored: "bfloat16", "float8_e4m3fn", "nvfp4", "int4", "Q4_K".
        nbytes: what it takes in its files, scales included.
        files: names in the files that it is made from.
        load: (None) -> the whole tensor in floating point; (e) -> its part e along the first dimension, without
            reading the others where the form allows it.
        matrix: where the form is one that we multiply by, that matrix as it is stored, mapped from its file.
    """

    name: str
    shape: tuple[int, ...]
    form: str
    nbytes: int
    files: tuple[str, ...]
    load: Callable[[int | None], Tensor]
    matrix: Callable[[], Matrix] | None = None

    def read(self, part: int | None = None) -> Tensor:
        """The tensor in floating point, or one part along its first dimension."""
        return self.load(part)
