"""What a denoising step costs at least: its operations and the bytes it must read, part by part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from redraft.bench.machine import Machine
from redraft.model.config import ModelConfig

_WEIGHT_BYTES = {"float32": 4, "bfloat16": 2, "fp8": 1, "int8": 1, "int4": 1}
# int4: half a byte a weight and a scale byte for 32 of them. What is no expert is int8 there.
_EXPERT_BYTES = _WEIGHT_BYTES | {"int4": 0.5 + 1 / 32}


@dataclass(frozen=True, kw_only=True)
class Part:
    """Operations (a product and a sum are two) and bytes read of one part of a step."""

    name: str
    operations: float
    bytes_read: float


def step_parts(
    config: ModelConfig,
    dtype: str,
    *,
    positions: int,
    context: int,
    batch: int = 1,
    experts_touched: int | None = None,
    activation_bytes: int | None = None,
    causal: bool = False,
) -> list[Part]:
    """The parts of one forward: a denoising step, or the causal mode's.

    Args:
        config: of the model.
        dtype: "float32", "bfloat16", "fp8", "int8" or "int4", of the weights; scales of whole rows are left out.
        positions: of each canvas.
        context: cached positions before it.
        batch: canvases.
        experts_touched: distinct experts of a layer that the rows choose; None takes all that they could.
        activation_bytes: of one number of an activation and of the cache; None takes 4 for float32, else 2.
        causal: whether it is the causal mode, which has no self-conditioning and whose head makes logits only.
    """
    D, width = config.hidden_size, _WEIGHT_BYTES[dtype]
    rows = positions * batch
    activation = activation_bytes or (4 if dtype == "float32" else 2)
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
    touched = min(config.num_experts, rows * config.top_k_experts, experts_touched or config.num_experts)
    conditioning = 0 if causal or not config.has_canvas else 3 * D * config.intermediate_size
    head = config.vocab_size * D
    return [
        Part(name="projections", operations=2.0 * rows * projection, bytes_read=projection * width),
        Part(name="attention", operations=attention, bytes_read=cache),
        Part(name="dense", operations=2.0 * rows * (dense + conditioning), bytes_read=(dense + conditioning) * width),
        Part(
            name="experts",
            operations=2.0 * rows * config.top_k_experts * one_expert * layers,
            bytes_read=touched * one_expert * layers * _EXPERT_BYTES[dtype],
        ),
        # Logits and soft embedding are two products with one matrix.
        Part(name="head", operations=(2.0 if causal else 4.0) * rows * head, bytes_read=head * width),
    ]


def part_floors_s(
    parts: list[Part], rates: Mapping[str, float], read_bytes_per_s: float, dtype: str
) -> dict[str, float]:
    """Seconds of each part: at the highest rate of its products, or at the bandwidth where that takes longer.

    Args:
        parts: of a step.
        rates: operations a second by "float32", "bfloat16" and, where there are such products, "fp8", "int8", "int4".
        read_bytes_per_s: of the memory that holds the weights.
        dtype: of the weights.
    """
    return {
        part.name: max(part.operations / _rate(rates, dtype, part.name), part.bytes_read / read_bytes_per_s)
        for part in parts
    }


def _rate(rates: Mapping[str, float], dtype: str, part: str) -> float:
    """Weights of fewer bits are widened to floating point where that is faster than products of their own kind.

    Attention's products stay in floating point whatever the weights are.
    """
    if dtype in ("float32", "bfloat16"):
        return rates[dtype]
    kind = "bfloat16" if part == "attention" else "int8" if dtype == "int4" and part != "experts" else dtype
    # A CPU may have no bfloat16 products to speak of.
    return max(rates.get(name, 0.0) for name in (kind, "bfloat16", "float32"))


def floor_s(parts: list[Part], machine: Machine, dtype: str) -> float:
    """Seconds of all parts at this machine's measured peaks."""
    return sum(part_floors_s(parts, cpu_rates(machine.peak_flops), machine.read_bytes_per_s, dtype).values())


def cpu_rates(peak_flops: Mapping[str, float]) -> dict[str, float]:
    """A CPU's rates with that of int4, whose codes are multiplied as int8."""
    return dict(peak_flops) | {"int4": peak_flops["int8"]}
