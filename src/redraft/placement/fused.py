"""The backbone as a GPU runs it over a canvas: the arithmetic of `backbone.py` in a third of its launches.

A launch costs a GPU some two microseconds, and a step is thirty layers. Between two products there is one pass over
each row, which also rounds it for the next product; layers that read the same rows are one product; the dense MLP runs
beside the router and the experts. Modules have the names of those that they stand for.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from redraft.kernels.matrices.float8 import Float8Matrix
from redraft.kernels.matrices.int8 import Int8Matrix
from redraft.kernels.norm import norm_heads
from redraft.kernels.triton.experts import expert_outputs, rounded_for
from redraft.kernels.triton.packed import PackedInt4
from redraft.kernels.triton.router import route
from redraft.kernels.triton.rows import (
    EndWeights,
    MiddleWeights,
    NextNorm,
    Rows,
    begin,
    end,
    gate_rounded,
    middle,
    norm_rounded,
    rounded,
)
from redraft.model.attention import Attend, Attention, Heads
from redraft.model.backbone import Backbone, Layer
from redraft.model.feedforward import Experts, GatedMLP, Router
from redraft.model.rope import Rotary, rotary
from redraft.placement.beside import Beside
from redraft.placement.canvas_cache import DenoiseStatic
from redraft.placement.conveyor import ConveyedExperts
from redraft.placement.dense import Dense
from redraft.placement.quantized import Float8Experts, Int4Experts, Int8Experts

# B canvases, L positions, N = B * L rows, D hidden, P parts of a product, A experts a row


class FusedMLP(nn.Module):
    """A gated MLP of two products, with one pass between them."""

    def __init__(self, mlp: GatedMLP) -> None:
        super().__init__()
        self._gate_up = Dense.of([mlp.gate_proj, mlp.up_proj])
        self._down = Dense.of([mlp.down_proj])
        self.rounded = self._gate_up.rounded

    def forward(self, rows: Rows, like: Tensor) -> Float[Tensor, "P N D"]:
        """Parts of the result; `like` gives the dtype of activations."""
        gated = gate_rounded(self._gate_up.parts(rows, like.dtype), like, self._down.rounded)
        return self._down.parts(gated, like.dtype)


class FusedAttention(nn.Module):
    """Attention with one joint projection before it; the output projection is left in parts."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        inputs = [attention.q_proj, attention.k_proj]
        self._joint = Dense.of(inputs if attention.v_proj is None else [*inputs, attention.v_proj])
        self._output = Dense.of([attention.o_proj])
        self._weights = (attention.q_norm.weight, attention.k_norm.weight)
        self._head_dim, self._eps = attention.head_dim, attention.eps
        queries, keys = (attention.num_heads * self._head_dim, attention.num_key_value_heads * self._head_dim)
        self._sizes = [queries, keys] if attention.v_proj is None else [queries, keys, keys]
        self.rounded = self._joint.rounded

    def forward(
        self, rows: Rows, shape: tuple[int, int], table: Rotary, layer: int, attend: Attend, dtype: torch.dtype
    ) -> Float[Tensor, "P N D"]:
        """Parts of the output projection, for rows of (B, L) positions."""
        split = self._joint.product(rows, dtype).split(self._sizes, dim=1)
        # Full layers have no values of their own: they are the keys as projected.
        heads = [x.unflatten(0, shape).unflatten(-1, (-1, self._head_dim)) for x in (split[0], split[1], split[-1])]
        normed = Heads(*norm_heads(heads[0], heads[1], heads[2], self._weights, table, self._eps))
        wanted = self._output.rounded
        if wanted is not None and isinstance(attend, DenoiseStatic):
            attended = attend.rounded(layer, normed, wanted)
        else:
            attended = rounded(attend(layer, normed).flatten(2).flatten(0, 1), wanted)
        return self._output.parts(attended, dtype)


class FusedRouter(nn.Module):
    """The router, of rows that are scaled already."""

    def __init__(self, router: Router) -> None:
        super().__init__()
        self._weights, self._top_k = (router.proj.weight, router.per_expert_scale), router.top_k

    def forward(self, rows: Float[Tensor, "N D"]) -> tuple[Int[Tensor, "N A"], Float[Tensor, "N A"]]:
        return route(rows, *self._weights, self._top_k)


class FusedExperts(nn.Module):
    """What experts make of rows, before it is summed; summed already where their form has no such kernel."""

    def __init__(self, experts: nn.Module) -> None:
        super().__init__()
        # In a tuple: it is the backbone's.
        self._experts = (experts,)
        self._stacks = _stacks_of(experts)
        self.rounded = None if self._stacks is None else rounded_for(self._stacks[0])

    def forward(
        self, rows: Rows, index: Int[Tensor, "N A"], weight: Float[Tensor, "N A"], dtype: torch.dtype
    ) -> Float[Tensor, "N A D"]:
        if self._stacks is None:
            return self._experts[0](rows.values, index.long(), weight)[:, None]
        return expert_outputs(rows, index, weight, *self._stacks, dtype)


