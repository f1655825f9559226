"""Which layers' experts are left on disk so that the rest fits into memory."""

from __future__ import annotations

import torch

from redraft.core.errors import OptionError
from redraft.engine.footprint import FORMS, Form, kv_bytes, weight_bytes, workspace_bytes
from redraft.model.offload import BUFFERS, available_bytes
from redraft.model.source import Source

# Tokens that the cache is planned for, where the caller does not bound the context.
CONTEXT = 8192
# What the rest of the machine needs: page tables, other programs.
_SHARE = 0.95


def form_in_memory(source: Source, dtype: torch.dtype, quantize: str | None) -> Form:
    """How the weights of a checkpoint will be held."""
    name = quantize or (source.forms[0] if source.forms else str(dtype).removeprefix("torch."))
    return next(form for form in FORMS if form.name == name)


def streamed_layers(
    source: Source,
    *,
    dtype: torch.dtype,
    quantize: str | None,
    memory_bytes: int | None,
    max_context: int | None,
) -> frozenset[int]:
    """The layers whose experts do not fit; spread evenly, so that the others compute while these are read.

    Args:
        source: an open checkpoint.
        dtype: of activations.
        quantize: what its matrices are rounded to on the way.
        memory_bytes: for the whole process; None takes what the machine has available.
        max_context: tokens that the cache is planned for.

    Raises:
        OptionError: not even the rest fits, or the experts are in a form that cannot be left on disk.
    """
    config, form = source.config, form_in_memory(source, dtype, quantize)
    context = min(max_context or CONTEXT, CONTEXT)
    experts, others = weight_bytes(config, form, on_cpu=True, itemsize=dtype.itemsize)
    if memory_bytes is None and experts + others < available_bytes() / 2:
        # The rest is never as much; counting it imports more of torch than loading a model does.
        return frozenset()
    work = workspace_bytes(
        config, form, context=context, batch=1, on_cpu=True, itemsize=dtype.itemsize, path=source.path
    )
    workspace = sum(work.values())
    rest = others + workspace + kv_bytes(config, context=context, batch=1, itemsize=dtype.itemsize)
    room = (_SHARE * available_bytes() if memory_bytes is None else memory_bytes) - rest
    if room >= experts:
        return frozenset()
    if quantize is not None or source.path.suffix == ".gguf":
        if memory_bytes is None:
            return frozenset()
        raise OptionError(
            f"{source.path} needs {(experts + rest) / 1e9:.1f} GB, {memory_bytes / 1e9:.1f} GB are allowed, and "
            "experts stay on disk only in the form that they are multiplied in: run `redraft quantize` first"
        )
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
