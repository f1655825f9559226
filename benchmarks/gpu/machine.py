"""What the device is and what it can do at most: memory bandwidth and matrix rates, which floors are made of."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Callable
from typing import Any

import torch
from clock import Clock, timed
from context import Context
from nvml import Nvml
from store import Skipped
from torch import Tensor

_TERA = 1e12


def run(context: Context) -> None:
    """Measures all of it."""
    store, clock = context.store, context.clock
    store.measure(("device",), lambda: describe(clock))
    size = 2**24 if context.small else 2**32
    store.measure(("copy",), lambda: _bandwidth(clock, size, copies=True))
    store.measure(("read",), lambda: _bandwidth(clock, size, copies=False))
    n = 256 if context.small else 8192
    for name, make in _PRODUCTS.items():
        store.measure(("products", name), lambda make=make: _rate(clock, n, make))
    # At the end as well: a device that has become hot or slow shows.
    store.measure(("state",), lambda: Nvml(clock.device).state())


def describe(clock: Clock) -> dict[str, Any]:
    """Name, memory and versions."""
    found: dict[str, Any] = {
        "type": clock.device.type,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "system": platform.platform(),
        "compiler": shutil.which("gcc") or shutil.which("clang"),
    }
    for package in ("triton", "transformers", "jaxtyping", "tokenizers"):
        try:
            found[package] = __import__(package).__version__
        except (ImportError, AttributeError):
            found[package] = None
    if clock.device.type in ("cuda", "xpu"):
        module = getattr(torch, clock.device.type)
        properties = module.get_device_properties(clock.device)
        found["name"] = properties.name
        for field in ("total_memory", "multi_processor_count", "L2_cache_size", "major", "minor", "gcnArchName"):
            if (value := getattr(properties, field, None)) is not None:
                found[field] = value
    else:
        found["name"] = platform.processor() or platform.machine()
    return found


def _bandwidth(clock: Clock, size: int, *, copies: bool) -> dict[str, Any]:
    """Bytes read and written a second of a large copy, or bytes read of a sum."""
    source = torch.randn(size // 4, device=clock.device)
    target = torch.empty_like(source) if copies else source
    samples = clock.samples_ms(lambda: target.copy_(source) if copies else source.sum(), seconds=0.5)
    moved = source.nbytes * (2 if copies else 1)
    found = timed(samples)
    return found | {"bytes": moved, "bytes_per_s": moved / found["median_ms"] * 1e3}


def _rate(clock: Clock, n: int, make: Callable[[Clock, int], Callable[[], Tensor]]) -> dict[str, Any]:
    found = timed(clock.samples_ms(make(clock, n), seconds=0.3, most=50))
    rate = 2 * n**3 / found["median_ms"] * 1e3
    return found | {"n": n, "operations_per_s": rate, "tera_per_s": rate / _TERA}


def _floats(dtype: torch.dtype) -> Callable[[Clock, int], Callable[[], Tensor]]:
    def make(clock: Clock, n: int) -> Callable[[], Tensor]:
        # Random: a product of zeros can run faster than any of real numbers.
        left, right = torch.randn(2, n, n, device=clock.device).to(dtype)
        return lambda: torch.mm(left, right)

    return make


def _float8(clock: Clock, n: int) -> Callable[[], Tensor]:
    if not clock.on_device:
        raise Skipped("there are no float8 products on a CPU")
    left, right = torch.randn(2, n, n, device=clock.device).to(torch.float8_e4m3fn)
    one = torch.ones((), device=clock.device)
    return lambda: torch._scaled_mm(left, right.T, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)


def _int8(clock: Clock, n: int) -> Callable[[], Tensor]:
    left, right = torch.randint(-127, 128, (2, n, n), dtype=torch.int8, device=clock.device)
    return lambda: torch._int_mm(left, right.T)


_PRODUCTS = {
    "bfloat16": _floats(torch.bfloat16),
    "fp8": _float8,
    "int8": _int8,
    "float32": _floats(torch.float32),
}
