"""Results against references: how far apart they are, and whether that is near enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from clock import Clock
from torch import Tensor

# bfloat16 keeps 8 bits: one rounding of a result is 2^-9 at most, and a chain of a few stays under this.
BFLOAT16 = 1e-2
_POISON_BYTES = 2**28
# What a bound of 0 counts as where several results are compared.
_LEAST = 1e-12

Case = Callable[[], dict[str, Any]]


def poison(clock: Clock) -> None:
    """Leaves NaN in memory that the next results are made in."""
    size = _POISON_BYTES if clock.on_device else 2**20
    torch.full((size // 2,), float("nan"), dtype=torch.bfloat16, device=clock.device)


def compared(found: Tensor, expected: Tensor, bound: float, note: str | None = None) -> dict[str, Any]:
    """How far a result is from its reference; NaN never passes."""
    difference = (found.double() - expected.double()).norm() / expected.double().norm().clamp(min=1e-30)
    error = float(difference)
    return {"ok": error <= bound, "relative_error": error, "bound": bound, "note": note}


def equal(found: Tensor, expected: Tensor, note: str | None = None) -> dict[str, Any]:
    """Whether two results are the same, number by number; the error is the share that is not."""
    share = float((found != expected).double().mean())
    return {"ok": share == 0, "relative_error": share, "bound": 0.0, "note": note}


def worst(found: list[dict[str, Any]]) -> dict[str, Any]:
    """One result for several: the one that is furthest over its bound, or nearest to it."""
    return max(found, key=lambda each: each["relative_error"] / (each["bound"] or _LEAST))
