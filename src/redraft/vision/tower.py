"""The Gemma 4 tower: from the patches of a picture to soft tokens in the text model's space.

Modules and parameters carry the checkpoint's names.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from redraft.kernels.norm import rms_norm
from redraft.vision.config import VisionConfig
from redraft.vision.layers import Layer
from redraft.vision.patches import Patches
from redraft.vision.rotary import axial_table

# N patches of one picture, n soft tokens of it, D width of the tower, T of the text model


class PatchEmbedder(nn.Module):
    """A patch's pixels, projected, plus a learned row for its column and one for its row.

    Source: transformers `Gemma4VisionPatchEmbedder`.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.input_proj = nn.Linear(3 * config.patch_size**2, config.hidden_size, bias=False)
        self.position_embedding_table = nn.Parameter(torch.ones(2, config.position_embedding_size, config.hidden_size))

    def forward(self, values: Float[Tensor, "N P"], places: Int[Tensor, "N 2"]) -> Float[Tensor, "N D"]:
        columns, rows = self.position_embedding_table.unbind()
        # The two rows are added first, and pixels centred in float32: what half precision rounds depends on it.
        centred = (2 * (values - 0.5)).to(columns.dtype)
        return self.input_proj(centred) + (columns[places[:, 0]] + rows[places[:, 1]])


class Layers(nn.Module):
    """The stack; a module of its own, since the checkpoint's names have one."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))


class VisionTower(nn.Module):
    """From patches to pooled features.

    Source: transformers `Gemma4VisionModel` and `Gemma4VisionPooler`.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embedder = PatchEmbedder(config)
        self.encoder = Layers(config)
        if config.standardize:
            # In float32 whatever the weights are in: they cancel numbers of their own size, 54,000 in the release.
            self.register_buffer("std_bias", torch.zeros(config.hidden_size))
            self.register_buffer("std_scale", torch.ones(config.hidden_size))

    def forward(self, patches: Patches) -> Float[Tensor, "n D"]:
        weight, config = self.patch_embedder.input_proj.weight, self.config
        config.check_side(max(patches.rows, patches.columns))
        places = patches.places.to(weight.device)
        hidden = self.patch_embedder(patches.values.to(weight.device), places)
        table = axial_table(places, config.head_dim, config.rope_theta, hidden.dtype)
        for layer in self.encoder.layers:
            hidden = layer(hidden, table)
        return self._pooled(hidden, patches).to(hidden.dtype)

    def _pooled(self, hidden: Float[Tensor, "N D"], patches: Patches) -> Float[Tensor, "n D"]:
        """The mean of each square of patches, scaled and standardised; float32."""
        k = patches.pooling
        grid = hidden.float().view(patches.rows // k, k, patches.columns // k, k, -1)
        # Back to the weights' dtype in between, as the reference does it: sqrt(width) would leave float16's range.
        pooled = grid.mean(dim=(1, 3)).flatten(0, 1).to(hidden.dtype).float() * self.config.hidden_size**0.5
        if not self.config.standardize:
            return pooled
        return (pooled - self.std_bias.float()) * self.std_scale.float()  # type: ignore[operator]


class Projector(nn.Module):
    """Into the text model's space. What comes out is not scaled by sqrt(width), as embeddings of tokens are.

    Source: transformers `DiffusionGemmaMultimodalEmbedder`.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.embedding_projection = nn.Linear(config.hidden_size, config.text_hidden_size, bias=False)
        self.eps = config.rms_norm_eps

    def forward(self, soft: Float[Tensor, "n D"]) -> Float[Tensor, "n T"]:
        return self.embedding_projection(rms_norm(soft, None, self.eps))


class Vision(nn.Module):
    """Tower and projector: what a checkpoint that sees holds beside its text model."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.quantization: Literal["int8"] | None = None
        self.vision_tower = VisionTower(config)
        self.embed_vision = Projector(config)

    def forward(self, patches: Patches) -> Float[Tensor, "n T"]:
        """Soft tokens of one picture, in row-major order of the squares that they stand for.

        Pictures are independent of each other, and so is each of its company: run them one by one.

        Raises:
            ImageError: more patches along a side than the checkpoint knows places.
        """
        return self.embed_vision(self.vision_tower(patches))
