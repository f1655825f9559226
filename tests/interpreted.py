"""Triton's interpreter, for tests that run kernels in their own process."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch


@contextmanager
def interpreting() -> Iterator[None]:
    """What is imported inside has interpreted kernels; skips a module that cannot have them."""
    if torch.cuda.is_available():
        pytest.skip("there is a device, which runs the kernels themselves", allow_module_level=True)
    # Read when Triton and when kernels are imported; nothing else in this process, nor one that it starts, sees it.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        interpreter = pytest.importorskip("triton.runtime.interpreter")
        language = pytest.importorskip("triton.language")
        if not isinstance(language.zeros, interpreter.InterpretedFunction):
            pytest.skip("Triton was imported without its interpreter", allow_module_level=True)
        yield


@pytest.fixture(autouse=True)
def loop_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that does what a device does."""
    mend(monkeypatch)


def mend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton 3.6 turns the bounds of a loop into numbers in a way that NumPy has dropped; its conversions cut off, or
    lose a carry, where a device rounds. Triton 3.8 raises where a whole row is not a number, 3.9 where a mask comes of
    a number and a tensor, which it takes for integers."""
    from triton.runtime import interpreter

    patch_tensor = interpreter._patch_lang_tensor

    def patched(tensor, scope):  # type: ignore[no-untyped-def]
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    convert = interpreter._convert_float
    rounded = {"bf16": (torch.bfloat16, torch.int16), "fp8e4nv": (torch.float8_e4m3fn, torch.uint8)}

    def converted(given, source, target, mode):  # type: ignore[no-untyped-def]
        if str(source) != "fp32" or str(target) not in rounded:
            return convert(given, source, target, mode)
        kind, bits = rounded[str(target)]
        values = torch.from_numpy(np.ascontiguousarray(given))
        if kind == torch.float8_e4m3fn:
            # A device stays at the largest number.
            values = values.clamp(-448, 448)
        return values.to(kind).view(bits).numpy().view(f"uint{8 * kind.itemsize}")

    min_max = interpreter.ReduceOps.min_max
    plain = {np.nanargmax: np.argmax, np.nanargmin: np.argmin}

    def found(self, given, val_reduce_op, idx_reduce_op=None):  # type: ignore[no-untyped-def]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "All-NaN slice")
            try:
                return min_max(self, given, val_reduce_op, idx_reduce_op)
            except ValueError:
                return min_max(self, given, val_reduce_op, plain.get(idx_reduce_op, idx_reduce_op))

    for name, place in (("create_masked_load", 1), ("create_masked_store", 2)):
        monkeypatch.setattr(
            interpreter.InterpreterBuilder, name, _with_mask(interpreter.InterpreterBuilder, name, place)
        )
    monkeypatch.setattr(interpreter.ReduceOps, "min_max", found)
    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patched)
    monkeypatch.setattr(interpreter, "_convert_float", converted)
    # Parts of Triton are only imported when something runs.
    monkeypatch.setenv("TRITON_INTERPRET", "1")


def _with_mask(builder, name: str, place: int):  # type: ignore[no-untyped-def]
    """A method whose mask, its argument at this place, is one of truth values."""
    method = getattr(builder, name)

    def called(self, *arguments, **options):  # type: ignore[no-untyped-def]
        mask = arguments[place]
        if mask.data.dtype != bool:
            mask.data = mask.data != 0
        return method(self, *arguments, **options)

    return called
