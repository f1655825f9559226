"""Which device a model runs on, and in which dtype: from the machine's flags, never from timings."""

from __future__ import annotations

import torch

from redraft.core.errors import OptionError


def find_device(name: str) -> torch.device:
    """The device of this name; "auto" is the accelerator that is there, else the CPU.

    Raises:
        OptionError: it cannot be used here.
    """
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
