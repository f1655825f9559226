"""Steps of the real shape in one form: the points that matter most, and all the others."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any

import torch
from context import Context
from parts import floors_by_part, part_times_ms
from step import make_commit, make_plain_step, make_step, make_token
from weights import FORMS, experts_touched, reach, set_routers

from redraft.bench.floor import part_floors_s, step_parts
from redraft.kernels.triton import fallback
from redraft.model.model import DiffusionGemma

# As `bench.floor` calls the forms.
_WEIGHTS = {"int4": "int4", "fp8": "fp8", "bf16": "bfloat16"}
# Of 128: all, and what the canvases of clean text reach.
_TOUCHED = (128, 84)
# What a measurement may need at most, in seconds: a model is made and kernels are compiled in the first.
_NEEDS_S = 12.0


def run(context: Context, form: str) -> None:
    """One canvas at every context, and the autoregressive mode."""
    assert form in FORMS
    for touched, positions in [(128, 0), (84, 0), (128, 1), (128, 2), (84, 1), (84, 2)]:
        if positions < len(context.contexts):
            _measure(context, form, touched, context.contexts[positions], 1)
    for batch in (context.batches[0], context.batches[-1]):
        keys = ("autoregressive", f"context_{context.contexts[0]}", f"batch_{batch}")
        context.store.measure(keys, lambda batch=batch: _token(context, form, batch), needs_s=_NEEDS_S)
    _fallbacks(context)


def run_more(context: Context, form: str) -> None:
    """Every other batch."""
    for batch, at, touched in _others(context):
        _measure(context, form, touched, at, batch)
    _fallbacks(context)


def _others(context: Context) -> Iterator[tuple[int, int, int]]:
    for at in context.contexts:
        for touched in _TOUCHED:
            for batch in context.batches[1:]:
                yield batch, at, touched


def _measure(context: Context, form: str, touched: int, at: int, batch: int) -> None:
    experts = reach(context.config, touched)
    keys = (f"experts_{experts}", f"context_{at}", f"batch_{batch}")
    context.store.measure(keys, lambda: _point(context, form, experts, at, batch), needs_s=_NEEDS_S)


def _point(context: Context, form: str, experts: int, at: int, batch: int) -> dict[str, Any]:
    clock, config = context.clock, context.config
    length = config.canvas_length
    model = context.models.get(form)
    set_routers(model, experts)
    clock.empty_cache()
    clock.reset_peak()
    step = make_step(model, batch, length, at)
    samples = clock.samples_ms(step.run, seconds=1.0)
    commit = clock.samples_ms(make_commit(model, step, length), seconds=0.5, most=20)
    # Before what a run does not do: the step again without a graph, and profiles.
    peak, reserved = clock.peak_bytes(), clock.reserved_bytes()
    step_ms, commit_ms = median(samples), median(commit)
    found: dict[str, Any] = {
        "step_ms": step_ms,
        "samples_ms": samples,
        "form": step.form,
        "note": step.note,
        "commit_ms": commit_ms,
        "commit_samples_ms": commit,
        "tokens_per_s": {
            str(steps): 1e3 * batch * length / (steps * step_ms + commit_ms) for steps in context.steps
        },
        "peak_memory_bytes": peak,
        "peak_reserved_bytes": reserved,
    }  # fmt: skip
    reached = experts_touched(model, step.work)
    found |= {"experts_touched": reached}
    try:
        found |= _floor(context, form, at, batch, round(reached["mean"]), step_ms)
    except (KeyError, ValueError) as error:
        found["floor_note"] = f"the part machine has not measured it: {error}"
    if batch == 1:
        found["parts"] = part_times_ms(model, step.work, clock, repeats=2 if context.small else 5)
        eager = clock.samples_ms(make_plain_step(model, step.cache, length), seconds=0.5, most=20)
        found |= {"eager_ms": median(eager), "eager_samples_ms": eager}
        # Once a form is enough, and its kernels are others to compile.
        if model.fused() is not None and at == context.contexts[0] and experts == reach(config, 128):
            found["modules"] = _by_modules(context, model, at)
    return found


def _by_modules(context: Context, model: DiffusionGemma, at: int) -> dict[str, Any]:
    """The same step as the modules run it, and how far apart the two are: both round to bfloat16 at some hundred
    places, and a choice of experts may flip."""
    clock, length = context.clock, context.config.canvas_length
    with model.by_modules():
        step = make_step(model, 1, length, at)
        samples = clock.samples_ms(step.run, seconds=0.5)
    canvas = torch.randint(model.config.vocab_size, (1, length)).to(model.device)
    soft = torch.randn(1, length, model.config.hidden_size).to(model.device, model.dtype)
    fused = model.denoise_hidden(canvas, step.cache, soft).double()
    with model.by_modules():
        meant = model.denoise_hidden(canvas, step.cache, soft).double()
    return {
        "step_ms": median(samples),
        "samples_ms": samples,
        "relative_difference": float((fused - meant).norm() / meant.norm()),
        "same_argmax": float((model.logits(fused.to(model.dtype)).argmax(-1) == model.logits(
            meant.to(model.dtype)).argmax(-1)).double().mean()),
    }  # fmt: skip


def _floor(context: Context, form: str, at: int, batch: int, touched: int, step_ms: float) -> dict[str, Any]:
    """The least that a step can take, from this machine's measured rates."""
    weights = _WEIGHTS[form]
    parts = step_parts(
        context.config,
        weights,
        positions=context.config.canvas_length,
        context=at,
        batch=batch,
        experts_touched=touched,
        activation_bytes=2,
    )
    floors = floors_by_part(parts, part_floors_s(parts, context.rates, context.read_bytes_per_s, weights))
    total = sum(floors.values())
    # Bytes alone: what the aim for the products of experts is stated in.
    experts = next(part for part in parts if part.name == "experts").bytes_read / context.read_bytes_per_s * 1e3
    return {
        "floor_ms": total,
        "floor_share": total / step_ms,
        "floor_parts_ms": floors,
        "experts_bytes_floor_ms": experts,
    }


def _token(context: Context, form: str, batch: int) -> dict[str, Any]:
    model = context.models.get(form)
    set_routers(model, reach(context.config, 128))
    token = make_token(model, batch, context.contexts[0])
    samples = context.clock.samples_ms(token, seconds=1.0, most=50)
    return {
        "token_ms": median(samples),
        "samples_ms": samples,
        "tokens_per_s": 1e3 * batch / median(samples),
        "experts_touched": experts_touched(model, token),
    }


def _fallbacks(context: Context) -> None:
    """Kernels that did not run on this device, so that torch's forms were measured."""
    context.store.results["fell_back"] = sorted(fallback._failed)
    context.store.save()
