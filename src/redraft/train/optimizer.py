"""The optimizers: AdamW, and Muon for the matrices inside the layers.

Muon is momentum whose matrices are made nearly orthogonal, so that every direction of a weight learns at one pace.

Source: Keller Jordan's Muon (2024) for the iteration and its coefficients, arXiv 2502.16982 for the scale that gives
an update the size of AdamW's, so that both share one learning rate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from redraft.train.recipe import Recipe

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_ADAMW_RMS = 0.2
# Where torch has AdamW in one kernel.
_FUSED = ("cpu", "cuda", "xpu", "mps")


def make_optimizers(parameters: Mapping[str, nn.Parameter], recipe: Recipe) -> list[torch.optim.Optimizer]:
    """What steps the parameters of a run, by their names, each of them once; all groups take the recipe's learning
    rate. A tower's matrices take AdamW like embeddings."""
    named = list(parameters.items())
    vectors = [p for _, p in named if p.ndim == 1]
    matrices = [
        p for name, p in named if p.ndim > 1 and not (recipe.optimizer == "muon" and name.startswith("layers."))
    ]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    fused = all(p.device.type in _FUSED for _, p in named)
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas, fused=fused)
    ]
    if recipe.optimizer == "muon":
        inner = [p for name, p in named if p.ndim > 1 and name.startswith("layers.")]
        found.append(Muon(inner, lr=recipe.learning_rate, weight_decay=recipe.weight_decay))
    return found


class Muon(torch.optim.Optimizer):
    """Steps matrices, and stacks of matrices such as a layer's experts; vectors and embeddings belong to AdamW."""

    def __init__(self, params: Iterable[Tensor], lr: float, weight_decay: float = 0.0, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None) -> None:  # type: ignore[override]
        """Takes one step; matrices of one shape are orthogonalised together."""
        assert closure is None
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(parameter)
                average = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                # Nesterov: where the average will be after the next gradient like this one.
                ahead = parameter.grad.lerp(average, group["momentum"])
                by_shape[parameter.shape[-2:]].append((parameter, ahead))
            for shape, entries in by_shape.items():
                stacked = torch.cat([ahead.reshape(-1, *shape) for _, ahead in entries])
                updates = orthogonalise(stacked).split([p.numel() // shape.numel() for p, _ in entries])
                scale = _ADAMW_RMS * max(shape) ** 0.5
                for (parameter, _), update in zip(entries, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update.view_as(parameter), alpha=-group["lr"] * scale)


def orthogonalise(x: Float[Tensor, "S M N"]) -> Float[Tensor, "S M N"]:
    """Each matrix with its singular values moved near 1 (between about 0.7 and 1.2), by a Newton-Schulz iteration."""
    a, b, c = _COEFFICIENTS
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