def _stacks_of(experts: nn.Module) -> tuple[Any, Any] | None:
    """Both stacks of experts that lie as `expert_outputs` reads them."""
    if isinstance(experts, Experts):
        return experts.gate_up_proj, experts.down_proj
    if isinstance(experts, (Int4Experts, Int8Experts, Float8Experts)) and isinstance(
        experts.gate_up, (PackedInt4, Int8Matrix, Float8Matrix)
    ):
        return experts.gate_up, experts.down
    return None


class FusedLayer(nn.Module):
    """One layer, from the rows that its input norm has made to those that the next one's makes."""

    def __init__(self, layer: Layer, beside: Beside) -> None:
        super().__init__()
        self.self_attn, self.mlp = FusedAttention(layer.self_attn), FusedMLP(layer.mlp)
        self.router, self.experts = FusedRouter(layer.router), FusedExperts(layer.experts)
        self.entry = NextNorm(weight=layer.input_layernorm.weight, dtype=self.self_attn.rounded)
        self._beside, self._eps = beside, layer.input_layernorm.eps
        self._middle = MiddleWeights(
            post_attention=layer.post_attention_layernorm.weight,
            pre_dense=layer.pre_feedforward_layernorm.weight,
            pre_experts=layer.pre_feedforward_layernorm_2.weight,
            router=layer.router.scale,
        )
        # By whether it is causal.
        self._end = [
            EndWeights(
                post_experts=layer.post_feedforward_layernorm_2.weight,
                post_dense=layer.post_feedforward_layernorm_1.weight,
                post=layer.post_feedforward_layernorm.weight,
                scalar=scalar,  # type: ignore[arg-type]
            )
            for scalar in (layer.layer_scalar, layer.encoder_layer_scalar)
        ]

    def forward(
        self, hidden: Float[Tensor, "N D"], rows: Rows, shape: tuple[int, int], table: Rotary, index: int,
        attend: Attend, following: NextNorm, *, causal: bool,
    ) -> tuple[Float[Tensor, "N D"], Rows]:  # fmt: skip
        attended = self.self_attn(rows, shape, table, index, attend, hidden.dtype)
        hidden, dense_rows, expert_rows, router_rows = middle(
            attended, hidden, self._middle, self._eps, self.mlp.rounded, self.experts.rounded
        )
        with self._beside.branch():
            dense = self.mlp(dense_rows, hidden)
        outputs = self.experts(expert_rows, *self.router(router_rows), hidden.dtype)
        self._beside.join()
        return end(outputs, dense, hidden, self._end[causal], following, self._eps)


class FusedBackbone(nn.Module):
    """The layers of a canvas model, with what stands before and after them."""

    def __init__(self, backbone: Backbone) -> None:
        """Joins matrices of `backbone`, whose modules then hold parts of the joint ones.

        Raises:
            UnfitError: matrices that read the same rows have several forms, or one that has no such product.
        """
        super().__init__()
        self._backbone = (backbone,)
        self.beside = Beside(backbone.norm.weight.device)
        self.layers = nn.ModuleList(FusedLayer(layer, self.beside) for layer in backbone.layers)  # type: ignore[arg-type]
        self.self_conditioning = FusedMLP(backbone.self_conditioning)
        self._pre_norm = (backbone.self_conditioning.pre_norm.weight,)
        entries: list[NextNorm] = [layer.entry for layer in self.layers]  # type: ignore[misc]
        self._norms = [*entries, NextNorm(weight=backbone.norm.weight, dtype=None)]
        self._embed_scale = backbone.embed_scale
        conveyed = [layer.experts for layer in backbone.layers if isinstance(layer.experts, ConveyedExperts)]
        self._conveyor = conveyed[0].conveyor if conveyed else None

    def without_branches(self) -> bool:
        """See `Runner`."""
        return self.beside.close()

    def forward(
        self,
        canvas: Int[Tensor, "B L"],
        lengths: Int[Tensor, "B"],
        attend: Attend,
        soft: Float[Tensor, "B L D"] | None = None,
        *,
        causal: bool = False,
    ) -> Float[Tensor, "B L D"]:
        """Hidden states after the final norm; see `DiffusionGemma.denoise_with`, and if causal `encode_with`."""
        (backbone,), shape, like = self._backbone, (canvas.shape[0], canvas.shape[1]), self._embed_scale
        eps = backbone.norm.eps
        if self._conveyor is not None:
            self._conveyor.begin()
        conditioning = None
        if soft is not None:
            mlp = self.self_conditioning
            conditioning = mlp(norm_rounded(soft.flatten(0, 1), *self._pre_norm, eps, mlp.rounded), like)
        tokens = backbone.embed_tokens
        embedding = tokens.weight if isinstance(tokens, nn.Embedding) else tokens.matrix
        hidden, rows = begin(canvas.flatten(), embedding, like, conditioning, self._norms[0], eps, normed=not causal)
        positions = lengths[:, None] + torch.arange(shape[1], device=lengths.device)
        tables = {
            key: rotary(positions, getattr(backbone, f"frequencies_{number}"), like.dtype)
            for number, key in enumerate(backbone.rope_keys)
        }
        for index, (layer, (_, following)) in enumerate(zip(self.layers, pairwise(self._norms), strict=True)):
            table = tables[backbone.config.layers[index].rope_key]
            hidden, rows = layer(hidden, rows, shape, table, index, attend, following, causal=causal)
        return rows.values.view(*shape, -1)
