"""One layer of the tower: every patch of a picture attends to every other, then a gated MLP."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from redraft.kernels.attention import attention
from redraft.kernels.norm import rms_norm
from redraft.vision.config import VisionConfig
from redraft.vision.rotary import AxialRotary, rotate_axial

# N patches of one picture, D width, H query heads, K key-value heads, S head size

BOUNDS = ("input_min", "input_max", "output_min", "output_max")


class Norm(nn.Module):
    """A weighted `rms_norm`."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        return rms_norm(x, self.weight, self.eps)


class ClippedLinear(nn.Module):
    """A product whose input and result are clamped where the checkpoint has bounds for them.

    Source: transformers `Gemma4ClippableLinear`; activations are clamped, weights are not.
    """

    def __init__(self, config: VisionConfig, columns: int, rows: int) -> None:
        super().__init__()
        self.linear = nn.Linear(columns, rows, bias=False)
        self.clipped = config.use_clipped_linears
        if self.clipped:
            for name in BOUNDS:
                self.register_buffer(name, torch.tensor(float("-inf" if name.endswith("min") else "inf")))

    def forward(self, x: Float[Tensor, "... C"]) -> Float[Tensor, "... R"]:
        if not self.clipped:
            return self.linear(x)
        least_in, most_in, least_out, most_out = (self.get_buffer(name) for name in BOUNDS)
        return self.linear(x.clamp(least_in, most_in)).clamp(least_out, most_out)


class Attention(nn.Module):
    """Attention among the patches of one picture, unmasked, at scale 1: queries and keys are normed, values without
    a weight.

    Source: transformers `Gemma4VisionAttention`.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        D, S = config.hidden_size, config.head_dim
        self.q_proj = ClippedLinear(config, D, config.num_attention_heads * S)
        self.k_proj = ClippedLinear(config, D, config.num_key_value_heads * S)
        self.v_proj = ClippedLinear(config, D, config.num_key_value_heads * S)
        self.o_proj = ClippedLinear(config, config.num_attention_heads * S, D)
        self.q_norm = Norm(S, config.rms_norm_eps)
        self.k_norm = Norm(S, config.rms_norm_eps)
        self.head_dim, self.eps = S, config.rms_norm_eps

    def forward(self, hidden: Float[Tensor, "N D"], table: AxialRotary) -> Float[Tensor, "N D"]:
        q_NHS, k_NKS, v_NKS = (
            projection(hidden).unflatten(-1, (-1, self.head_dim))
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        q_NHS = rotate_axial(self.q_norm(q_NHS), table)
        k_NKS = rotate_axial(self.k_norm(k_NKS), table)
        v_NKS = rms_norm(v_NKS, None, self.eps)
        # One picture at a time: none sees another, and no N x N scores are kept.
        out = attention(q_NHS[None], k_NKS.transpose(0, 1)[None], v_NKS.transpose(0, 1)[None])[0]
        return self.o_proj(out.flatten(1))


class MLP(nn.Module):
    """down(gelu(gate(x)) * up(x))."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.gate_proj = ClippedLinear(config, config.hidden_size, config.intermediate_size)
        self.up_proj = ClippedLinear(config, config.hidden_size, config.intermediate_size)
        self.down_proj = ClippedLinear(config, config.intermediate_size, config.hidden_size)

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        return self.down_proj(F.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x))


class Layer(nn.Module):
    """Attention and MLP, each between two norms and added to what came in.

    Source: transformers `Gemma4VisionEncoderLayer`.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        D, eps = config.hidden_size, config.rms_norm_eps
        self.self_attn = Attention(config)
        self.mlp = MLP(config)
        self.input_layernorm = Norm(D, eps)
        self.post_attention_layernorm = Norm(D, eps)
        self.pre_feedforward_layernorm = Norm(D, eps)
        self.post_feedforward_layernorm = Norm(D, eps)

    def forward(self, hidden: Float[Tensor, "N D"], table: AxialRotary) -> Float[Tensor, "N D"]:
        attended = self.self_attn(self.input_layernorm(hidden), table)
        hidden = hidden + self.post_attention_layernorm(attended)
        mixed = self.mlp(self.pre_feedforward_layernorm(hidden))
        return hidden + self.post_feedforward_layernorm(mixed)
