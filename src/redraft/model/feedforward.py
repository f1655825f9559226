"""The two feed-forward paths of a layer: the dense gated MLP and the mixture of experts with its router."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from redraft.kernels.experts import experts
from redraft.kernels.linear import linear
from redraft.kernels.norm import norm_add, rms_norm
from redraft.model.config import ModelConfig


class Linear(nn.Linear):
    """A linear layer without bias; for `alike` see `linear`."""

    def __init__(self, inputs: int, outputs: int, *, alike: bool = False) -> None:
        super().__init__(inputs, outputs, bias=False)
        self.alike = alike

    def forward(self, input: Float[Tensor, "... I"]) -> Float[Tensor, "... O"]:
        return linear(input, self.weight, alike=self.alike)


class RMSNorm(nn.Module):
    """A weighted `rms_norm`."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        return rms_norm(x, self.weight, self.eps)

    def added(
        self, x: Float[Tensor, "... D"], residual: Float[Tensor, "... D"], scalar: Float[Tensor, "1"] | None = None
    ) -> Float[Tensor, "... D"]:
        """(residual + self(x)) * scalar, which a GPU does in one pass."""
        if torch.is_grad_enabled():
            # As a module: training hooks onto branches of the residual stream.
            result = residual + self(x)
            return result if scalar is None else result * scalar
        return norm_add(x, self.weight, residual, scalar, self.eps)


class GatedMLP(nn.Module):
    """down(gelu(gate(x)) * up(x))."""

    def __init__(self, hidden: int, intermediate: int) -> None:
        super().__init__()
        self.gate_proj = Linear(hidden, intermediate)
        self.up_proj = Linear(hidden, intermediate)
        self.down_proj = Linear(intermediate, hidden)

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        return self.down_proj(F.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x))


class Router(nn.Module):
    """Chooses the experts of each row and their weights.

    Source: transformers `DiffusionGemmaTextRouter`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        # A last bit may choose another expert: a token is routed as it would be alone.
        self.proj = Linear(config.hidden_size, config.num_experts, alike=True)
        self.scale = nn.Parameter(torch.ones(config.hidden_size))
        self.per_expert_scale = nn.Parameter(torch.ones(config.num_experts))
        self.top_k = config.top_k_experts
        self.eps = config.rms_norm_eps

    def forward(self, x: Float[Tensor, "N D"]) -> tuple[Int[Tensor, "N A"], Float[Tensor, "N A"]]:
        """(expert ids, weights); the weights of a row sum to 1 before `per_expert_scale`."""
        scaled = rms_norm(x, None, self.eps) * self.scale * x.shape[-1] ** -0.5
        probabilities = torch.softmax(self.proj(scaled), dim=-1, dtype=torch.float32)
        weight, index = torch.topk(probabilities, self.top_k, dim=-1)
        weight = weight / weight.sum(-1, keepdim=True)
        return index, weight * self.per_expert_scale[index]


class Experts(nn.Module):
    """The stacked weights of all experts, in the checkpoint's own layout."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        E, I, D = config.num_experts, config.moe_intermediate_size, config.hidden_size
        self.gate_up_proj = nn.Parameter(torch.empty(E, 2 * I, D))
        self.down_proj = nn.Parameter(torch.empty(E, D, I))

    def forward(
        self, x: Float[Tensor, "N D"], index: Int[Tensor, "N A"], weight: Float[Tensor, "N A"]
    ) -> Float[Tensor, "N D"]:
        return experts(x, index, weight, self.gate_up_proj, self.down_proj)
