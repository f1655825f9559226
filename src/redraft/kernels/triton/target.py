"""What a launch must know of the device that it runs on: shared memory, and the dtype that products are made in."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs

from redraft.kernels.accelerator import current
from redraft.kernels.triton.dependent import DEPENDENT

# What every GPU of the last years has at least: the LDS of AMD's and the local memory of Intel's.
LEAST_SHARED_BYTES = 64 * 2**10
# Where the device does not say; about what an Intel Arc has of its own.
_PROCESSORS = 32

# Settled for each kernel when it is imported.
_INTERPRETED = bool(knobs.runtime.interpret)

_DTYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


def interpreted() -> bool:
    """Whether kernels run under Triton's interpreter, on a CPU."""
    return _INTERPRETED


def compute_dtype(dtype: torch.dtype) -> tl.dtype:
    """What operands of a product are cast to. The interpreter has no bfloat16 arithmetic."""
    return tl.float32 if interpreted() else _DTYPES[dtype]


def stored_dtype(dtype: torch.dtype) -> torch.dtype:
    """What scratch is kept in. The interpreter cuts a float32 off where a device rounds it to bfloat16."""
    return torch.float32 if interpreted() else dtype


def shared_bytes(device: torch.device, dtype: torch.dtype = torch.bfloat16) -> int:
    """Shared memory that one program may take; for a wide dtype, the share of it that 16 bits would need."""
    least = LEAST_SHARED_BYTES
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        least = max(least, int(getattr(properties, "shared_memory_per_block_optin", 0)))
    return least * 2 // max(2, dtype.itemsize)


def tiles(size: int, tile: int) -> int:
    """How many tiles cover a size."""
    return -(-size // tile)


def power_of_two(size: int) -> int:
    """The least power of 2 that is no less, as a block of a kernel must be."""
    return 1 << max(0, size - 1).bit_length()


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    """Runs a kernel on the device of its first tensor.

    Triton's own types know neither its launch options nor that plain numbers become constants.
    """
    if DEPENDENT.value:
        options["launch_pdl"] = True
    with current(next(argument for argument in arguments if isinstance(argument, Tensor)).device):
        kernel[grid](*arguments, **options)


def target_of(device: torch.device) -> tuple[str, int | str]:
    """(backend, architecture) of a GPU."""
    if interpreted():
        return "interpreter", ""
    with current(device):
        target = triton.runtime.driver.active.get_current_target()
    return target.backend, target.arch  # type: ignore[union-attr]


def processors(device: torch.device) -> int:
    """Programs that run at once, at one a multiprocessor."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).multi_processor_count
    return _PROCESSORS


def lanes(device: torch.device) -> int:
    """Threads of a warp; 64 on AMD's CDNA."""
    if device.type == "cuda":
        return int(getattr(torch.cuda.get_device_properties(device), "warp_size", 32))
    return 32
