"""Attention of one sequence's queries over its keys, with grouped heads and scale 1 (q and k are normed)."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

# B batch, T queries, S keys, H query heads, K key-value heads, G = H / K, D head size


def attention(
    q_BTHD: Float[Tensor, "B T H D"],
    k_BKSD: Float[Tensor, "B K S D"],
    v_BKSD: Float[Tensor, "B K S D"],
    mask_BTS: Bool[Tensor, "B T S"] | None = None,
) -> Float[Tensor, "B T H D"]:
    """softmax(q k^T) v; `mask` is True where a query may look, None where it may look everywhere.

    The G query heads of a key-value head become rows of one product, so keys are never repeated.
    """
    B, T, H, D = q_BTHD.shape
    K = k_BKSD.shape[1]
    G = H // K
    q = q_BTHD.view(B, T, K, G, D).permute(0, 2, 3, 1, 4).reshape(B, K, G * T, D)
    mask = None if mask_BTS is None else mask_BTS[:, None, None].expand(B, 1, G, T, -1).reshape(B, 1, G * T, -1)
    out = F.scaled_dot_product_attention(q, k_BKSD, v_BKSD, attn_mask=mask, scale=1.0)
    return out.view(B, K, G, T, D).permute(0, 3, 1, 2, 4).reshape(B, T, H, D)
