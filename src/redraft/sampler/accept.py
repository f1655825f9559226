"""Which tokens of a step are kept, and what becomes of the others."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def accept(entropy: Float[Tensor, "B L"], bound: float | Float[Tensor, "B 1"]) -> Bool[Tensor, "B L"]:
    """Takes tokens in ascending entropy while the entropies of those *before* sum to at most `bound` nats.

    The sum bounds the mutual information among the tokens taken together, so they are nearly independent; at least
    one is always taken. Of equal entropies the earlier position comes first.

    Source: Ben-Hamu et al., arXiv 2505.24857; transformers `EntropyBoundSampler.accept_canvas`.
    """
    return before(entropy)[0] <= bound


def before(entropy: Float[Tensor, "B L"]) -> tuple[Float[Tensor, "B L"], Int[Tensor, "B L"]]:
    """(the sum of the entropies that come before each position's in ascending order, how many of them are above 0)."""
    ascending, order = torch.sort(entropy, dim=-1, stable=True)
    unsure = (ascending > 0).int()
    nats, count = ascending.cumsum(-1) - ascending, unsure.cumsum(-1, dtype=torch.int32) - unsure
    return torch.zeros_like(nats).scatter(-1, order, nats), torch.zeros_like(count).scatter(-1, order, count)


def renoise(accepted: Bool[Tensor, "B L"], sample: Int[Tensor, "B L"], noise: Int[Tensor, "B L"]) -> Int[Tensor, "B L"]:
    """The next canvas: samples where accepted, uniform ids elsewhere. There is no mask token."""
    return torch.where(accepted, sample, noise)
