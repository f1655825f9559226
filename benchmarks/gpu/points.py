"""Steps of the real shape in one form: the points that matter most, and all the others."""

from __future__ import annotations

from statistics import median
from typing import Any

import torch
from context import Context
from parts import floors_by_part, part_times_ms
from step import Step, make_commit, make_plain_step, make_step, make_token, same_bits
from store import Skipped
from weights import FORMS, experts_touched, reach, set_routers

from redraft.bench.floor import part_floors_s, step_parts
from redraft.model.model import DiffusionGemma
from redraft.placement.canvas_cache import DenoiseStatic

# As `bench.floor` calls the forms.
_WEIGHTS = {"int4": "int4", "fp8": "fp8", "bf16": "bfloat16"}
# Experts of 128, context, batch.
Point = tuple[int, int, int]
# Of 128: all, and what the canvases of clean text reach.
_TOUCHED = (128, 84)
# What a measurement may need at most, in seconds: in a form's first a model is made and kernels are compiled.
_FIRST_S, _NEEDS_S = 40.0, 8.0


def run_first(context: Context, form: str) -> None:
    """The point that is compared, and all that must hold of it before anything else is worth measuring."""
    _measure(context, form, _TOUCHED[0], context.contexts[0], 1, needs_s=_FIRST_S)


def run_dependent(context: Context, form: str) -> None:
    """The same point with kernels that start while the one before ends, in a process that was told so."""
    device = context.clock.device
    if device.type != "cuda" or torch.version.hip or torch.cuda.get_device_capability(device) < (9, 0):
        raise Skipped("programmatic dependent launch is for NVIDIA's GPUs of compute capability 9 and later")
    run_first(context, form)


def run(context: Context, form: str) -> None:
    """One canvas at every context, batches at the first, and the autoregressive mode."""
    assert form in FORMS
    _measure_all(context, form, _valuable(context, form))
    for batch in (context.batches[0], context.batches[-1]):
        keys = ("autoregressive", f"context_{context.contexts[0]}", f"batch_{batch}")
        context.store.measure(keys, lambda batch=batch: _token(context, form, batch), needs_s=_NEEDS_S)


def run_more(context: Context, form: str) -> None:
    """Every other batch."""
    every = [
        (touched, at, batch) for at in context.contexts for touched in _TOUCHED for batch in context.batches[1:]
    ]  # fmt: skip
    _measure_all(context, form, [point for point in every if point not in _valuable(context, form)])


def _valuable(context: Context, form: str) -> list[Point]:
    """The most valuable first; without what `run_first` has measured."""
    (first, *others), (_, *batches) = context.contexts, context.batches
    every, fewer = _TOUCHED
    points = [(every, first, 1), (fewer, first, 1), *((every, at, 1) for at in others)]
    points += [(every, first, batch) for batch in batches[-2:]]
    points += [(fewer, at, 1) for at in others]
    return points[1:] if context.found(f"{form}_first") else points


def _measure_all(context: Context, form: str, points: list[Point]) -> None:
    for number, (touched, at, batch) in enumerate(points):
        _measure(context, form, touched, at, batch, needs_s=_NEEDS_S if number else _FIRST_S)


def _measure(context: Context, form: str, touched: int, at: int, batch: int, *, needs_s: float) -> None:
    experts = reach(context.config, touched)
    keys = (f"experts_{experts}", f"context_{at}", f"batch_{batch}")
    context.store.measure(keys, lambda: _point(context, form, experts, at, batch), needs_s=needs_s)


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
        # Launches in a row: without what lies between two of them on the host.
        "device_ms": clock.between_launches_ms(step.launch),
        "samples_ms": samples,
        "captured": step.form == "graph",
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
        if at == context.contexts[0] and experts == reach(config, 128):
            found |= _first(context, model, step, at)
    return found


def _first(context: Context, model: DiffusionGemma, step: Step, at: int) -> dict[str, Any]:
    """What is asked once a form."""
    found: dict[str, Any] = {"same_bits": same_bits(step)}
    runner = model.runner
    if runner is None:
        return found
    # Its kernels are others to compile.
    found["modules"] = _by_modules(context, model, step, at)
    if model.without_branches():
        plain = make_step(model, 1, context.config.canvas_length, at)
        found["without_branch_ms"] = context.clock.between_launches_ms(plain.launch)
        runner.beside.open()
    return found


def _by_modules(context: Context, model: DiffusionGemma, step: Step, at: int) -> dict[str, Any]:
    """The same step as the modules run it, and how far apart the two are, over the cache and over what is captured of
    it: all round to bfloat16 at some hundred places, and a choice of experts may flip."""
    clock, length = context.clock, context.config.canvas_length
    with model.by_modules():
        samples = clock.samples_ms(make_step(model, 1, length, at).run, seconds=0.5)
    canvas = torch.randint(model.config.vocab_size, (1, length)).to(model.device)
    soft = torch.randn(1, length, model.config.hidden_size).to(model.device, model.dtype)
    static = step.graph.cache
    found = {
        "": model.denoise_hidden(canvas, step.cache, soft),
        "static_": model.denoise_with(canvas, static.lengths, DenoiseStatic(static), soft),
    }
    with model.by_modules():
        meant = model.denoise_hidden(canvas, step.cache, soft)
    best = model.logits(meant).argmax(-1)
    result: dict[str, Any] = {"step_ms": median(samples), "samples_ms": samples}
    for name, hidden in found.items():
        difference = (hidden.double() - meant.double()).norm() / meant.double().norm()
        result[f"{name}relative_difference"] = float(difference)
        result[f"{name}same_argmax"] = float((model.logits(hidden).argmax(-1) == best).double().mean())
    return result


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
