"""Dropout on what each layer adds to the residual stream; the model itself knows nothing of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from redraft.model.model import DiffusionGemma
from redraft.train.precision import moved


class BranchDropout:
    """Zeroes channels of each attention and feed-forward branch, the same ones at every position of a row.

    One mask for a whole row costs next to nothing beside one draw for each number. Passes without gradients, which
    are rollouts and evaluation, are left alone.

    Source: Gal and Ghahramani, arXiv 1512.05287, for masks that do not change along a sequence.
    """

    def __init__(self, model: DiffusionGemma, rate: float) -> None:
        """Hooks every layer of the model; `rate` is the share of the channels that is zeroed."""
        self.rate = rate
        self.generator = torch.Generator()
        for layer in model.backbone.layers:
            for norm in (layer.post_attention_layernorm, layer.post_feedforward_layernorm):
                norm.register_forward_hook(self._drop)  # type: ignore[union-attr]

    def _drop(self, _: nn.Module, __: tuple, branch: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return branch
        kept = torch.rand(len(branch), 1, branch.shape[-1], generator=self.generator) >= self.rate
        return branch * moved((kept / (1 - self.rate)).to(branch.dtype), branch.device)
