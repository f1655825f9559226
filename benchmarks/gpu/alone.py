"""Each kernel by itself at the shape's own sizes, caches cold: milliseconds, bytes a second, share of the floor.

The public functions are called, so that whatever form a device gets is what is measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from clock import timed
from context import Context
from torch import Generator, Tensor
from weights import DTYPE, float8_matrix, int4_matrix, int8_matrix, reach

from redraft.engine.canvas import NOISE_STEPS
from redraft.kernels import norm
from redraft.kernels.attention import canvas_attention
from redraft.kernels.experts import experts, experts_float8, experts_int4, experts_int8
from redraft.kernels.head import head
from redraft.kernels.int8 import PackedInt8, int8_linear
from redraft.kernels.matrices.int8 import Int8Matrix
from redraft.kernels.triton.fallback import on_gpu
from redraft.placement.quantized import Float8Linear
from redraft.sampler.advance import Canvases, Found

_EPS = 1e-6
# Times a token's unit embedding: its logit is some fifty deviations above the others'.
SURE = 25.0
_GROUP_BYTES = {"int4": 0.5 + 1 / 32, "fp8": 1.0, "int8": 1.0, "bf16": 2.0}


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """Work with the bytes that it must move at least, its operations, and the dtype of its products."""

    work: Callable[[], Any]
    bytes_moved: float
    operations: float = 0.0
    products: str = "bfloat16"


def run(context: Context) -> None:
    """The most expensive first."""
    context.models.drop()
    generator = torch.Generator(context.clock.device).manual_seed(0)
    made = {**mixture(context, generator), **others(context, generator)}
    for name, make in made.items():
        context.store.measure((name,), lambda make=make: _timed(context, make()), needs_s=4.0)


def _timed(context: Context, kernel: Kernel) -> dict[str, Any]:
    clock = context.clock
    # Launches one by one take longer than some kernels.
    work, note = clock.captured(kernel.work)
    found = timed(clock.samples_ms(work, seconds=0.3, most=50, cold=True))
    seconds = found["median_ms"] / 1e3
    rate = context.rates.get(kernel.products) or context.rates.get("bfloat16")
    floor = kernel.bytes_moved / context.read_bytes_per_s
    if rate:
        floor = max(floor, kernel.operations / rate)
    return found | {
        "bytes": kernel.bytes_moved,
        "bytes_per_s": kernel.bytes_moved / seconds,
        "operations_per_s": kernel.operations / seconds,
        "floor_ms": 1e3 * floor,
        "floor_share": floor / seconds,
        "form": "graph" if note is None else "eager",
        "note": note,
    }


def mixture(context: Context, generator: Generator) -> dict[str, Callable[[], Kernel]]:
    config, device = context.config, context.clock.device
    shapes = (
        (config.num_experts, 2 * config.moe_intermediate_size, config.hidden_size),
        (config.num_experts, config.hidden_size, config.moe_intermediate_size),
    )

    def made(form: str, touched: int) -> Kernel:
        if form == "bf16":
            pair = [torch.randn(s, device=device, generator=generator, dtype=DTYPE) * s[-1] ** -0.5 for s in shapes]
        else:
            pair = [
                {"int4": int4_matrix, "int8": int8_matrix, "fp8": float8_matrix}[form](s, device, generator)
                for s in shapes
            ]
        if form == "int4" and on_gpu(pair[0].data):
            from redraft.kernels.triton.experts import packed_int4

            pair = [packed_int4(matrix, paired=number == 0) for number, matrix in enumerate(pair)]
        function: Any = {"int4": experts_int4, "int8": experts_int8, "fp8": experts_float8, "bf16": experts}[form]
        N, count = config.canvas_length, reach(config, touched)
        x = torch.randn(N, config.hidden_size, device=device, generator=generator).to(DTYPE)
        index = torch.rand(N, count, device=device, generator=generator).topk(config.top_k_experts, dim=-1).indices
        weight = torch.rand(N, config.top_k_experts, device=device, generator=generator)
        one = 3 * config.hidden_size * config.moe_intermediate_size
        return Kernel(
            work=lambda: function(x, index, weight, *pair),
            bytes_moved=len(index.unique()) * one * _GROUP_BYTES[form],
            operations=2.0 * N * config.top_k_experts * one,
            products=form if form in ("fp8", "int8") else "bfloat16",
        )

    return {
        f"experts {form}, {reach(config, touched)}": lambda form=form, touched=touched: made(form, touched)
        for form in _GROUP_BYTES
        for touched in (128, 84)
    }


def others(context: Context, generator: Generator) -> dict[str, Callable[[], Kernel]]:
    config = context.config
    found: dict[str, Callable[[], Kernel]] = {
        "head int8": lambda: _head(context, generator, integer=True),
        "head bf16": lambda: _head(context, generator, integer=False),
        "head int8, sure of its tokens": lambda: _head(context, generator, integer=True, sure=True),
    }
    for layer in {layer.head_dim: layer for layer in config.layers}.values():
        contexts = context.contexts if layer.window is None else (min(layer.window - 1, context.contexts[0]),)
        for at in contexts:
            found[f"attention, heads of {layer.head_dim}, {at} cached"] = lambda layer=layer, at=at: _attention(
                context, generator, layer.num_key_value_heads, layer.head_dim, at
            )
        found[f"norm of heads of {layer.head_dim}"] = lambda layer=layer: _norm_heads(
            context, generator, layer.num_key_value_heads, layer.head_dim
        )
    queries = config.num_attention_heads * config.layers[0].head_dim
    for name, rows, columns in (
        ("queries", queries, config.hidden_size),
        ("gate", config.intermediate_size, config.hidden_size),
        ("down", config.hidden_size, config.intermediate_size),
    ):
        for form in ("fp8", "int8", "bf16"):
            found[f"dense {name} {form}"] = lambda form=form, rows=rows, columns=columns: _dense(
                context, generator, form, rows, columns
            )
    found["norm"] = lambda: _norm(context, generator, adds=False)
    found["norm and residual"] = lambda: _norm(context, generator, adds=True)
    found["accept, renoise, stop"] = lambda: _sampler(context, generator)
    if on_gpu(torch.empty(0, device=context.clock.device)):
        from alone_layer import works

        for name, make in works(context, generator).items():
            found[name] = lambda make=make: _made(*make())
    return found


def _made(work: Callable[[], Any], bytes_moved: float) -> Kernel:
    return Kernel(work=work, bytes_moved=bytes_moved)


def _random(context: Context, generator: Generator, *shape: int) -> Tensor:
    return torch.randn(shape, device=context.clock.device, generator=generator).to(DTYPE)


def _head(context: Context, generator: Generator, *, integer: bool, sure: bool = False) -> Kernel:
    config, device = context.config, context.clock.device
    V, D, N = config.vocab_size, config.hidden_size, config.canvas_length
    weight = int8_matrix((V, D), device, generator) if integer else _random(context, generator, V, D) * D**-0.5
    hidden = _random(context, generator, N, D)
    if sure and isinstance(weight, Int8Matrix):
        # As a canvas that is nearly done: each position is near one token.
        hidden = SURE * F.normalize(weight.dequantised(DTYPE)[:N], dim=-1)
    temperature, uniform = torch.full((N,), 0.7, device=device), torch.rand(N, device=device, generator=generator)
    scale = torch.tensor(D**0.5, dtype=DTYPE, device=device)
    cap = config.final_logit_softcapping
    return Kernel(
        work=lambda: head(
            hidden, weight, cap=cap, embed_scale=scale, temperature_N=temperature, uniform_N=uniform
        ),
        bytes_moved=V * D * (1 if integer else 2),
        # Logits, and the soft embedding.
        operations=4.0 * N * V * D,
        products="int8" if integer else "bfloat16",
    )  # fmt: skip


def _attention(context: Context, generator: Generator, heads: int, size: int, cached: int) -> Kernel:
    T, H = context.config.canvas_length, context.config.num_attention_heads
    q = _random(context, generator, 1, T, H, size) * size**-0.25
    sources = [_random(context, generator, 1, heads, count, size) for count in (cached, cached, T, T)]
    return Kernel(
        work=lambda: canvas_attention(q, *sources),
        bytes_moved=2 * (2 * heads * (cached + T) * size + 2 * T * H * size),
        operations=4.0 * T * H * size * (cached + T),
    )


def _dense(context: Context, generator: Generator, form: str, rows: int, columns: int) -> Kernel:
    N, device = context.config.canvas_length, context.clock.device
    x = _random(context, generator, N, columns)
    if form == "fp8":
        linear: Callable[[Tensor], Tensor] = Float8Linear(float8_matrix((rows, columns), device, generator))
    elif form == "int8":
        packed = PackedInt8.of(int8_matrix((rows, columns), device, generator))
        linear = lambda given: int8_linear(given, packed)  # noqa: E731
    else:
        weight = _random(context, generator, rows, columns)
        linear = lambda given: torch.nn.functional.linear(given, weight)  # noqa: E731
    return Kernel(
        work=lambda: linear(x),
        bytes_moved=rows * columns * (2 if form == "bf16" else 1) + 2 * N * (rows + columns),
        operations=2.0 * N * rows * columns,
        products="bfloat16" if form == "bf16" else form,
    )


def _norm(context: Context, generator: Generator, *, adds: bool) -> Kernel:
    N, D = context.config.canvas_length, context.config.hidden_size
    x, residual, weight = (_random(context, generator, *shape) for shape in ((N, D), (N, D), (D,)))
    scalar = torch.ones(1, dtype=DTYPE, device=x.device)
    if adds:
        return Kernel(work=lambda: norm.norm_add(x, weight, residual, scalar, _EPS), bytes_moved=3 * x.nbytes)
    return Kernel(work=lambda: norm.rms_norm(x, weight, _EPS), bytes_moved=2 * x.nbytes)


def _norm_heads(context: Context, generator: Generator, heads: int, size: int) -> Kernel:
    T, H = context.config.canvas_length, context.config.num_attention_heads
    q, k, v = (_random(context, generator, 1, T, count, size) for count in (H, heads, heads))
    weights = (_random(context, generator, size), _random(context, generator, size))
    angles = torch.rand(1, T, 1, size // 2, device=q.device, generator=generator) * 9
    table = (angles.cos().to(DTYPE), angles.sin().to(DTYPE))
    moved = 2 * (q.nbytes + k.nbytes + v.nbytes)
    return Kernel(work=lambda: norm.norm_heads(q, k, v, weights, table, _EPS), bytes_moved=moved)


def _sampler(context: Context, generator: Generator) -> Kernel:
    L, V, device = context.config.canvas_length, context.config.vocab_size, context.clock.device
    canvases = Canvases.empty(1, L, 1, NOISE_STEPS, device)
    entropy = torch.rand(1, L, device=device, generator=generator)
    argmax, sample = torch.randint(V, (2, 1, L), device=device, generator=generator)
    stats = Found(argmax=argmax, sample=sample, entropy=entropy, best_log_prob=-entropy)
    return Kernel(work=lambda: canvases.advance(stats), bytes_moved=8 * sample.nbytes)
