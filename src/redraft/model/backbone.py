"""One stack of layers for both modes. Only `layer_scalar` and self-conditioning tell the modes apart."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from redraft.kernels.norm import rms_norm
from redraft.model.attention import Attend, Attention
from redraft.model.config import LayerConfig, ModelConfig
from redraft.model.feedforward import Experts, GatedMLP, RMSNorm, Router
from redraft.model.rope import Rotary, inverse_frequencies, rotary


class Embedding(nn.Embedding):
    """An embedding that stays as it was allocated until a checkpoint fills it. Models are made on the meta device, and
    torch's own random start imports sympy there: 67 MB, and most of a second."""

    def reset_parameters(self) -> None:
        """Leaves the weight alone."""


class Layer(nn.Module):
    """Attention, then the dense MLP and the experts side by side, each inside its own norms.

    Source: transformers `DiffusionGemmaDecoderTextLayer` and `DiffusionGemmaEncoderTextLayer`.
    """

    def __init__(self, config: ModelConfig, layer: LayerConfig) -> None:
        super().__init__()
        D, eps = config.hidden_size, config.rms_norm_eps
        self.self_attn = Attention(config, layer)
        self.mlp = GatedMLP(D, config.intermediate_size)
        self.router = Router(config)
        self.experts = Experts(config)
        self.input_layernorm = RMSNorm(D, eps)
        self.post_attention_layernorm = RMSNorm(D, eps)
        self.pre_feedforward_layernorm = RMSNorm(D, eps)
        self.post_feedforward_layernorm = RMSNorm(D, eps)
        self.post_feedforward_layernorm_1 = RMSNorm(D, eps)
        self.pre_feedforward_layernorm_2 = RMSNorm(D, eps)
        self.post_feedforward_layernorm_2 = RMSNorm(D, eps)
        self.register_buffer("encoder_layer_scalar", torch.ones(1))
        if config.has_canvas:
            self.register_buffer("layer_scalar", torch.ones(1))

    def forward(
        self,
        hidden: Float[Tensor, "B T D"],
        table: Rotary,
        index: int,
        attend: Attend,
        *,
        causal: bool | Bool[Tensor, "T"],
    ) -> Float[Tensor, "B T D"]:
        attended = self.self_attn(self.input_layernorm(hidden), table, index, attend)
        hidden = self.post_attention_layernorm.added(attended, hidden)

        dense = self.post_feedforward_layernorm_1(self.mlp(self.pre_feedforward_layernorm(hidden)))
        rows = hidden.flatten(0, 1)
        # The router sees the raw residual, the experts a normed one.
        choice, weight = self.router(rows)
        sparse = self.experts(self.pre_feedforward_layernorm_2(rows), choice, weight).view_as(hidden)
        both = self.post_feedforward_layernorm_2.added(sparse, dense)

        if isinstance(causal, Tensor):
            scalars = torch.where(causal, self.encoder_layer_scalar, self.layer_scalar)  # type: ignore[arg-type]
            return self.post_feedforward_layernorm.added(both, hidden) * scalars[:, None]
        scalar: Tensor = self.encoder_layer_scalar if causal else self.layer_scalar  # type: ignore[assignment]
        return self.post_feedforward_layernorm.added(both, hidden, scalar)


class SelfConditioning(GatedMLP):
    """Adds what the previous step believed to the canvas embedding.

    Source: transformers `DiffusionGemmaSelfConditioning`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config.hidden_size, config.intermediate_size)
        self.pre_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.eps = config.rms_norm_eps

    def condition(
        self, embedded: Float[Tensor, "B L D"], soft: Float[Tensor, "B L D"] | None
    ) -> Float[Tensor, "B L D"]:
        """`soft` None is a true zero signal (the first step), which the bias-free MLP maps to zero."""
        if soft is not None:
            embedded = embedded + self(self.pre_norm(soft))
        return rms_norm(embedded, None, self.eps)


class Backbone(nn.Module):
    """Embedding, layers and final norm; parameters carry the checkpoint's names."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, layer) for layer in config.layers)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        if config.has_canvas:
            self.self_conditioning = SelfConditioning(config)
        self.rope_keys = sorted({layer.rope_key for layer in config.layers})
        self.build_rotary(self.norm.weight.device)

    def build_rotary(self, device: torch.device | str) -> None:
        """Computes the rotary frequencies; they are in no checkpoint."""
        for number, key in enumerate(self.rope_keys):
            self.register_buffer(f"frequencies_{number}", inverse_frequencies(*key).to(device), persistent=False)

    def embed(self, token_ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Scaled embeddings. The scale is rounded to the model's dtype first, as the reference does."""
        return self.embed_tokens(token_ids) * self.embed_scale

    @property
    def embed_scale(self) -> Tensor:
        """sqrt(hidden_size) in the model's dtype, a 0-d tensor."""
        # Filled on the device: copied there, the host would wait for it.
        return torch.full((), self.config.embed_scale, dtype=self.norm.weight.dtype, device=self.norm.weight.device)

    def forward(
        self,
        hidden: Float[Tensor, "B T D"],
        positions: Int[Tensor, "B T"],
        attend: Attend,
        *,
        causal: bool | Bool[Tensor, "T"],
    ) -> Float[Tensor, "B T D"]:
        """Hidden states after the final norm. `causal` picks the set of layer scalars, of all rows or of each."""
        tables = {
            key: rotary(positions, getattr(self, f"frequencies_{number}"), hidden.dtype)
            for number, key in enumerate(self.rope_keys)
        }
        for index, (layer, shape) in enumerate(zip(self.layers, self.config.layers, strict=True)):
            hidden = layer(hidden, tables[shape.rope_key], index, attend, causal=causal)
        return self.norm(hidden)
