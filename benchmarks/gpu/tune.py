"""Launches other than the shipped ones: which is fastest here, kernel by kernel, and by how much.

    python benchmarks/gpu/run.py --out results --parts machine,tune

Some five minutes, most of them a compiler's. Nothing is changed: the tables are in `kernels/triton/`, `configs.py`,
`dense.py`, `attention.py` and `head.py`. A launch that does not compile, or wants too much shared memory, is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from itertools import product
from statistics import median
from typing import Any

import torch
from context import Context
from store import Skipped
from torch import Tensor
from weights import DTYPE, float8_matrix, int4_matrix, int8_matrix, reach

from redraft.kernels.triton.fallback import on_gpu

Candidates = Iterator[tuple[dict[str, Any], Callable[[], Any]]]
# Contexts at which attention is tried, and how often each candidate is timed, in seconds.
_CONTEXTS, _SECONDS = (1024, 8192), 0.15


def run(context: Context) -> None:
    """The products of experts first, which are most of a step."""
    if not on_gpu(torch.empty(0, device=context.clock.device)):
        raise Skipped("no GPU, or no Triton")
    context.models.drop()
    generator = torch.Generator(context.clock.device).manual_seed(0)
    kernels: dict[str, Callable[[], Candidates]] = {
        f"experts {form}": lambda form=form: _experts(context, generator, form)
        for form in ("int4", "fp8", "int8", "bf16")
    }
    config = context.config
    queries = [layer.head_dim * config.num_attention_heads for layer in config.layers]
    for rows, columns in (
        (config.hidden_size, min(queries)),
        (config.hidden_size, max(queries)),
        (2 * config.intermediate_size, config.hidden_size),
        (config.hidden_size, config.intermediate_size),
    ):
        kernels[f"dense {rows} x {columns}"] = lambda rows=rows, columns=columns: _dense(
            context, generator, rows, columns
        )
    for layer in {layer.head_dim: layer for layer in config.layers}.values():
        for at in _CONTEXTS if layer.window is None else (layer.window - 1,):
            kernels[f"attention {layer.head_dim}, {at} cached"] = lambda layer=layer, at=at: _attention(
                context, generator, layer.num_key_value_heads, layer.head_dim, at
            )
    kernels["head int8"] = lambda: _head(context, generator)
    for name, candidates in kernels.items():
        context.store.measure((name,), lambda candidates=candidates: _best(context, candidates()), needs_s=20.0)


def _best(context: Context, candidates: Candidates) -> dict[str, Any]:
    """All of them, the fastest first; the shipped launch comes first of all."""
    tried: list[dict[str, Any]] = []
    for chosen, work in candidates:
        try:
            # Launched one by one, the host would be what is timed.
            launch, note = context.clock.captured(work)
            samples = context.clock.samples_ms(launch, seconds=_SECONDS, most=30, cold=True)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            tried.append(chosen | {"error": " ".join(str(error).split())[:120]})
        else:
            tried.append(chosen | {"ms": median(samples), "captured": note is None})
    shipped = tried[0].get("ms")
    timed = sorted((each for each in tried if "ms" in each), key=lambda each: each["ms"])
    faster = shipped / timed[0]["ms"] if shipped and timed else None
    return {"shipped_ms": shipped, "best": timed[0] if timed else None, "times_as_fast": faster, "tried": tried}


def _random(context: Context, generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, device=context.clock.device, generator=generator).to(DTYPE)


def _experts(context: Context, generator: torch.Generator, form: str) -> Candidates:
    from redraft.kernels.triton.configs import Config, configs_of
    from redraft.kernels.triton.experts import experts_triton, packed_int4, rounded_for
    from redraft.kernels.triton.target import target_of

    config, device = context.config, context.clock.device
    E, D, I = config.num_experts, config.hidden_size, config.moe_intermediate_size
    make: Any = {"int4": int4_matrix, "fp8": float8_matrix, "int8": int8_matrix}.get(form)
    shapes = ((E, 2 * I, D), (E, D, I))
    stacks = [make(s, device, generator) if make else _random(context, generator, *s) * s[-1] ** -0.5 for s in shapes]
    if form == "int4":
        stacks = [packed_int4(stack, paired=number == 0) for number, stack in enumerate(stacks)]
    x = _random(context, generator, config.canvas_length, D)
    count = reach(config, 128)
    index = torch.rand(len(x), count, device=device, generator=generator).topk(config.top_k_experts, dim=-1).indices
    weight = torch.rand(len(x), config.top_k_experts, device=device, generator=generator)
    kind = "narrow" if rounded_for(stacks[0]) is not None else "widened" if form == "fp8" else form
    shipped = configs_of(*target_of(device), index.numel() / E, form=kind)
    # So few registers do for int4 alone; the others keep some on the stack.
    limits = (None, 168) if form == "int4" else (None,)
    others = [
        replace(shipped, block=block, gate_up=one, down=one)
        for block, stages, registers in product((32, 64), (3, 4, 5, 6), limits)
        for one in [Config(warps=4, stages=stages, maxnreg=registers)]
    ]
    for chosen in [shipped, *others]:
        yield asdict(chosen), lambda chosen=chosen: experts_triton(x, index, weight, *stacks, configs=chosen)


def _dense(context: Context, generator: torch.Generator, rows: int, columns: int) -> Candidates:
    from redraft.kernels.triton.dense import ROUNDED, DenseConfig, dense_parts, float8_operands
    from redraft.kernels.triton.rows import rounded

    matrix = float8_matrix((rows, columns), context.clock.device, generator)
    operands = float8_operands(matrix.data.device)
    given = rounded(_random(context, generator, context.config.canvas_length, columns), ROUNDED[operands])

    def work(config: DenseConfig | None, parts: int | None) -> Callable[[], Any]:
        return lambda: dense_parts(given, matrix.data, matrix.scale, operands, DTYPE, config, parts)

    yield {"shipped": True}, work(None, None)
    for width, depth, stages, parts in product((64, 128), (64, 128), (3, 4), (1, 2, 3, 4)):
        config = DenseConfig(rows=128, columns=width, depth=depth, warps=8, stages=stages)
        yield asdict(config) | {"parts": parts}, work(config, parts)


def _attention(context: Context, generator: torch.Generator, heads: int, size: int, cached: int) -> Candidates:
    from redraft.kernels.triton.attention import AttentionConfig, attention_triton

    T, H = context.config.canvas_length, context.config.num_attention_heads
    q = _random(context, generator, 1, T, H, size) * size**-0.5
    sources = [_random(context, generator, 1, heads, count, size) for count in (cached, cached, T, T)]

    def work(config: AttentionConfig | None, parts: int | None) -> Callable[[], Any]:
        return lambda: attention_triton(q, *sources, config=config, parts=parts)

    yield {"shipped": True}, work(None, None)
    for rows, keys, warps, stages, parts in product((64, 128), (32, 64), (8,), (2, 3), (None, 2, 4, 8)):
        config = AttentionConfig(rows=rows, keys=keys, warps=warps, stages=stages)
        yield asdict(config) | {"parts": parts}, work(config, parts)


def _head(context: Context, generator: torch.Generator) -> Candidates:
    from redraft.kernels.triton.head import head_config, head_triton
    from redraft.kernels.triton.target import shared_bytes

    shape, device = context.config, context.clock.device
    N, D = shape.canvas_length, shape.hidden_size
    matrix = int8_matrix((shape.vocab_size, D), device, generator)
    hidden, scale = _random(context, generator, N, D), torch.tensor(D**0.5, dtype=DTYPE, device=device)
    temperature, uniform = torch.full((N,), 0.7, device=device), torch.rand(N, device=device, generator=generator)
    shipped = head_config(N, shared_bytes(device))
    others = [
        replace(shipped, columns=columns, depth=depth, width=width, soft_stages=stages, parts=parts)
        for columns, depth, width, stages, parts in product((128, 256), (64, 128), (128, 256), (2, 3), (3, 6, 12))
    ]
    for chosen in [shipped, *others]:
        yield (
            asdict(chosen),
            lambda chosen=chosen: head_triton(
                hidden, matrix, cap=shape.final_logit_softcapping, embed_scale=scale, temperature_N=temperature,
                uniform_N=uniform, config=chosen,
            ),
        )  # fmt: skip
