"""Small random DiffusionGemma checkpoints, written by transformers, in which every weight matters."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from torch import nn

LAYER_TYPES = ["sliding_attention"] * 5 + ["full_attention", "sliding_attention", "full_attention"]
WINDOW = 16
CANVAS = 8
VOCAB = 199
PAD, EOS, BOS = 0, 1, 2

TEXT_CONFIG: dict[str, Any] = dict(
    vocab_size=VOCAB,
    hidden_size=48,
    intermediate_size=40,
    num_hidden_layers=len(LAYER_TYPES),
    layer_types=LAYER_TYPES,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    global_head_dim=16,
    num_global_key_value_heads=1,
    num_experts=8,
    top_k_experts=2,
    moe_intermediate_size=16,
    sliding_window=WINDOW,
    max_position_embeddings=512,
    use_bidirectional_attention="vision",
    pad_token_id=PAD,
    eos_token_id=EOS,
    bos_token_id=BOS,
)
VISION_CONFIG: dict[str, Any] = dict(
    model_type="gemma4_vision",
    hidden_size=8,
    intermediate_size=8,
    num_hidden_layers=1,
    num_attention_heads=1,
    num_key_value_heads=1,
    head_dim=8,
    patch_size=4,
    position_embedding_size=210,
    pooling_kernel_size=3,
)
GEMMA4_TEXT_CONFIG: dict[str, Any] = TEXT_CONFIG | dict(
    enable_moe_block=True,
    attention_k_eq_v=True,
    hidden_size_per_layer_input=0,
    final_logit_softcapping=30.0,
)
AUDIO_CONFIG: dict[str, Any] = dict(
    model_type="gemma4_audio",
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=1,
    subsampling_conv_channels=[4, 4],
    output_proj_dims=8,
)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences what transformers warns about and prints; nothing of ours runs inside."""
    loggers = [logging.getLogger(name) for name in ("transformers", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def write_checkpoint(
    directory: Path,
    *,
    seed: int = 0,
    gain: float = 0.25,
    canvas_length: int = CANVAS,
    max_shard_size: str = "1GB",
    dtype: torch.dtype = torch.float32,
    **text_config: Any,
) -> Path:
    """Writes a random checkpoint with transformers' `save_pretrained`; `text_config` overrides `TEXT_CONFIG`."""
    with quiet():
        from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion

        config = DiffusionGemmaConfig(
            text_config={**TEXT_CONFIG, **text_config},
            vision_config=dict(VISION_CONFIG),
            canvas_length=canvas_length,
        )
        model = DiffusionGemmaForBlockDiffusion(config)
        randomise(model, seed, gain)
        model.to(dtype).save_pretrained(directory, max_shard_size=max_shard_size)
    return directory


def write_gemma4_checkpoint(directory: Path, *, whole: bool, seed: int = 0, **text_config: Any) -> Path:
    """Writes a random Gemma 4 checkpoint with transformers' `save_pretrained`.

    Args:
        directory: where to.
        whole: with vision and audio towers, as the released ones are; else the text model alone.
        seed: of the weights.
        text_config: overrides `GEMMA4_TEXT_CONFIG`.
    """
    with quiet():
        from transformers import Gemma4Config, Gemma4ForCausalLM, Gemma4ForConditionalGeneration, Gemma4TextConfig

        text = {**GEMMA4_TEXT_CONFIG, **text_config}
        if whole:
            towers = {"vision_config": dict(VISION_CONFIG), "audio_config": dict(AUDIO_CONFIG)}
            model = Gemma4ForConditionalGeneration(Gemma4Config(text_config=text, **towers))
        else:
            model = Gemma4ForCausalLM(Gemma4TextConfig(**text))
        randomise(model, seed)
        # Without mixed signs the tied head has every token follow itself, and greedy replies say nothing.
        final = model.model.language_model.norm if whole else model.model.norm
        final.weight.data[::2] *= -1
        model.save_pretrained(directory)
    return directory


@torch.no_grad()
def randomise(model: nn.Module, seed: int, gain: float = 0.25) -> None:
    """Fills every parameter and stored buffer so that dropping or swapping any of them shows in the logits.

    Logits spread over several units, up to where the softcap bends them; router scores have a standard
    deviation of two; the two sets of `layer_scalar` differ. Norm weights spread by 30%. `gain`, the size of
    the two norms that write to the residual stream, keeps the network from being chaotic: at 1 the
    reference's own attention implementations differ by 1e-3, and in bfloat16 they no longer agree at all.
    """
    generator = torch.Generator().manual_seed(seed)
    seen: set[int] = set()
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if id(tensor) in seen or not tensor.is_floating_point() or "inv_freq" in name or "embed_scale" in name:
            continue
        seen.add(id(tensor))
        noise = torch.randn(tensor.shape, generator=generator)
        uniform = torch.rand(tensor.shape, generator=generator)
        if name.endswith("layer_scalar"):
            values = 0.6 + 0.6 * uniform
        elif name.endswith(("decoder.norm.weight", "model.norm.weight")):
            values = 3.0 + 0.5 * noise
        elif name.endswith(("post_attention_layernorm.weight", "post_feedforward_layernorm.weight")):
            values = gain * (1.0 + 0.3 * noise)
        elif tensor.ndim < 2 or name.endswith("scale"):
            values = 1.0 + 0.3 * noise
        elif name.endswith("embed_tokens.weight"):
            values = 0.3 * noise
        elif name.endswith("router.proj.weight"):
            values = 2.0 * noise
        else:
            values = 1.5 * noise * tensor.shape[-1] ** -0.5
        tensor.copy_(values)


def flatten_config(source: Path, directory: Path) -> Path:
    """Copies a checkpoint with its config rewritten to the flat keys that the released one has."""
    directory.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    edit_json(directory / "config.json", _flatten)
    return directory


def _flatten(config: dict[str, Any]) -> None:
    text = config.get("text_config", config)
    per_layer = text.pop("per_layer_config")
    full = next(iter(per_layer.values()))
    text["global_head_dim"] = full["head_dim"]
    if "num_key_value_heads" in full:
        text["num_global_key_value_heads"] = full["num_key_value_heads"]
    text.setdefault("attention_k_eq_v", True)
    text.pop("transformers_version", None)


def edit_json(path: Path, edit: Any) -> None:
    """Applies `edit` to the parsed content of a JSON file, in place."""
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content, indent=2))
