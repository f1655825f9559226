"""Which layers' experts are left on disk, or in host memory beside a GPU, so that the rest fits into memory."""

from __future__ import annotations

import torch

from redraft.checkpoint.locate import is_gguf
from redraft.checkpoint.offload import BUFFERS, available_bytes
from redraft.checkpoint.source import Source
from redraft.core.errors import OptionError
from redraft.engine.footprint import FORMS, Form, kv_bytes, weight_bytes, workspace_bytes
from redraft.model.model import DiffusionGemma

# Tokens that the cache is planned for, where the caller does not bound the context.
CONTEXT = 8192
# Devices with memory of their own, and a link to the host's.
_WITH_HOST = ("cuda", "xpu")
# What the rest of the machine needs: page tables, other programs.
_SHARE = 0.95


def form_in_memory(source: Source, dtype: torch.dtype, quantize: str | None) -> Form:
    """How the weights of a checkpoint will be held."""
    name = quantize or (source.forms[0] if source.forms else str(dtype).removeprefix("torch."))
    return next(form for form in FORMS if form.name == name)


def streamed_layers(
    source: Source,
    *,
    device: torch.device,
    dtype: torch.dtype,
    quantize: str | None,
    memory_bytes: int | None,
    max_context: int | None,
    beside: int = 0,
) -> frozenset[int]:
    """The layers whose experts do not fit; spread evenly, so that the others compute while these are read.

    Args:
        source: an open checkpoint.
        device: which runs it; beside one other than a CPU, experts wait in host memory.
        dtype: of activations.
        quantize: what its matrices are rounded to on the way.
        memory_bytes: for the whole process, or on the device; None takes what is available there.
        max_context: tokens that the cache is planned for.
        beside: bytes of what else will be held there, such as a tower.

    Raises:
        OptionError: not even the rest fits, or the experts are in a form, or the device of a kind, that cannot do it.
    """
    config, form, on_cpu = source.config, form_in_memory(source, dtype, quantize), device.type == "cpu"
    context = min(max_context or CONTEXT, CONTEXT)
    experts, others = weight_bytes(config, form, on_cpu=on_cpu, itemsize=dtype.itemsize)
    others += beside
    available = free_bytes(device)
    if memory_bytes is None and experts + others < available / 2:
        # The rest is never as much; counting it imports more of torch than loading a model does.
        return frozenset()
    work = workspace_bytes(
        config, form, context=context, batch=1, on_cpu=on_cpu, itemsize=dtype.itemsize, path=source.path
    )
    workspace = sum(work.values())
    rest = others + workspace + kv_bytes(config, context=context, batch=1, itemsize=dtype.itemsize)
    room = (_SHARE * available if memory_bytes is None else memory_bytes) - rest
    if room >= experts:
        return frozenset()
    reason = _why_not(source, form, quantize, device)
    if reason is not None:
        if memory_bytes is None:
            return frozenset()
        needed, allowed = (experts + rest) / 1e9, memory_bytes / 1e9
        raise OptionError(f"{source.path} needs {needed:.1f} GB, {allowed:.1f} GB are allowed, and {reason}")
    layers, layer = config.num_hidden_layers, experts / config.num_hidden_layers
    resident = int((room - BUFFERS * layer) // layer)
    if resident < 0:
        if memory_bytes is None:
            # What is available is an estimate: better slow than not at all.
            resident = 0
        else:
            least = rest + BUFFERS * layer
            raise OptionError(f"{memory_bytes / 1e9:.1f} GB are allowed, without experts it takes {least / 1e9:.1f} GB")
    count = layers - resident
    return frozenset(number * layers // count for number in range(count))


def free_bytes(device: torch.device) -> int:
    """Memory that nobody has, where this device keeps what it computes with."""
    return available_bytes() if device.type == "cpu" else _free_bytes(device)


def request_bytes(
    model: DiffusionGemma,
    *,
    free: int,
    copies: int,
    prefixes: int,
    memory_bytes: int | None,
    max_context: int,
    beside: int = 0,
) -> int:
    """Memory for the keys and values of requests under way together.

    Args:
        model: as it was loaded; a part of it may be mapped, and not in memory yet.
        free: bytes before it was loaded.
        copies: of it.
        prefixes: bytes that earlier conversations may keep.
        memory_bytes: what the caller allows for everything.
        beside: bytes of what else each copy will hold, such as a tower.
        max_context: a request that is as long as `streamed_layers` has planned for always fits.
    """
    held = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    room = min(_SHARE * free, memory_bytes or 2**62) - copies * (held + beside) - prefixes
    planned = model.new_cache().sequences[0].bytes_at(min(CONTEXT, max_context), model.config.canvas_length)
    return max(int(room), planned)


def _why_not(source: Source, form: Form, quantize: str | None, device: torch.device) -> str | None:
    """Why experts must stay where they are; None where they need not."""
    if device.type == "cpu":
        if quantize is None and not is_gguf(source.path):
            return None
        return "experts stay on disk only in the form that they are multiplied in: run `redraft quantize` first"
    if device.type not in _WITH_HOST:
        return f"{device.type} has no host memory beside its own"
    return "int8 experts cannot wait in host memory: int4 and fp8 ones can" if form.name == "int8" else None


def _free_bytes(device: torch.device) -> int:
    """Memory of a device that nobody has; without end where it cannot be asked."""
    if device.type not in _WITH_HOST:
        return 2**62
    return torch.get_device_module(device).mem_get_info(device)[0]
