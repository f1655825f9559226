"""`load`: from a name to a running engine."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch

from redraft.adapters.attach import attach, check_fits
from redraft.adapters.read import read_adapter
from redraft.checkpoint.formats.sidecar import sidecar
from redraft.checkpoint.load import load_model
from redraft.checkpoint.locate import locate
from redraft.checkpoint.rounding import RECIPES
from redraft.checkpoint.source import Source
from redraft.checkpoint.vision import LazyVision, vision_parameters
from redraft.core.allocator import keep_freed_memory
from redraft.core.checks import at_least, flag, shown
from redraft.core.engine import Engine
from redraft.core.errors import OptionError
from redraft.core.threads import checked, in_passing
from redraft.engine.engine import LocalEngine
from redraft.engine.offload import free_bytes, request_bytes, streamed_layers
from redraft.engine.workers import SMALL, RunningWorkers
from redraft.placement.device import auto_dtype, find_device

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load(
    model: str | os.PathLike[str] = "mini",
    device: str | torch.device = "auto",
    dtype: Literal["auto", "float32", "bfloat16"] | torch.dtype = "auto",
    quantize: Literal["int8", "int4", "fp8"] | None = None,
    *,
    threads: int | None = None,
    workers: int | None = 1,
    max_context: int | None = None,
    prefix_cache_mb: int = 512,
    memory_gb: float | None = None,
    verify: bool = False,
    revision: str | None = None,
    adapter: str | os.PathLike[str] | None = None,
    adapters: Mapping[str, str | os.PathLike[str]] | None = None,
    vision: Literal["lazy", "eager", "off"] = "lazy",
) -> Engine:
    """An engine for a model.

    Args:
        model: "mini" (bundled), a checkpoint directory, a GGUF file, or a Hub id that is in the local Hub cache.
        device: "auto", "cpu", "cuda", "xpu", "mps", or one with an index.
        dtype: "auto", "float32" or "bfloat16"; auto follows the device's and the CPU's flags, never timings.
        quantize: None leaves the weights as they are stored; "int8", "int4" (experts in int4, the rest in int8) or
            "fp8" rounds the matrices on the way, with activations in `dtype`.
        threads: CPU threads of the whole process; None leaves torch's own choice.
        workers: processes that move requests under way together, each with the model and its share of the threads, on
            a CPU; None takes one a thread for a small model, and this process alone for others.
        max_context: tokens of prompt and reply together; None takes the checkpoint's.
        prefix_cache_mb: MiB of keys and values that earlier conversations may keep, shared among the workers.
        memory_gb: for this process, or on the GPU: experts that do not fit stay on disk, or in host memory beside a
            GPU, and come ahead of need. None takes what is available.
        verify: compare every tensor of a quantised checkpoint with its checksum first.
        revision: of a Hub id.
        adapter: a directory with an adapter of this model, ours or peft's, which is added to every product. Replies are
            held to the calls that it knows by heart, and not to the model's.
        adapters: directories of several by name, which stay beside the model: `engine.adapters[name]` is an engine
            whose requests run with one of them, together with those of the rest.
        vision: when the tower of a model that sees is read: "lazy" with the first picture, "eager" now, "off" never:
            pictures are refused.

    Raises:
        ModelNotFoundError: no such model, or adapter.
        CheckpointError: it cannot be read, or the adapter is another model's.
        OptionError: a device or dtype that is not there, or a value that cannot work.
    """
    if quantize is not None and (not isinstance(quantize, str) or quantize not in RECIPES):
        raise OptionError(f"quantize must be None, {', '.join(map(repr, RECIPES))}, got {shown(quantize)}")
    dtype = _dtype_named(dtype)
    for name, value in (("threads", threads), ("workers", workers)):
        if value is not None:
            checked(value, name)
    if max_context is not None:
        at_least("max_context", max_context, 1, int)
    if memory_gb is not None and at_least("memory_gb", memory_gb, 0, float) == 0:
        raise OptionError(f"memory_gb must be above 0, got {memory_gb}")
    at_least("prefix_cache_mb", prefix_cache_mb, 0, int)
    flag("verify", verify)
    if adapters and adapter is not None:
        raise OptionError("give adapters beside a model without one, or a single adapter")
    if vision not in ("lazy", "eager", "off"):
        raise OptionError(f"vision must be 'lazy', 'eager' or 'off', got {shown(vision)}")
    path = locate(model, revision)
    chosen = find_device(device)
    kind = _DTYPES.get(dtype) or auto_dtype(chosen)
    if chosen.type != "cpu" and (workers or 1) > 1:
        raise OptionError(f"workers is for CPUs; the device is {chosen}")
    if threads is not None:
        torch.set_num_threads(threads)
    source = Source.open(path)
    for place in (*([] if adapter is None else [adapter]), *(adapters or {}).values()):
        # What can be said before a model is loaded, which may take minutes.
        check_fits(in_passing(lambda place=place: read_adapter(place, source.config)), source.config)
    if quantize is not None and source.forms == (RECIPES[quantize].experts, RECIPES[quantize].rest):
        # It is stored so.
        quantize = None
    tower_bytes = 0 if vision == "off" else vision_parameters(source) * kind.itemsize
    budget = None if memory_gb is None else int(memory_gb * 1e9)
    streamed = streamed_layers(
        source,
        device=chosen,
        dtype=kind,
        quantize=quantize,
        memory_bytes=budget,
        max_context=max_context,
        beside=tower_bytes,
    )
    if streamed or quantize is not None or not source.is_held_as(kind):
        # What is converted must not stay mapped beside its copy; and who is short of memory may be short of addresses.
        source = Source.open(path, mapped=False)
    if streamed and (workers or 1) > 1:
        raise OptionError("workers share a model that fits into memory: this one is read from disk as it runs")
    free = free_bytes(chosen)
    loaded = in_passing(lambda: load_model(source, chosen, kind, quantize, streamed=streamed, verify=verify))
    if adapter is not None:
        in_passing(lambda: attach(loaded, read_adapter(adapter, loaded.config)))
    if chosen.type == "cpu":
        # Not before: what loading took and freed would stay.
        keep_freed_memory()
    tower = None if vision == "off" else LazyVision(source, chosen, kind)
    # Elsewhere the rows of a batch share their products, and a last bit may differ from the text alone.
    exact = chosen.type == "cpu"
    count = workers or (torch.get_num_threads() if loaded.num_parameters < SMALL else 1)
    shared = exact and count > 1 and not streamed
    prefix_cache_bytes = prefix_cache_mb * 2**20
    engine = LocalEngine(
        loaded,
        name=str(model),
        directory=sidecar(path),
        adapter=None if adapter is None else Path(adapter),
        exact=exact,
        max_context=max_context,
        prefix_cache_bytes=prefix_cache_bytes,
        request_bytes=request_bytes(
            loaded,
            free=free,
            copies=count + 1 if shared else 1,
            prefixes=prefix_cache_bytes,
            memory_bytes=budget,
            max_context=max_context or loaded.config.max_position_embeddings,
            beside=tower_bytes,
        ),
        tower=tower,
    )
    if vision == "eager" and tower is not None and engine.sight.sees:
        in_passing(tower)
    for name, place in (adapters or {}).items():
        in_passing(lambda name=name, place=place: engine.adapters.load(name, place))
    if shared:
        torch.set_num_threads(max(1, torch.get_num_threads() // count))
        arguments: dict[str, Any] = {
            "model": path,
            "device": "cpu",
            "dtype": dtype,
            "quantize": quantize,
            "threads": torch.get_num_threads(),
            "max_context": max_context,
            "memory_gb": memory_gb,
            "prefix_cache_mb": prefix_cache_mb // count,
            "adapter": adapter,
            "vision": vision,
        }
        again = cast(Any, functools.partial(load, **arguments))
        engine.share(RunningWorkers(engine, again, count), copies=count + 1)
    return engine


def _dtype_named(dtype: object) -> Literal["auto", "float32", "bfloat16"]:
    """The dtype's name, of torch's own as well."""
    name = str(dtype).removeprefix("torch.") if isinstance(dtype, torch.dtype) else dtype
    if not isinstance(name, str) or name not in ("auto", *_DTYPES):
        raise OptionError(f"dtype must be 'auto', 'float32' or 'bfloat16', got {shown(dtype)}")
    return cast(Any, name)
