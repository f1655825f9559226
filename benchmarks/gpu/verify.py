"""Every kernel against a reference in float64, on fresh random inputs at the shape's own sizes.

An error is the norm of the difference over the norm of the reference. Memory that a result will lie in is filled with
NaN before, so that what a kernel does not write shows.
"""

from __future__ import annotations

import importlib.util
import secrets
import zlib
from collections.abc import Callable
from typing import Any

import torch
from compare import Case
from context import Context
from store import Skipped


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

    # Fresh at every run; the seed is kept, so that a failure can be made again, whatever ran before it.
    seed = context.store.results.setdefault("seed", secrets.randbits(31))
    generator = torch.Generator(context.clock.device)
    found: dict[str, Case] = {}
    for cases in (experts_cases, layer_cases, step_cases, advance_cases):
        found |= cases(context, generator)
    which, count = context.share
    for name in list(found)[which::count]:
        generator.manual_seed(seed + zlib.crc32(name.encode()))
        context.store.measure((name,), found[name])


def _mend_interpreter() -> None:
    """Triton 3.6 makes a loop's bounds into numbers in a way that NumPy has dropped; 3.9 takes masks for integers."""
    from triton.runtime import interpreter

    patch_tensor = interpreter._patch_lang_tensor

    def patched(tensor: Any, scope: Any) -> None:
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patched
    for name, place in (("create_masked_load", 1), ("create_masked_store", 2)):
        setattr(interpreter.InterpreterBuilder, name, _with_mask(getattr(interpreter.InterpreterBuilder, name), place))


def _with_mask(method: Callable[..., Any], place: int) -> Callable[..., Any]:
    """The method with a mask, its argument at this place, of truth values."""

    def called(self: Any, *arguments: Any, **options: Any) -> Any:
        mask = arguments[place]
        if mask.data.dtype != bool:
            mask.data = mask.data != 0
        return method(self, *arguments, **options)

    return called
