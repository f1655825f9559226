"""Which device a model runs on, and in which dtype: from one table and the machine's flags, never from timings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from redraft.core.checks import shown
from redraft.core.errors import OptionError
from redraft.kernels.private import private


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of device that models run on.

    Attributes:
        name: torch's.
        vendors: whose hardware it is.
        dtype: of activations unless another is asked for; None is left to the processor's flags.
        kernels: what runs beside torch's own operations: what `kernels/native/` builds, Triton, or nothing.
            `kernels/choice.py` says it operation by operation.
    """

    name: str
    vendors: str
    dtype: torch.dtype | None
    kernels: Literal["C++", "Triton", "torch"]


KINDS = {
    kind.name: kind
    for kind in (
        Kind(name="cpu", vendors="any", dtype=None, kernels="C++"),
        Kind(name="cuda", vendors="NVIDIA, AMD under ROCm", dtype=torch.bfloat16, kernels="Triton"),
        Kind(name="xpu", vendors="Intel", dtype=torch.bfloat16, kernels="Triton"),
        Kind(name="mps", vendors="Apple", dtype=torch.bfloat16, kernels="torch"),
    )
}


def find_device(name: str | torch.device) -> torch.device:
    """The device of this name, or itself; "auto" is the accelerator of `KINDS` that is there, else the CPU.

    Raises:
        OptionError: it cannot be used here.
    """
    if isinstance(name, torch.device):
        name = str(name)
    if not isinstance(name, str):
        raise OptionError(f"device must be a name like 'auto' or 'cpu', got {shown(name)}")
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return accelerator if accelerator is not None and accelerator.type in KINDS else torch.device("cpu")
    # Its kind by the name: asking torch about some kinds imports what is not there.
    if name.partition(":")[0] not in KINDS:
        raise OptionError(f"device {name!r} is none of 'auto', {', '.join(map(repr, KINDS))}, or one with an index")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:120]
        raise OptionError(f"device {name!r} cannot be used here: {reason}") from None
    return device


def auto_dtype(device: torch.device) -> torch.dtype:
    """The dtype of the device's kind; on a CPU bfloat16 if it has such products, else float32."""
    if (dtype := KINDS[device.type].dtype) is not None:
        return dtype
    asked = private("cpu._is_avx512_bf16_supported", "float32 is taken on every CPU")
    return torch.bfloat16 if asked is not None and asked() else torch.float32
