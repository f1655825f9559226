"""What differs between accelerators whatever runs on them: which one launches go to, and whether it has float64."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

# Kinds of which a process may have several, one of them current.
_NUMBERED = ("cuda", "xpu")


def current(device: torch.device) -> AbstractContextManager[None]:
    """Makes a device the current one, which torch's operators do by themselves: Triton launches on whatever is current,
    and a new stream, or a graph's, is of it. A thread begins with the first device, whichever its parent had."""
    if device.type not in _NUMBERED or device.index is None:
        return nullcontext()
    module = torch.get_device_module(device)
    return nullcontext() if module.current_device() == device.index else module.device(device.index)


def has_float64(device: torch.device) -> bool:
    """Whether a device computes in float64: no Apple GPU does, and not every one of Intel's."""
    if device.type == "xpu":
        return bool(getattr(torch.xpu.get_device_properties(device), "has_fp64", False))
    return device.type != "mps"


def has_float8(device: torch.device) -> bool:
    """Whether a device holds e4m3, which it need not multiply: no Apple GPU does."""
    return device.type != "mps"
