"""What builds automata over a vocabulary, in C++; each has its definition in Python."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redraft.core.native import built

_HERE = Path(__file__).parent


@functools.cache
def library(name: str) -> ctypes.CDLL | None:
    """The library of `<name>.cpp`, built if it is not there yet; None without a compiler that can make it."""
    found = built(_HERE / f"{name}.cpp")
    if found is not None:
        # A handle, or nothing.
        getattr(found, f"{name}_new").restype = ctypes.c_void_p
    return found


def pointer(array: NDArray[Any]) -> ctypes.c_void_p:
    """Where a contiguous array lies; it has to outlive the call."""
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)


def converted(argument: NDArray[Any] | int) -> ctypes.c_void_p | ctypes.c_int64:
    """An argument as C++ takes it."""
    return pointer(argument) if isinstance(argument, np.ndarray) else ctypes.c_int64(argument)
