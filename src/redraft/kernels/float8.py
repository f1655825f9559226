"""Products of float8 matrices, in the activations' own dtype; GPUs that multiply e4m3 round activations to it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from redraft.kernels.matrices.float8 import Float8Matrix
from redraft.kernels.triton.fallback import attempt, on_gpu

# Activations that a GPU may round; wider ones are meant to keep their digits.
_NARROW = (torch.bfloat16, torch.float16)


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
