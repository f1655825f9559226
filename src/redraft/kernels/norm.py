"""Root-mean-square norm in float32, whatever the dtype that comes in."""

from __future__ import annotations

from types import ModuleType

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from redraft.kernels.native.call import KINDS, call, expect, runs_natively
from redraft.kernels.triton.fallback import attempt, on_gpu

# Runs of rows whose weight gradients are summed apart.
_PARTS = 16


def rms_norm(x: Float[Tensor, "... D"], weight: Float[Tensor, "D"] | None, eps: float) -> Float[Tensor, "... D"]:
    """x / sqrt(mean(x^2) + eps), times `weight` as stored (no + 1).

    Source: transformers `DiffusionGemmaRMSNorm`.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        if x.device.type != "cpu":
            # One kernel each way.
            return F.rms_norm(x, x.shape[-1:], weight, eps)
        return _RmsNorm.apply(x, weight, eps)  # type: ignore[no-any-return]
    if runs_natively("rows", x, *(() if weight is None else (weight,))):
        out = torch.empty_like(x)
        _native(x, weight, eps, out, None)
        return out
    if _on_gpu_without_gradients(x, *(() if weight is None else (weight,))):
        return attempt(
            "rms_norm", lambda: _fast().rms_norm_triton(x, weight, eps), lambda: _forward(x, weight, eps)[0], x.dtype
        )
    return _forward(x, weight, eps)[0]


def norm_add(
    x: Float[Tensor, "... D"],
    weight: Float[Tensor, "D"],
    residual: Float[Tensor, "... D"],
    scalar: Float[Tensor, "1"] | None,
    eps: float,
) -> Float[Tensor, "... D"]:
    """(residual + rms_norm(x)) * scalar: how a block of a layer ends, and with the layer's scalar the layer itself."""

    def reference() -> Tensor:
        result = residual + rms_norm(x, weight, eps)
        return result if scalar is None else result * scalar

    if _on_gpu_without_gradients(x, weight, residual):
        return attempt(
            "norm_add", lambda: _fast().norm_add_triton(x, weight, residual, scalar, eps), reference, x.dtype
        )
    if residual.dtype == x.dtype and runs_natively("rows", x, weight, residual):
        out, by = torch.empty_like(x), None if scalar is None else scalar.float()
        expect("the residual", residual, *x.shape)
        expect("the norm's weight", weight, x.shape[-1])
        shape = x.numel() // x.shape[-1], x.shape[-1]
        call("rows", "norm_add", x, KINDS[x.dtype], weight.float(), *shape, eps, residual, by, out)
        return out
    return reference()


def norm_heads(
    q_BTHD: Float[Tensor, "B T H D"],
    k_BTKD: Float[Tensor, "B T K D"],
    v_BTKD: Float[Tensor, "B T K D"],
    weights: tuple[Float[Tensor, "D"], Float[Tensor, "D"]],
    table: tuple[Float[Tensor, "B T 1 F"], Float[Tensor, "B T 1 F"]],
    eps: float,
) -> tuple[Float[Tensor, "B T H D"], Float[Tensor, "B T K D"], Float[Tensor, "B T K D"]]:
    """Queries and keys, normed and rotated, and values, normed without weight.

    Args:
        q_BTHD: as projected.
        k_BTKD: as projected.
        v_BTKD: as projected, or `k_BTKD` in layers that share them.
        weights: of the norms of queries and of keys.
        table: (cos, sin) of each position's F = D / 2 pairs (i, i + F).
        eps: of the norms.
    """

    def reference() -> tuple[Tensor, Tensor, Tensor]:
        q, k = (rms_norm(x, weight, eps) for x, weight in zip((q_BTHD, k_BTKD), weights, strict=True))
        return rotate(q, table), rotate(k, table), rms_norm(v_BTKD, None, eps)

    if _on_gpu_without_gradients(q_BTHD, k_BTKD, v_BTKD, *weights) and q_BTHD.shape[-1].bit_count() == 1:
        given = (q_BTHD, k_BTKD, v_BTKD, weights, table, eps)
        return attempt("norm_heads", lambda: _fast().norm_heads_triton(*given), reference, given[0].dtype)
    same = all(x.dtype == q_BTHD.dtype for x in (k_BTKD, v_BTKD, *table))
    if same and runs_natively("rows", q_BTHD, k_BTKD, v_BTKD, *weights, *table):
        q, k = (_heads(x, weight, table, eps) for x, weight in zip((q_BTHD, k_BTKD), weights, strict=True))
        return q, k, _heads(v_BTKD, None, None, eps)
    return reference()


def _heads(x: Tensor, weight: Tensor | None, table: tuple[Tensor, Tensor] | None, eps: float) -> Tensor:
    B, T, H, D = x.shape
    out, weight = torch.empty_like(x), None if weight is None else weight.float()
    cos, sin = table or (None, None)
    for angles in (cos, sin):
        expect("the table of angles", angles, B, T, 1, D // 2)
    expect("the norm's weight", weight, D)
    call("rows", "norm_heads", x, KINDS[x.dtype], weight, B * T, H, D, cos, sin, eps, out)
    return out


def rotate(
    x_BTHD: Float[Tensor, "B T H D"], table: tuple[Float[Tensor, "B T 1 F"], Float[Tensor, "B T 1 F"]]
) -> Float[Tensor, "B T H D"]:
    """Turns each pair (i, i + D/2) by its angle."""
    cos, sin = table
    first, second = x_BTHD.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def _fast() -> ModuleType:
    from redraft.kernels.triton import norm

    return norm


def _on_gpu_without_gradients(*tensors: Tensor) -> bool:
    return on_gpu(*tensors) and not (torch.is_grad_enabled() and any(x.requires_grad for x in tensors))


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
    expect("the norm's weight", weight, D)
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
    expect("the norm's weight", weight, D)
    expect("the norm's gradient", grad := grad.contiguous(), *x.shape)
    expect("the norm's inverse", inverse, *x.shape[:-1], 1)
    call("rows", "rms_norm_backward", x, weight, inverse, grad, inverse.numel(), D, grad_x, sums, _PARTS)
    return grad_x, None if sums is None else sums.sum(0)
