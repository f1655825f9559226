"""What a launch must know of the device that it runs on: shared memory, and the dtype that products are made in."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

# What every GPU of the last years has at least: the LDS of AMD's and the local memory of Intel's.
LEAST_SHARED_BYTES = 64 * 2**10

_DTYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


def interpreted() -> bool:
    """Whether kernels run under Triton's interpreter, on a CPU."""
    return bool(triton.knobs.runtime.interpret)


def compute_dtype(dtype: torch.dtype) -> tl.dtype:
    """What operands of a product are cast to. The interpreter has no bfloat16 arithmetic."""
    return tl.float32 if interpreted() else _DTYPES[dtype]


def stored_dtype(dtype: torch.dtype) -> torch.dtype:
    """What scratch is kept in. The interpreter cuts a float32 off where a device rounds it to bfloat16."""
    return torch.float32 if interpreted() else dtype


def shared_bytes(device: torch.device) -> int:
    """Shared memory that one program may take."""
    if device.type != "cuda":
        return LEAST_SHARED_BYTES
    properties = torch.cuda.get_device_properties(device)
    return max(LEAST_SHARED_BYTES, int(getattr(properties, "shared_memory_per_block_optin", 0)))
