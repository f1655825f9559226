"""The attention block, and the `Attend` protocol that makes it causal, bidirectional or differentiable."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from jaxtyping import Float
from torch import Tensor, nn

from redraft.kernels.norm import norm_heads
from redraft.model.config import LayerConfig, ModelConfig
from redraft.model.feedforward import Linear, RMSNorm
from redraft.model.rope import Rotary

# B batch, T positions, H query heads, K key-value heads, D head size


class Heads(NamedTuple):
    """What a layer's projections make of its rows: normed and rotated queries and keys, and values."""

    q_BTHD: Float[Tensor, "B T H D"]
    k_BTKD: Float[Tensor, "B T K D"]
    v_BTKD: Float[Tensor, "B T K D"]


class Attend(Protocol):
    """What the queries of one layer look at. A mode of the model is one of these.

    It decides which other keys a layer's queries meet (a cache's, the canvas's own), and may store keys and values.

    Attributes:
        repeatable: whether a forward that broke off may be done again: what it writes lies where the next one writes.
    """

    repeatable: bool

    def __call__(self, layer: int, heads: Heads) -> Float[Tensor, "B T H D"]:
        """What the values of the keys that they meet weigh, for the queries of a layer."""
        ...


class Attention(nn.Module):
    """Projections and norms around an `Attend`. Full layers have no v_proj: V is the k_proj output, unnormed."""

    def __init__(self, config: ModelConfig, layer: LayerConfig) -> None:
        super().__init__()
        queries = config.num_attention_heads * layer.head_dim
        keys = layer.num_key_value_heads * layer.head_dim
        self.q_proj = Linear(config.hidden_size, queries)
        self.k_proj = Linear(config.hidden_size, keys)
        self.v_proj = None if layer.shares_key_value else Linear(config.hidden_size, keys)
        self.o_proj = Linear(queries, config.hidden_size)
        self.q_norm = RMSNorm(layer.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(layer.head_dim, config.rms_norm_eps)
        self.head_dim, self.num_heads = layer.head_dim, config.num_attention_heads
        self.num_key_value_heads = layer.num_key_value_heads
        self.eps = config.rms_norm_eps

    def forward(
        self, hidden: Float[Tensor, "B T hidden"], table: Rotary, layer: int, attend: Attend
    ) -> Float[Tensor, "B T hidden"]:
        heads = (*hidden.shape[:2], -1, self.head_dim)
        queries, keys = self.q_proj(hidden).view(heads), self.k_proj(hidden).view(heads)
        values = keys if self.v_proj is None else self.v_proj(hidden).view(heads)
        weights = self.q_norm.weight, self.k_norm.weight
        normed = Heads(*norm_heads(queries, keys, values, weights, table, self.eps))
        return self.o_proj(attend(layer, normed).flatten(2))
