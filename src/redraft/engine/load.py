"""`load`: from a name to a running engine."""

from __future__ import annotations

from pathlib import Path

import torch

from redraft.core.allocator import keep_freed_memory
from redraft.core.errors import OptionError
from redraft.engine.engine import LocalEngine
from redraft.engine.workers import SMALL, RunningWorkers
from redraft.model.checkpoint import load_model
from redraft.model.locate import locate

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_QUANTIZE = ("int8",)


def load(
    model: str | Path = "mini",
    device: str = "auto",
    dtype: str = "auto",
    quantize: str | None = None,
    *,
    threads: int | None = None,
    workers: int | None = 1,
    max_context: int | None = None,
    prefix_cache_mb: int = 512,
    revision: str | None = None,
) -> LocalEngine:
    """An engine for a model.

    Args:
        model: "mini" (bundled), a checkpoint directory, or a Hub id that is in the local Hub cache.
        device: "auto", "cpu", "cuda", "xpu", "mps", or one with an index.
        dtype: "auto", "float32" or "bfloat16"; auto follows the device's and the CPU's flags, never timings.
        quantize: None, or "int8": int8 matrices, with activations in `dtype`.
        threads: CPU threads of the whole process; None leaves torch's own choice.
        workers: processes that move requests under way together, each with the model and its share of the threads, on
            a CPU; None takes one a thread for a small model, and this process alone for others.
        max_context: tokens of prompt and reply together; None takes the checkpoint's.
        prefix_cache_mb: MiB of keys and values that earlier conversations may keep, shared among the workers.
        revision: of a Hub id.

    Raises:
        ModelNotFoundError: no such model.
        CheckpointError: it cannot be read.
        OptionError: a device or dtype that is not there.
    """
    if quantize not in (None, *_QUANTIZE):
        known = ", ".join(map(repr, _QUANTIZE))
        raise OptionError(f"quantize={quantize!r} is not available in this version of redraft: use None or {known}")
    if dtype not in ("auto", *_DTYPES):
        raise OptionError(f"dtype must be 'auto', 'float32' or 'bfloat16', got {dtype!r}")
    if threads is not None:
        if threads < 1:
            raise OptionError(f"threads must be at least 1, got {threads}")
        torch.set_num_threads(threads)
    if workers is not None and workers < 1:
        raise OptionError(f"workers must be at least 1, got {workers}")
    if max_context is not None and max_context < 1:
        raise OptionError(f"max_context must be at least 1, got {max_context}")
    if prefix_cache_mb < 0:
        raise OptionError(f"prefix_cache_mb must be at least 0, got {prefix_cache_mb}")
    directory = locate(model, revision)
    chosen = _device(device)
    kind = _DTYPES.get(dtype) or auto_dtype(chosen)
    loaded = load_model(directory, chosen, kind, quantize)  # type: ignore[arg-type]
    if chosen.type == "cpu":
        # Not before: what loading took and freed would stay.
        keep_freed_memory()
    # Elsewhere the rows of a batch share their products, and a last bit may differ from the text alone.
    exact = chosen.type == "cpu"
    engine = LocalEngine(
        loaded,
        name=str(model),
        directory=directory,
        exact=exact,
        max_context=max_context,
        prefix_cache_bytes=prefix_cache_mb * 2**20,
    )
    count = workers or (torch.get_num_threads() if loaded.num_parameters < SMALL else 1)
    if exact and count > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // count))
        arguments = {
            "model": directory,
            "device": "cpu",
            "dtype": dtype,
            "quantize": quantize,
            "threads": torch.get_num_threads(),
            "max_context": max_context,
            "prefix_cache_mb": prefix_cache_mb // count,
        }
        engine.share(RunningWorkers(engine, arguments, count))
    return engine


def _device(name: str) -> torch.device:
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return torch.device("cpu") if accelerator is None else accelerator
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:120]
        raise OptionError(f"device {name!r} cannot be used here: {reason}") from None
    if device.type == "meta":
        raise OptionError("device 'meta' holds no data")
    return device


def auto_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on accelerators and on CPUs with bfloat16 products, else float32."""
    if device.type != "cpu":
        return torch.bfloat16
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32
