"""A recipe for who has none: from a model, a file of conversations and a folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from redraft.checkpoint.locate import locate
from redraft.core.errors import RecipeError
from redraft.model.config import ModelConfig
from redraft.text.conversations import Conversation, read_conversations
from redraft.train.checking import default_length
from redraft.train.recipe import apply_override

# Below this width a model is trained in minutes, and has to see its rows many times.
_SMALL = 1024
_FEWEST_TO_HOLD_OUT = 40
_HEAD = """# Made by `redraft train --init ... --data ... --out ...`. A run goes on with it as it is: to change
# something, copy it, or give --set and another --out.
"""
# Characters of a reply that can be expected word for word.
_SHORT = 80


def write_default_recipe(
    init: str, data: Path, out: Path, overrides: Sequence[str] = (), *, skip_bad: bool = False
) -> Path:
    """Writes `recipe.yaml` into a folder, for an adapter of a model and a file; one that says the same may be there.

    Args:
        init: "mini" or a checkpoint directory.
        data: conversations.
        out: the folder, which the run writes into as well.
        overrides: `key=value`, as `read_recipe` takes them; they become part of it.
        skip_bad: leaves out rows that cannot be used.

    Raises:
        RecipeError: another recipe is there, or an override cannot be read.
        DataError: see `read_conversations`.
        ModelNotFoundError, CheckpointError: of the model.
    """
    directory = locate(init)
    config = ModelConfig.from_directory(directory)
    fields = default_fields(config, read_conversations(data, [] if skip_bad else None))
    name = str(directory.resolve()) if Path(init).exists() else init
    fields = {"output": ".", "init": name, "data": [{"path": str(data.resolve())}], "skip_bad": skip_bad} | fields
    for override in overrides:
        apply_override(fields, override)
    text = _HEAD + yaml.safe_dump(fields, sort_keys=False)
    path = out / "recipe.yaml"
    if path.exists() and path.read_text(encoding="utf-8") != text:
        found = _differing(path, fields)
        raise RecipeError(
            f"{path} is there and differs{found}: `redraft train {path}` goes on with it; or name another --out"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"--out: {out} cannot be written ({error.strerror}): name another folder") from None
    return path


def default_fields(config: ModelConfig, rows: Sequence[Conversation]) -> dict[str, Any]:
    """What a recipe says of how a model of this shape learns these rows.

    The rate is what an adapter of mini took, and smaller in wider models, as published ones are: 2.7e-4 in the released
    one.
    """
    small = config.hidden_size < _SMALL
    batch_size = min(16 if small else 4, len(rows))
    steps = min(2000, max(100, math.ceil((8 if small else 2) * len(rows) / batch_size)))
    enough = len(rows) >= _FEWEST_TO_HOLD_OUT
    return {
        "adapter": {
            "targets": ["attention", "dense", "experts"],
            "rank": 8 if small else 16,
            "alpha": 16.0 if small else 32.0,
            "rank_pattern": {"experts": 4},
            "alpha_pattern": {"experts": 8.0},
        },
        "canvases": "all",
        "max_length": default_length(config),
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": float(f"{0.75 / config.hidden_size:.1e}"),
        "warmup_steps": steps // 20,
        "weight_decay": 0.0,
        "ema": float(f"{1 - 10 / steps:.3f}"),
        "self_conditioning": 0.75,
        "soft_temperature": [0.4, 0.8],
        "noise_power": 2.0 if small else 1.0,
        "rollout": 0.5,
        "rollout_steps": 4,
        "rollout_from": steps // 4,
        "prompt_weight": 0.0,
        "trim_fill": 0.5,
        "held_out": float(f"{min(0.1, 200 / len(rows)):.3g}") if enough else 0.0,
        "grader": _grader(rows) if enough else "none",
        "eval_every": max(1, steps // 5),
    }


def _grader(rows: Sequence[Conversation]) -> str:
    last = [[m for m in row.messages if m["role"] == "assistant"][-1:] for row in rows]
    replies = [reply for found in last for reply in found]
    if 2 * sum(bool(reply.get("tool_calls")) for reply in replies) >= max(1, len(replies)):
        return "calls"
    short = sum(len(reply.get("content") or "") <= _SHORT for reply in replies)
    return "exact" if 2 * short >= max(1, len(replies)) else "none"


def _differing(path: Path, fields: dict[str, Any]) -> str:
    try:
        there = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError):
        return ""
    names = [name for name in fields if not isinstance(there, dict) or there.get(name) != fields[name]]
    return f" in {', '.join(names)}" if names else ""
