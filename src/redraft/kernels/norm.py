"""Root-mean-square norm in float32, whatever the dtype that comes in."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from redraft.kernels.native.call import KINDS, call, runs_natively


def rms_norm(x: Float[Tensor, "... D"], weight: Float[Tensor, "D"] | None, eps: float) -> Float[Tensor, "... D"]:
    """x / sqrt(mean(x^2) + eps), times `weight` as stored (no + 1).

    Source: transformers `DiffusionGemmaRMSNorm`.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        return _RmsNorm.apply(x, weight, eps)  # type: ignore[no-any-return]
    if runs_natively("rows", x, *(() if weight is None else (weight,))):
        out = torch.empty_like(x)
        scale = None if weight is None else weight.float().contiguous()
        call("rows", "rms_norm", x, KINDS[x.dtype], scale, x.numel() // x.shape[-1], x.shape[-1], eps, out)
        return out
    return _forward(x, weight, eps)[0]


def _forward(x: Tensor, weight: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    wide = x.float()
    inverse = torch.pow(wide.square().mean(-1, keepdim=True) + eps, -0.5)
    out = wide * inverse
    if weight is not None:
        out = out * weight.float()
    return out.to(x.dtype), inverse


class _RmsNorm(torch.autograd.Function):
    """The same with a hand-written backward: autograd's own keeps and revisits every intermediate, which costs
    more than the matrix product beside it at the widths we train."""

    @staticmethod
    def forward(ctx, x, weight, eps):  # type: ignore[override]
        out, inverse = _forward(x, weight, eps)
        ctx.save_for_backward(x, weight, inverse)
        return out

    @staticmethod
    def backward(ctx, grad):  # type: ignore[override]
        x, weight, inverse = ctx.saved_tensors
        normed = x.float() * inverse
        grad = grad.float()
        grad_weight = None
        if weight is not None:
            if ctx.needs_input_grad[1]:
                grad_weight = (grad * normed).flatten(0, -2).sum(0).to(weight.dtype)
            grad = grad * weight.float()
        projection = (grad * normed).mean(-1, keepdim=True)
        grad_x = torch.addcmul(grad, normed, projection, value=-1).mul_(inverse)
        return grad_x.to(x.dtype), grad_weight, None
