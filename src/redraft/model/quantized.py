"""The modules of a model whose weights are int8, and the function that puts them in place."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from redraft.kernels.experts import experts_int8
from redraft.kernels.int8 import Int8Matrix, PackedInt8, int8_linear
from redraft.model.backbone import Backbone
from redraft.model.feedforward import Experts, Router


class Int8Linear(nn.Module):
    """A bias-free linear layer with int8 weights; activations are quantised as they come."""

    def __init__(self, weight: Float[Tensor, "O I"]) -> None:
        super().__init__()
        self.packed = PackedInt8.of(Int8Matrix.of(weight))

    def forward(self, x: Float[Tensor, "... I"]) -> Float[Tensor, "... O"]:
        return int8_linear(x, self.packed)


class Int8Experts(nn.Module):
    """All experts of a layer in int8."""

    def __init__(self, gate_up: Float[Tensor, "E 2I D"], down: Float[Tensor, "E D I"]) -> None:
        super().__init__()
        self.gate_up = [PackedInt8.of(Int8Matrix.of(weight)) for weight in gate_up]
        self.down = [PackedInt8.of(Int8Matrix.of(weight)) for weight in down]

    def forward(
        self, x: Float[Tensor, "N D"], index: Int[Tensor, "N A"], weight: Float[Tensor, "N A"]
    ) -> Float[Tensor, "N D"]:
        return experts_int8(x, index, weight, self.gate_up, self.down)


class Int8Embedding(nn.Module):
    """The embedding, which is also the head, in int8 with one scale a token."""

    def __init__(self, weight: Float[Tensor, "V D"]) -> None:
        super().__init__()
        self.matrix = Int8Matrix.of(weight)
        self.dtype = weight.dtype

    def forward(self, token_ids: Int[Tensor, "..."]) -> Float[Tensor, "... D"]:
        return self.matrix.rows(token_ids, self.dtype)


@torch.no_grad()
def quantize_int8(backbone: Backbone) -> None:
    """Replaces a backbone's matrices by int8 ones, module by module; norms, scalars and the router stay as they are.

    The router is 0.04% of the weights, and a choice of experts that flips changes everything after it.
    """
    backbone.embed_tokens = Int8Embedding(backbone.embed_tokens.weight)  # type: ignore[assignment]
    for module in list(backbone.modules()):
        if isinstance(module, Router):
            continue
        for name, child in list(module.named_children()):
            if isinstance(child, Experts):
                setattr(module, name, Int8Experts(child.gate_up_proj, child.down_proj))
            elif isinstance(child, nn.Linear):
                setattr(module, name, Int8Linear(child.weight))
