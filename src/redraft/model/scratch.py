"""Models without a checkpoint: a config from a shape, and random weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from redraft.model.config import MODEL_TYPE, ModelConfig
from redraft.model.model import DiffusionGemma

# The released ids of an image's beginning, its end, and one of its places.
_IMAGE_TOKENS = {"boi_token_id": 255999, "eoi_token_id": 258882, "image_token_id": 258880}
# Squares of 3 x 3 patches, as released: transformers cannot pool by 1.
_VISION = {"model_type": "gemma4_vision", "pooling_kernel_size": 3, "patch_size": 16, "rms_norm_eps": 1e-6}


def scratch_config(
    shape: dict[str, Any],
    canvas_length: int,
    *,
    vision: dict[str, Any] | None = None,
    image_tokens: dict[str, int] | None = None,
) -> ModelConfig:
    """The config of a model of this shape.

    Args:
        shape: sizes and special tokens, in the text config's own names.
        canvas_length: in tokens.
        vision: sizes of a tower, in the vision config's own names; None: the model does not see.
        image_tokens: boi_token_id, eoi_token_id and image_token_id, where the vocabulary does not reach the
            released ones.
    """
    text = {
        "model_type": "diffusion_gemma_text",
        "rms_norm_eps": 1e-6,
        "hidden_activation": "gelu_pytorch_tanh",
        "final_logit_softcapping": 30.0,
        "tie_word_embeddings": True,
    } | shape
    raw = {
        "architectures": ["DiffusionGemmaForBlockDiffusion"],
        "model_type": MODEL_TYPE,
        "canvas_length": canvas_length,
        "tie_word_embeddings": True,
        # Beyond a small vocabulary too: others read numbers here, and transformers' generate cannot do without one.
        **_IMAGE_TOKENS,
        **(image_tokens or {}),
        "text_config": text,
        # No tower: where none is named others build none, and transformers a random one that nothing runs through.
        "vision_config": None if vision is None else _VISION | vision,
    }
    return ModelConfig.from_dict(raw, "shape")


@torch.no_grad()
def initialise(model: DiffusionGemma, seed: int) -> None:
    """Fills a model with random weights, the same for the same seed.

    Attention has no 1/sqrt(head_dim), so q_norm and k_norm start at head_dim^-0.25: at 1 it would start saturated.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.backbone.named_parameters():
        if name.endswith(("q_norm.weight", "k_norm.weight")):
            parameter.fill_(parameter.shape[0] ** -0.25)
        elif parameter.ndim == 1:
            parameter.fill_(1.0)
        else:
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5, generator=generator)


def generation_config(pad: int | None, bos: int | None, eos: list[int]) -> dict[str, Any]:
    """DiffusionGemma's own defaults for generation_config.json, with these special tokens."""
    return {
        "max_new_tokens": 256,
        "max_denoising_steps": 48,
        "t_max": 0.8,
        "t_min": 0.4,
        "stability_threshold": 1,
        "confidence_threshold": 0.005,
        "sampler_config": {"_cls_name": "EntropyBoundSamplerConfig", "entropy_bound": 0.1},
        "bos_token_id": bos,
        "pad_token_id": pad,
        "eos_token_id": eos,
    }
