"""What a denoising step costs at least: its operations and the bytes it must read, part by part."""

from __future__ import annotations

from dataclasses import dataclass

from redraft.bench.machine import Machine
from redraft.model.config import ModelConfig

_WEIGHT_BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}


@dataclass(frozen=True, kw_only=True)
class Part:
    """Operations (a product and a sum are two) and bytes read of one part of a step."""

    name: str
    operations: float
    bytes_read: float


def step_parts(config: ModelConfig, dtype: str, *, positions: int, context: int, batch: int = 1) -> list[Part]:
    """The parts of one denoising step.

    Args:
        config: of the model.
        dtype: "float32", "bfloat16" or "int8", of the weights.
        positions: of each canvas.
        context: cached positions before it.
        batch: canvases.
    """
    D, width = config.hidden_size, _WEIGHT_BYTES[dtype]
    rows = positions * batch
    activation = 4 if dtype == "float32" else 2
    projection = attention = cache = 0
    for layer in config.layers:
        queries = config.num_attention_heads * layer.head_dim
        keys = layer.num_key_value_heads * layer.head_dim
        projection += D * (2 * queries + keys * (1 if layer.shares_key_value else 2))
        seen = context if layer.window is None else min(context, layer.window - 1)
        attention += 4 * rows * queries * (seen + positions)
        cache += 2 * batch * keys * (seen + positions) * activation
    layers = len(config.layers)
    dense = 3 * D * config.intermediate_size * layers
    one_expert = 3 * D * config.moe_intermediate_size
    touched = min(config.num_experts, rows * config.top_k_experts)
    conditioning = 3 * D * config.intermediate_size
    head = config.vocab_size * D
    return [
        Part(name="projections", operations=2.0 * rows * projection, bytes_read=projection * width),
        Part(name="attention", operations=attention, bytes_read=cache),
        Part(name="dense", operations=2.0 * rows * (dense + conditioning), bytes_read=(dense + conditioning) * width),
        Part(
            name="experts",
            operations=2.0 * rows * config.top_k_experts * one_expert * layers,
            bytes_read=touched * one_expert * layers * width,
        ),
        # Logits and soft embedding are two products with one matrix.
        Part(name="head", operations=4.0 * rows * head, bytes_read=head * width),
    ]


def floor_s(parts: list[Part], machine: Machine, dtype: str) -> float:
    """Seconds: every part at the measured peak, or at the measured bandwidth where that takes longer.

    Attention's products stay in floating point whatever the weights are.
    """
    total = 0.0
    for part in parts:
        kind = "bfloat16" if part.name == "attention" and dtype == "int8" else dtype
        total += max(part.operations / machine.peak_flops[kind], part.bytes_read / machine.read_bytes_per_s)
    return total
