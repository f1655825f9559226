"""Weighted cross entropy straight from hidden states: logits live one tile of rows at a time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from redraft.kernels.matrices.int8 import Int8Matrix
from redraft.kernels.widened import tiles

TILE_ROWS = 256
# On an accelerator, where a tile must keep the whole device busy; 200 MB of logits at 6,144 tokens.
_WIDE_TILE_ROWS = 8192

# N rows, V vocabulary, D hidden


def weighted_cross_entropy(
    hidden_ND: Float[Tensor, "N D"],
    embedding_VD: Float[Tensor, "V D"] | Int8Matrix,
    targets_N: Int[Tensor, "N"],
    weight_N: Float[Tensor, "N"],
    cap: float,
) -> tuple[Float[Tensor, ""], Float[Tensor, "N"]]:
    """(sum of weight * cross entropy, cross entropy of each row in nats without gradient).

    An embedding that is frozen or int8 gets no gradient, and no room for one; int8 is widened a tile at a time.

    Gradients of both inputs are made in the forward pass, tile by tile, while the logits are in cache; the backward
    pass only scales them. Rows of weight 0 cost as much as others: leave them out.
    """
    learns = isinstance(embedding_VD, Tensor) and embedding_VD.requires_grad
    kernel = _WeightedCrossEntropy if learns else _OfFrozenHead
    return kernel.apply(hidden_ND, embedding_VD, targets_N, weight_N, cap)  # type: ignore[return-value]


def _tile_rows(hidden: Tensor) -> int:
    return TILE_ROWS if hidden.device.type == "cpu" else _WIDE_TILE_ROWS


def _losses(logits: Tensor, targets: Tensor, weight: Tensor, cap: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(cross entropy of each row, its gradient by the raw logits in `dtype`); `logits` are raw, and spent."""
    logits = logits.float().div_(cap).tanh_().mul_(cap)
    normaliser = logits.logsumexp(-1)
    losses = normaliser - logits.gather(1, targets[:, None])[:, 0]
    grad = (logits - normaliser[:, None]).exp_()
    grad.scatter_add_(1, targets[:, None], torch.full_like(normaliser, -1.0)[:, None])
    # d softcap = 1 - tanh^2
    grad.mul_(weight[:, None]).mul_(logits.div_(cap).square_().neg_().add_(1))
    return losses, grad.to(dtype)


class _WeightedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, embedding, targets, weight, cap):  # type: ignore[override]
        losses = []
        grad_hidden = torch.empty_like(hidden)
        # In float32 whatever comes in: narrower sums would lose most of what later tiles add.
        grad_embedding = torch.zeros_like(embedding, dtype=torch.float32)
        for first in range(0, hidden.shape[0], _tile_rows(hidden)):
            tile = slice(first, first + _tile_rows(hidden))
            logits = F.linear(hidden[tile], embedding)
            loss, grad = _losses(logits, targets[tile], weight[tile], cap, hidden.dtype)
            losses.append(loss)
            torch.mm(grad, embedding, out=grad_hidden[tile])
            if grad.dtype == torch.float32:
                grad_embedding.addmm_(grad.T, hidden[tile])
            else:
                grad_embedding.add_(grad.T @ hidden[tile])
        ctx.save_for_backward(grad_hidden, grad_embedding.to(embedding.dtype))
        loss = torch.cat(losses)
        ctx.mark_non_differentiable(loss)
        return (loss * weight).sum(), loss

    @staticmethod
    def backward(ctx, grad_loss, _):  # type: ignore[override]
        grad_hidden, grad_embedding = ctx.saved_tensors
        return grad_hidden * grad_loss, grad_embedding * grad_loss, None, None, None


class _OfFrozenHead(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, embedding, targets, weight, cap):  # type: ignore[override]
        losses = []
        grad_hidden = torch.empty_like(hidden)
        for first in range(0, hidden.shape[0], _tile_rows(hidden)):
            tile = slice(first, first + _tile_rows(hidden))
            parts = [F.linear(hidden[tile], part) for _, part in tiles(embedding, hidden.dtype)]
            logits = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
            loss, grad = _losses(logits, targets[tile], weight[tile], cap, hidden.dtype)
            losses.append(loss)
            into = torch.zeros(len(grad), hidden.shape[1], dtype=torch.float32, device=hidden.device)
            for rows, part in tiles(embedding, hidden.dtype):
                into.add_(grad[:, rows] @ part)
            grad_hidden[tile] = into.to(hidden.dtype)
        ctx.save_for_backward(grad_hidden)
        loss = torch.cat(losses)
        ctx.mark_non_differentiable(loss)
        return (loss * weight).sum(), loss

    @staticmethod
    def backward(ctx, grad_loss, _):  # type: ignore[override]
        (grad_hidden,) = ctx.saved_tensors
        return grad_hidden * grad_loss, None, None, None, None
