"""What fits where, in which form, and how fast a step can be at best: from a config, before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from redraft.bench.catalogue import Device, find_devices, these_accelerators, this_cpu
from redraft.bench.expected import expected
from redraft.bench.floor import Part, part_floors_s, step_parts
from redraft.bench.machine import measure_machine
from redraft.bench.modes import forwards_per_token, kept_to_pay, verified_rates
from redraft.bench.planned_model import planned_model
from redraft.bench.shapes import shape_config
from redraft.checkpoint.locate import locate
from redraft.core.errors import InputError
from redraft.engine.footprint import FORMS, Form, kv_bytes, weight_bytes, workspace_bytes
from redraft.kernels.choice import choices
from redraft.model.config import ModelConfig
from redraft.placement.device import auto_dtype

# Denoising steps of a canvas: what clean text takes on average, a cap in use, half of the default's cap, and that cap.
STEPS = (12, 16, 24, 48)
# Of 128 experts, those that the rows of a canvas of clean text choose in a layer. Source: DiffusionGemma's report.
TYPICAL_SHARE_TOUCHED = 84 / 128
# Cached positions that are planned for where nobody says.
CONTEXT = 8192
# Beyond it the sums say nothing about any machine.
LARGEST_BATCH = 65_536
# Streamed experts arrive in one buffer while the other is used.
STREAM_BUFFERS = 2


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is planned for.

    Attributes:
        config: of the model.
        context: cached positions of each sequence.
        batch: sequences at a time.
        disk_bytes_per_s: at which experts are read that no memory holds.
        path: of the checkpoint; None where a shape is planned for.
        vision_parameters: of its tower, which is loaded with the first picture; 0 where it has none.
    """

    config: ModelConfig
    context: int
    batch: int
    disk_bytes_per_s: float
    path: Path | None = None
    vision_parameters: int = 0


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Seconds of one forward: what the device computes, part by part, and the experts that it must wait for."""

    parts_s: dict[str, float]
    stream_s: float

    @property
    def seconds(self) -> float:
        """Experts stream while others are computed, so the slower of the two counts."""
        return max(sum(self.parts_s.values()), self.stream_s)


def plan(
    *,
    model: str | None,
    shape: str | None,
    devices: Sequence[str],
    context: int | None,
    batch: int,
    memory_bytes: int | None,
    disk_bytes_per_s: float,
    measure: bool,
) -> dict[str, Any]:
    """The document that `redraft plan --json` prints.

    Args:
        model: name of a checkpoint; exclusive with `shape`.
        shape: a named shape; with neither, the released model's.
        devices: of the catalogue, by name; none means all.
        context: cached positions of each sequence; None takes 8192, or what the model has where that is less.
        batch: sequences at a time.
        memory_bytes: no device is taken to have more than this.
        disk_bytes_per_s: at which experts are read that no memory holds.
        measure: whether to measure this machine, which takes three seconds.

    Raises:
        InputError: a model, shape or device that is not there.
    """
    if model is not None and shape is not None:
        raise InputError("--model and --shape exclude each other: drop one of them")
    chosen = find_devices(devices)
    path = None if model is None else locate(model)
    config, described = planned_model(model, path, shape)
    most = config.max_position_embeddings
    if context is not None and context > most:
        raise InputError(f"--context {context}: this model has {most} positions at most")
    if batch > LARGEST_BATCH:
        raise InputError(f"--batch {batch}: at most {LARGEST_BATCH} sequences can be planned for")
    context = context or min(CONTEXT, most)
    request = Request(
        config=config,
        context=context,
        batch=batch,
        disk_bytes_per_s=disk_bytes_per_s,
        path=path,
        vision_parameters=described["vision_parameters"],
    )
    machine = measure_machine() if measure else None
    here = this_cpu(machine)
    everywhere = [device.limited(memory_bytes) for device in (here, *these_accelerators(), *chosen)]
    return {
        "model": described,
        "context": context,
        "batch": batch,
        "machine": {"name": here.name, "memory_bytes": here.memory_bytes}
        | ({"measured": machine.to_dict()} if machine else {"measured": None}),
        "devices": [device_plan(request, device) for device in everywhere],
    }


def device_plan(request: Request, device: Device) -> dict[str, Any]:
    """Every form on one device, with what others report of it."""
    described, forms = device.to_dict(), [form_plan(request, device, form) for form in FORMS]
    # Others report of the released model; beside another one their figures would mean nothing.
    released = _is_released(request.config)
    return {
        name: described[name]
        for name in ("key", "name", "is_cpu", "memory_bytes", "read_bytes_per_s", "operations_per_s")
    } | {
        "host_bytes_per_s": device.host_bytes_per_s,
        "forms": forms,
        # Of a device that is not here nobody can be asked.
        "kernels": kernel_choices(torch.device("cpu" if device.is_cpu else device.key)) if device.is_here else None,
        "published": described["published"] if released else [],
        "expected_tokens_per_second": expected(device, forms) if released and request.batch == 1 else None,
        "sources": described["sources"],
    }


def kernel_choices(device: torch.device) -> list[dict[str, str]]:
    """What would run on a device of this machine, form by form: the activations' dtype and who does each operation."""
    rows = []
    for form in FORMS:
        dtype = getattr(torch, form.name) if form.name in ("float32", "bfloat16") else auto_dtype(device)
        chosen = choices(device, form.name, dtype)
        rows.append({"form": form.name, "dtype": str(dtype).removeprefix("torch."), **chosen})
    return rows


