"""Whether a Triton form may run, and what happens when it cannot: one warning, then the torch form."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

_log = logging.getLogger(__name__)
Result = TypeVar("Result")

_DEVICES = ("cuda", "xpu")
# Kernels, and the form of weights or rows, that did not compile here. They will not at the next call either, and a
# compiler is slow to say so.
_failed: set[tuple[str, str]] = set()


_strict: ContextVar[bool] = ContextVar("strict", default=False)


@contextmanager
def strictly() -> Iterator[None]:
    """Inside, what fails is heard of, and stands for nothing: it may be no fault of the kernel's, as in a capture."""
    token = _strict.set(True)
    try:
        yield
    finally:
        _strict.reset(token)


@cache
def has_triton() -> bool:
    """Whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None


def on_gpu(*tensors: Tensor) -> bool:
    """Whether all tensors are on one GPU and Triton is there to run on it."""
    device = tensors[0].device
    return device.type in _DEVICES and all(x.device == device for x in tensors) and has_triton()


def attempt(
    name: str, fast: Callable[[], Result], reference: Callable[[], Result], form: str | torch.dtype = ""
) -> Result:
    """fast(), or reference() from the first time on that fast() has failed.

    Args:
        name: of the kernel, for the warning and to remember it by.
        fast: the Triton form.
        reference: the torch form.
        form: of weights or rows, where a kernel of this name is compiled anew for each: one may fail alone.

    Raises:
        torch.OutOfMemoryError: memory that is missing is not a kernel that is missing, and torch's form needs more.
    """
    key = (name, str(form).removeprefix("torch."))
    if key not in _failed:
        _tell_compiling()
        try:
            return fast()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            if _strict.get():
                raise
            _failed.add(key)
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            warnings.warn(
                f"the Triton kernel {_said(key)} does not run here, torch's form does: {reason}", stacklevel=2
            )
    return reference()


@cache
def _tell_compiling() -> None:
    _log.info("compiling Triton kernels for this GPU, once each: the first reply waits for them")


def failed() -> list[str]:
    """Kernels that torch's forms have stood in for, with their form."""
    return sorted(_said(key) for key in _failed)


def clear() -> None:
    """Tries all of them again."""
    _failed.clear()


def _said(key: tuple[str, str]) -> str:
    return " ".join(filter(None, key))
