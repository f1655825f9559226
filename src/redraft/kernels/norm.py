"""Root-mean-square norm in float32, whatever the dtype that comes in."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from redraft.kernels.native.call import KINDS, call, runs_natively

# Runs of rows whose weight gradients are summed apart.
_PARTS = 16


def rms_norm(x: Float[Tensor, "... D"], weight: Float[Tensor, "D"] | None, eps: float) -> Float[Tensor, "... D"]:
    """x / sqrt(mean(x^2) + eps), times `weight` as stored (no + 1).

    Source: transformers `DiffusionGemmaRMSNorm`.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        return _RmsNorm.apply(x, weight, eps)  # type: ignore[no-any-return]
    if runs_natively("rows", x, *(() if weight is None else (weight,))):
        out = torch.empty_like(x)
        _native(x, weight, eps, out, None)
        return out
    return _forward(x, weight, eps)[0]


def _forward(x: Tensor, weight: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """(normed, 1 / root mean square), the definition."""
    wide = x.float()
    inverse = torch.pow(wide.square().mean(-1, keepdim=True) + eps, -0.5)
    out = wide * inverse
    if weight is not None:
        out = out * weight.float()
    return out.to(x.dtype), inverse


def _native_forward(x: Tensor, weight: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    out, inverse = torch.empty_like(x), torch.empty(*x.shape[:-1], 1)
    _native(x, None if weight is None else weight.detach(), eps, out, inverse)
    return out, inverse


def _native(x: Tensor, weight: Tensor | None, eps: float, out: Tensor, inverse: Tensor | None) -> None:
    if weight is not None and weight.dtype != torch.float32:
        weight = weight.float()
    D = x.shape[-1]
    call("rows", "rms_norm", x, KINDS[x.dtype], weight, x.numel() // D, D, eps, out, inverse)


class _RmsNorm(torch.autograd.Function):
    """The same with a hand-written backward: autograd's own keeps and revisits every intermediate, which costs
    more than the matrix product beside it at the widths we train."""

    @staticmethod
    def forward(ctx, x, weight, eps):  # type: ignore[override]
        ctx.native = x.dtype == torch.float32 and runs_natively("rows", x.detach())
        out, inverse = (_native_forward if ctx.native else _forward)(x, weight, eps)
        ctx.save_for_backward(x, weight, inverse)
        return out

    @staticmethod
    def backward(ctx, grad):  # type: ignore[override]
        x, weight, inverse = ctx.saved_tensors
        wants_weight = weight is not None and ctx.needs_input_grad[1]
        backward = _native_backward if ctx.native else _backward
        return (*backward(x, weight, inverse, grad, wants_weight), None)


def _backward(
    x: Tensor, weight: Tensor | None, inverse: Tensor, grad: Tensor, wants_weight: bool
) -> tuple[Tensor, Tensor | None]:
    normed = x.float() * inverse
    grad, grad_weight = grad.float(), None
    if weight is not None:
        if wants_weight:
            grad_weight = (grad * normed).flatten(0, -2).sum(0).to(weight.dtype)
        grad = grad * weight.float()
    projection = (grad * normed).mean(-1, keepdim=True)
    return torch.addcmul(grad, normed, projection, value=-1).mul_(inverse).to(x.dtype), grad_weight


def _native_backward(
    x: Tensor, weight: Tensor | None, inverse: Tensor, grad: Tensor, wants_weight: bool
) -> tuple[Tensor, Tensor | None]:
    grad_x, D = torch.empty_like(x), x.shape[-1]
    sums = torch.zeros(_PARTS, D) if wants_weight else None
    call("rows", "rms_norm_backward", x, weight, inverse, grad.contiguous(), inverse.numel(), D, grad_x, sums, _PARTS)
    return grad_x, None if sums is None else sums.sum(0)
