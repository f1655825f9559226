"""The model that a plan is for: a checkpoint, or a shape without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from redraft.bench.shapes import shape_config
from redraft.checkpoint.source import Source
from redraft.checkpoint.vision import vision_parameters
from redraft.engine.footprint import FORMS, weight_bytes
from redraft.model.config import ModelConfig


def planned_model(model: str | None, path: Path | None, shape: str | None) -> tuple[ModelConfig, dict[str, Any]]:
    """(its config, what the plan's document says of it).

    Args:
        model: as it was named.
        path: where it lies; None for a shape.
        shape: a named one; None is the released model's.

    Raises:
        CheckpointError: it cannot be read.
    """
    stored, seeing = None, 0
    if path is None:
        config = shape_config(shape or "full")
    elif path.is_dir() and not any(path.glob("*.safetensors*")):
        # A config alone can be planned for.
        config = ModelConfig.from_directory(path)
    else:
        source = Source.open(path)
        config, stored = source.config, sum(tensor.nbytes for tensor in source.tensors.values())
        seeing = vision_parameters(source)
    experts, others = weight_bytes(config, FORMS[0], on_cpu=True)
    return config, {
        "name": model or shape or "full",
        "parameters": (experts + others) // 4,
        "expert_parameters": experts // 4,
        "layers": config.num_hidden_layers,
        "experts": config.num_experts,
        "canvas_length": config.canvas_length if config.has_canvas else None,
        "stored_bytes": stored,
        "vision_parameters": seeing,
    }
