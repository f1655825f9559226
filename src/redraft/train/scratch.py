"""A new model: config, initial weights, and a checkpoint directory that it starts from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from redraft.model.config import MODEL_TYPE, ModelConfig
from redraft.model.model import DiffusionGemma
from redraft.text.tokenizer import Tokenizer
from redraft.train.recipe import ModelShape

# As small as transformers' vision tower goes: redraft does not run it, and without it transformers would build its
# default tower of 27 layers.
VISION = {
    "model_type": "gemma4_vision",
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "patch_size": 4,
    "position_embedding_size": 4,
    "pooling_kernel_size": 1,
}


def make_config(shape: ModelShape, tokenizer: Tokenizer) -> ModelConfig:
    """The config of a new model with this tokenizer's vocabulary."""
    text: dict[str, Any] = shape.model_dump(exclude={"canvas_length"})
    text |= {
        "model_type": "diffusion_gemma_text",
        "vocab_size": tokenizer.vocab_size,
        "rms_norm_eps": 1e-6,
        "hidden_activation": "gelu_pytorch_tanh",
        "final_logit_softcapping": 30.0,
        "tie_word_embeddings": True,
        "pad_token_id": tokenizer.id_of("<pad>"),
        "eos_token_id": tokenizer.id_of("<eos>"),
        "bos_token_id": tokenizer.id_of("<bos>"),
    }
    raw = {
        "architectures": ["DiffusionGemmaForBlockDiffusion"],
        "model_type": MODEL_TYPE,
        "canvas_length": shape.canvas_length,
        "tie_word_embeddings": True,
        "boi_token_id": None,
        "eoi_token_id": None,
        "image_token_id": None,
        "text_config": text,
        "vision_config": VISION,
    }
    return ModelConfig.from_dict(raw, "recipe")


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


def write_generation_config(directory: Path, tokenizer: Tokenizer) -> None:
    """DiffusionGemma's own defaults, with this tokenizer's ends of turn."""
    config = {
        "max_new_tokens": 256,
        "max_denoising_steps": 48,
        "t_max": 0.8,
        "t_min": 0.4,
        "stability_threshold": 1,
        "confidence_threshold": 0.005,
        "sampler_config": {"_cls_name": "EntropyBoundSamplerConfig", "entropy_bound": 0.1},
        "bos_token_id": tokenizer.id_of("<bos>"),
        "pad_token_id": tokenizer.id_of("<pad>"),
        "eos_token_id": list(tokenizer.end_of_turn_ids()),
    }
    text = json.dumps(config, indent=2) + "\n"
    (directory / "generation_config.json").write_text(text, encoding="utf-8")
