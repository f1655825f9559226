"""The nucleus bound of the causal mode."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def nucleus(probabilities: Float[Tensor, "B V"], top_p: float) -> Float[Tensor, "B V"]:
    """The likeliest tokens whose probabilities sum to at least `top_p`, renormalised; the others get 0.

    Of equal probabilities the earlier token comes first, and one token always stays.

    Source: Holtzman et al., arXiv 1904.09751, section 3.1.
    """
    if top_p >= 1:
        return probabilities
    descending, order = torch.sort(probabilities, dim=-1, descending=True, stable=True)
    kept = descending.cumsum(-1) - descending < top_p
    kept[..., 0] = True
    mask = torch.zeros_like(kept).scatter(-1, order, kept)
    inside = torch.where(mask, probabilities, 0.0)
    return inside / inside.sum(-1, keepdim=True)
