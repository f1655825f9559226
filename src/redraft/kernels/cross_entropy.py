"""Weighted cross entropy straight from hidden states: logits live one tile of rows at a time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

TILE_ROWS = 256
# On an accelerator, where a tile must keep the whole device busy; 200 MB of logits at 6,144 tokens.
_WIDE_TILE_ROWS = 8192

# N rows, V vocabulary, D hidden


def weighted_cross_entropy(
    hidden_ND: Float[Tensor, "N D"],
    embedding_VD: Float[Tensor, "V D"],
    targets_N: Int[Tensor, "N"],
    weight_N: Float[Tensor, "N"],
    cap: float,
) -> tuple[Float[Tensor, ""], Float[Tensor, "N"]]:
    """(sum of weight * cross entropy, cross entropy of each row in nats without gradient).

    Gradients of both inputs are made in the forward pass, tile by tile, while the logits are in cache; the backward
    pass only scales them. Rows of weight 0 cost as much as others: leave them out.
    """
    return _WeightedCrossEntropy.apply(hidden_ND, embedding_VD, targets_N, weight_N, cap)  # type: ignore[return-value]


class _WeightedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, embedding, targets, weight, cap):  # type: ignore[override]
        losses = []
        grad_hidden = torch.empty_like(hidden)
        # In float32 whatever comes in: narrower sums would lose most of what later tiles add.
        grad_embedding = torch.zeros_like(embedding, dtype=torch.float32)
        tile_rows = TILE_ROWS if hidden.device.type == "cpu" else _WIDE_TILE_ROWS
        for first in range(0, hidden.shape[0], tile_rows):
            tile = slice(first, first + tile_rows)
            logits = F.linear(hidden[tile], embedding).float().div_(cap).tanh_().mul_(cap)
            normaliser = logits.logsumexp(-1)
            losses.append(normaliser - logits.gather(1, targets[tile, None])[:, 0])
            grad = (logits - normaliser[:, None]).exp_()
            grad.scatter_add_(1, targets[tile, None], torch.full_like(normaliser, -1.0)[:, None])
            # d softcap = 1 - tanh^2
            grad.mul_(weight[tile, None]).mul_(logits.div_(cap).square_().neg_().add_(1))
            grad = grad.to(hidden.dtype)
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
