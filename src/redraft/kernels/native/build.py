"""The kernels of this folder, by name."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

from redraft.core.native import built

_HERE = Path(__file__).parent


@functools.cache
def library(name: str) -> ctypes.CDLL | None:
    """The library of `<name>.cpp`, built if it is not there yet; None without a compiler that can make it."""
    return built(_HERE / f"{name}.cpp")
