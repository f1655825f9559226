"""A run so small that it takes a second, and its data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load_file

TEMPLATE = Path(__file__).parent.parent / "recipes" / "mini" / "chat_template.jinja"
RECIPE = {
    "output": "run",
    "data": [{"path": "data.jsonl"}],
    "model": {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "global_head_dim": 16,
        "num_global_key_value_heads": 1,
        "num_experts": 4,
        "top_k_experts": 2,
        "moe_intermediate_size": 16,
        "num_hidden_layers": 2,
        "canvas_length": 24,
    },
    "tokenizer": {"vocab_size": 420, "chat_template": str(TEMPLATE)},
    "augment": {"swap": 0.5, "random_words": 0.2},
    "steps": 8,
    "batch_size": 8,
    "warmup_steps": 2,
    "eval_every": 4,
    "save_every": 2,
    "log_every": 1,
    "held_out": 0.2,
    "trim_fill": 0.5,
    "threads": 1,
}
NAMES = ["Ann", "Bob", "Cleo", "Dora", "Ed", "Fay", "Gus", "Hal"]


def conversation(i: int) -> dict[str, Any]:
    name, day = NAMES[i % 8], ["Monday", "Friday"][i // 8 % 2]
    call = {"type": "function", "function": {"name": "Call", "arguments": {"who": name, "day": day}}}
    messages = [
        {"role": "user", "content": f"please call {name} on {day}"},
        {"role": "assistant", "tool_calls": [call]},
    ]
    if i % 5 == 0:
        messages += [{"role": "user", "content": "thanks"}, {"role": "assistant", "content": "You are welcome."}]
    return {"messages": messages}


def write_recipe(directory: Path, **changes: Any) -> Path:
    """`recipe.yaml`, with the data beside it; fields that are None are left out."""
    (directory / "data.jsonl").write_text("".join(json.dumps(conversation(i)) + "\n" for i in range(64)))
    fields = {name: value for name, value in (RECIPE | changes).items() if value is not None}
    (directory / "recipe.yaml").write_text(yaml.safe_dump(fields))
    return directory / "recipe.yaml"


def written(output: Path) -> dict[str, Any]:
    """What a run has written that follows from its recipe: losses, weights, moments, where it stands."""
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    found = {"rows": [{key: value for key, value in row.items() if key != "tokens_per_s"} for row in rows]}
    found["progress"] = json.loads((output / "state" / "progress.json").read_text())
    for part in ("model", "last", "state"):
        [path] = (output / part).glob("*.safetensors")
        tensors = load_file(path).items()
        found[part] = {name: tensor.numpy().tobytes() for name, tensor in tensors}
    return found
