"""Every kernel against a reference in float64, on fresh random inputs at the shape's own sizes.

An error is the norm of the difference over the norm of the reference. Memory that a result will lie in is filled with
NaN before, so that what a kernel does not write shows.
"""

from __future__ import annotations

import importlib.util
import secrets
from collections.abc import Callable
from typing import Any

import torch
from clock import Clock
from context import Context
from store import Skipped
from torch import Tensor

# bfloat16 keeps 8 bits: one rounding of a result is 2^-9 at most, and a chain of a few stays under this.
BFLOAT16 = 1e-2
_POISON_BYTES = 2**28
# What a bound of 0 counts as where several results are compared.
_LEAST = 1e-12

Case = Callable[[], dict[str, Any]]


def run(context: Context) -> None:
    """All cases, whatever became of those before."""
    if importlib.util.find_spec("triton") is None:
        raise Skipped("no Triton: torch's forms are the references")
    if not context.clock.on_device:
        _mend_interpreter()
    from verify_advance import cases as advance_cases
    from verify_experts import cases as experts_cases
    from verify_layer import cases as layer_cases
    from verify_step import cases as step_cases

    # Fresh at every run; the seed is kept, so that a failure can be made again.
    seed = secrets.randbits(31)
    generator = torch.Generator(context.clock.device).manual_seed(seed)
    context.store.results.setdefault("seed", seed)
    found: dict[str, Case] = {}
    for cases in (experts_cases, layer_cases, step_cases, advance_cases):
        found |= cases(context, generator)
    which, count = context.share
    for name in list(found)[which::count]:
        context.store.measure((name,), found[name])


def _mend_interpreter() -> None:
    """Triton 3.6 makes a loop's bounds into numbers in a way that NumPy has dropped."""
    from triton.runtime import interpreter

    patch_tensor = interpreter._patch_lang_tensor

    def patched(tensor: Any, scope: Any) -> None:
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patched


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