def _is_released(config: ModelConfig) -> bool:
    full = shape_config("full")
    return all(getattr(config, name) == getattr(full, name) for name in ("layers", "hidden_size", "num_experts"))


def form_plan(request: Request, device: Device, form: Form) -> dict[str, Any]:
    """Memory and speed of one form on one device; speeds are None where it cannot run or rates are unknown."""
    config, on_cpu = request.config, device.is_cpu
    experts, others = weight_bytes(config, form, on_cpu=on_cpu)
    itemsize = form.activation_bytes(on_cpu)
    cache = kv_bytes(config, context=request.context, batch=request.batch, itemsize=itemsize)
    work = workspace_bytes(config, form, context=request.context, batch=request.batch, on_cpu=on_cpu, path=request.path)
    # In the dtype of activations, whatever form the rest is in.
    tower = request.vision_parameters * itemsize
    total = experts + others + tower + cache + sum(work.values())
    share = resident_share(device.memory_bytes - (total - experts), experts, config.num_hidden_layers)
    row: dict[str, Any] = {
        "form": form.name,
        "weights_bytes": experts + others,
        "vision_bytes": tower,
        "kv_bytes": cache,
        "workspace_bytes": sum(work.values()),
        "workspace_parts": work,
        "total_bytes": total,
        "fits": share == 1.0,
        "resident_expert_share": share,
    }
    return row | (_speeds(request, device, form, share) if share is not None else dict.fromkeys(_SPEEDS))


def resident_share(room: int, experts: int, layers: int) -> float | None:
    """Which share of the experts stays in memory: whole layers of them, beside buffers for those that stream.

    Args:
        room: bytes that are left for experts.
        experts: bytes of all.
        layers: that they belong to.

    Returns:
        None where not even the buffers fit.
    """
    if room >= experts:
        return 1.0
    kept = room // (experts // layers) - STREAM_BUFFERS
    return kept / layers if kept >= 0 else None


_SPEEDS = (
    "step_floor_s",
    "step_floor_typical_s",
    "step_parts",
    "stream_s",
    "tokens_per_second",
    "autoregressive_tokens_per_second",
    "verified_tokens_per_second",
    "verified_pays_from_kept",
    "forwards_per_token",
)


def _speeds(request: Request, device: Device, form: Form, share: float) -> dict[str, Any]:
    """The floors of a step and the rates that follow from them; those of all sequences together."""
    config, batch, canvas = request.config, request.batch, request.config.canvas_length
    one = _speed(request, device, form, share, positions=1, causal=True)
    if one is None:
        return dict.fromkeys(_SPEEDS)
    found: dict[str, Any] = dict.fromkeys(_SPEEDS) | {"autoregressive_tokens_per_second": batch / one.seconds}
    if not config.has_canvas:
        return found
    few = round(TYPICAL_SHARE_TOUCHED * config.num_experts)
    step = _speed(request, device, form, share, positions=canvas)
    typical = _speed(request, device, form, share, positions=canvas, touched=few)
    # The last canvas of a reply is never committed; this counts one for each all the same.
    commit = _speed(request, device, form, share, positions=canvas, causal=True, headless=True)
    check = _speed(request, device, form, share, positions=canvas, causal=True)
    if step is None or typical is None or commit is None or check is None:
        return found
    return found | {
        "step_floor_s": step.seconds,
        "step_floor_typical_s": typical.seconds,
        "step_parts": step.parts_s,
        "stream_s": step.stream_s,
        "verified_tokens_per_second": verified_rates(batch, canvas, step.seconds + check.seconds),
        "verified_pays_from_kept": kept_to_pay(step.seconds + check.seconds, one.seconds),
        "forwards_per_token": forwards_per_token(STEPS, canvas),
        "tokens_per_second": {str(steps): batch * canvas / (steps * step.seconds + commit.seconds) for steps in STEPS},
    }


def _speed(
    request: Request,
    device: Device,
    form: Form,
    share: float,
    *,
    positions: int,
    touched: int | None = None,
    causal: bool = False,
    headless: bool = False,
) -> Speed | None:
    """One forward; None where the device's rates are unknown."""
    rates, bandwidth = device.operations_per_s, device.read_bytes_per_s
    if bandwidth is None or ("float32" if form.name == "float32" else "bfloat16") not in rates:
        return None
    parts: list[Part] = step_parts(
        request.config,
        form.name,
        positions=positions,
        context=request.context,
        batch=request.batch,
        experts_touched=touched,
        activation_bytes=form.activation_bytes(device.is_cpu),
        causal=causal,
    )
    parts = [part for part in parts if part.name != "head" or not headless]
    read = sum(part.bytes_read for part in parts if part.name == "experts")
    link = device.host_bytes_per_s or request.disk_bytes_per_s
    return Speed(parts_s=part_floors_s(parts, rates, bandwidth, form.name), stream_s=read * (1 - share) / link)


def best_form(device: dict[str, Any]) -> dict[str, Any] | None:
    """The fastest form that fits a device's memory; where none fits, the fastest that streams.

    Of two that are equally fast the one with more bits counts.
    """
    rows = [row for row in device["forms"] if row["autoregressive_tokens_per_second"] is not None]
    rows = [row for row in rows if row["fits"]] or rows
    return max(rows, key=lambda row: (round(_rate(row), 1), row["weights_bytes"]), default=None)


def _rate(row: dict[str, Any]) -> float:
    return row["tokens_per_second"]["16"] if row["tokens_per_second"] else row["autoregressive_tokens_per_second"]
