"""Random checkpoints of a given shape, made once and kept under the user's cache."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from redraft.checkpoint.convert import Progress
from redraft.checkpoint.convert import quantize as write_quantized
from redraft.checkpoint.random import random_source
from redraft.checkpoint.rounding import RECIPES
from redraft.checkpoint.save import save_checkpoint
from redraft.core.errors import InputError
from redraft.core.files import cache_directory
from redraft.model.config import ModelConfig
from redraft.model.model import DiffusionGemma
from redraft.model.scratch import generation_config, initialise, scratch_config

# `mid` is what a laptop does in a second a step; `full` is the released checkpoint's text model.
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": dict(
        canvas_length=32, vocab_size=1024, hidden_size=64, intermediate_size=48, num_hidden_layers=6,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, num_global_key_value_heads=1, global_head_dim=32,
        num_experts=4, top_k_experts=2, moe_intermediate_size=16, sliding_window=256, max_position_embeddings=4096,
    ),
    "mid": dict(
        canvas_length=256, vocab_size=65536, hidden_size=768, intermediate_size=576, num_hidden_layers=6,
        num_attention_heads=8, num_key_value_heads=4, head_dim=96, num_global_key_value_heads=2, global_head_dim=192,
        num_experts=32, top_k_experts=8, moe_intermediate_size=192, sliding_window=1024, max_position_embeddings=65536,
    ),
    "full": dict(
        canvas_length=256, vocab_size=262144, hidden_size=2816, intermediate_size=2112, num_hidden_layers=30,
        num_attention_heads=16, num_key_value_heads=8, head_dim=256, num_global_key_value_heads=2, global_head_dim=512,
        num_experts=128, top_k_experts=8, moe_intermediate_size=704, sliding_window=1024,
        max_position_embeddings=262144,
    ),
}  # fmt: skip
_SPECIAL = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}


def shape_config(name: str, **changes: int) -> ModelConfig:
    """The config of a named shape with some sizes replaced.

    Raises:
        InputError: no such shape.
    """
    if name not in SHAPES:
        raise InputError(f"no shape {name!r}: there are {', '.join(SHAPES)}")
    shape = SHAPES[name] | changes
    return scratch_config(shape | _SPECIAL, shape.pop("canvas_length"))


def shape_directory(
    name: str, quantize: str | None = None, on_progress: Progress | None = None, **changes: int
) -> Path:
    """A checkpoint of this shape with random weights and no tokenizer; made on first use.

    Args:
        name: of the shape.
        quantize: a form of our quantised layout, written as such; None writes bfloat16.
        on_progress: see `convert.quantize`.
        changes: sizes that replace the shape's own.

    Raises:
        InputError: no such shape, or weights that would not fit this machine's memory or disk.
    """
    config = shape_config(name, **changes)
    sizes = json.dumps(SHAPES[name] | changes, sort_keys=True) + (quantize or "")
    directory = cache_directory("shapes") / f"{name}-{hashlib.sha256(sizes.encode()).hexdigest()[:12]}"
    if (directory / "config.json").exists():
        return directory
    defaults = json.dumps(generation_config(0, 2, [1])) + "\n"
    if quantize is not None:
        # Resumes where an earlier run was cut off; config.json comes last.
        write_quantized(random_source(config, name), directory, RECIPES[quantize], on_progress=on_progress)
        (directory / "generation_config.json").write_text(defaults, encoding="utf-8")
        return directory
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in DiffusionGemma(config).parameters())
    _check_room(name, count)
    model = DiffusionGemma(config)
    initialise(model, seed=0)
    fresh = directory.with_name(directory.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    save_checkpoint(model, fresh, dtype=torch.bfloat16)
    (fresh / "generation_config.json").write_text(defaults, encoding="utf-8")
    os.replace(fresh, directory)
    return directory


def _check_room(name: str, count: int) -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    folder = cache_directory("shapes")
    needed, disk = 4 * count, shutil.disk_usage(folder).free
    if needed > 0.8 * memory:
        raise InputError(
            f"shape {name!r} has {count / 1e9:.1f} billion parameters: {needed / 2**30:.0f} GB to make them, and this "
            f"machine has {memory / 2**30:.0f} GB; use fewer --layers or a smaller shape"
        )
    if 2 * count > disk:
        raise InputError(
            f"shape {name!r} needs {2 * count / 2**30:.1f} GB under {folder}, {disk / 2**30:.1f} GB are free"
        )
