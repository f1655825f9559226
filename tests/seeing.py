"""Small random checkpoints that see, in which every part of the tower matters, and pictures for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from checkpoints import CANVAS, TEXT_CONFIG, VOCAB, quiet, randomise
from redraft.vision.patches import Patches

# Inside the vocabulary: the reference looks placeholders up before it writes over them.
IMAGE, BOI, EOI = VOCAB - 1, VOCAB - 2, VOCAB - 3
# An odd number of pairs a half, fewer key-value heads than query heads.
TOWER: dict[str, Any] = dict(
    model_type="gemma4_vision",
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=12,
    patch_size=4,
    pooling_kernel_size=3,
    position_embedding_size=256,
    standardize=True,
)
CLIP = 1.1, 0.9


@torch.no_grad()
def randomise_tower(module: nn.Module, seed: int) -> None:
    """Fills a tower and its projector so that nothing of it can be dropped or swapped unseen.

    A fresh one hides its place table, norms and standardisation behind ones and zeros.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        noise = torch.randn(tensor.shape, generator=generator)
        if "inv_freq" in name:
            continue
        if name.endswith(("_min", "_max")):
            values = torch.full_like(tensor, -CLIP[0] if name.endswith("_min") else CLIP[1])
        elif name.endswith("std_bias"):
            values = 2.0 * noise
        elif name.endswith("position_embedding_table"):
            values = 0.7 * noise
        elif name.endswith(("post_attention_layernorm.weight", "post_feedforward_layernorm.weight")):
            values = 0.5 * (1.0 + 0.3 * noise)
        elif tensor.ndim < 2:
            values = 1.0 + 0.3 * noise
        else:
            values = 1.5 * noise * tensor.shape[-1] ** -0.5
        tensor.copy_(values)


def write_seeing(
    directory: Path,
    *,
    seed: int = 0,
    tower: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
    **text_config: Any,
) -> Path:
    """Writes a random checkpoint with a tower, by transformers; `tower` overrides `TOWER`."""
    with quiet():
        from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion

        config = DiffusionGemmaConfig(
            text_config={**TEXT_CONFIG, **text_config},
            vision_config={**TOWER, **(tower or {})},
            canvas_length=CANVAS,
            image_token_id=IMAGE,
            boi_token_id=BOI,
            eoi_token_id=EOI,
        )
        model = DiffusionGemmaForBlockDiffusion(config)
        randomise(model, seed)
        randomise_tower(model.model.encoder.vision_tower, seed + 1)
        randomise_tower(model.model.encoder.embed_vision, seed + 2)
        model.to(dtype).save_pretrained(directory)
    return directory


def noise_pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    """[height, width, 3] of uint8, with hard edges in it."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels[: height // 2, : width // 2] = generator.choice([0, 255], 3)
    return pixels


def padded(pictures: Sequence[Patches], image_tokens: int) -> tuple[Tensor, Tensor]:
    """(values, places) of a batch as transformers wants them: zeros at (-1, -1) fill every picture's budget."""
    values, places = [], []
    for patches in pictures:
        missing = image_tokens * patches.pooling**2 - len(patches.values)
        values.append(F.pad(patches.values, (0, 0, 0, missing)))
        places.append(F.pad(patches.places, (0, 0, 0, missing), value=-1))
    return torch.stack(values), torch.stack(places)


@torch.no_grad()
def reference_features(model: Any, pictures: Sequence[Patches], image_tokens: int) -> list[Tensor]:
    """What transformers' tower and projector make of pictures, in one padded batch."""
    features = model.model.encoder.get_image_features(*padded(pictures, image_tokens)).pooler_output
    return list(features.split([patches.soft_tokens for patches in pictures]))
