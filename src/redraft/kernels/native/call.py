"""Calls a built kernel on tensors."""

from __future__ import annotations

import ctypes
from collections.abc import Container

import torch
from torch import Tensor

from redraft.kernels.native.build import library

KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}
FLOATS = (torch.float32, torch.bfloat16)


def call(name: str, function: str, *arguments: Tensor | int | float | None) -> None:
    """Runs `function` of `<name>.cpp`, which `library` has found.

    Args:
        name: of the library.
        function: of its functions, whose last parameter is the number of threads.
        arguments: CPU tensors, contiguous unless their strides go with them; None for no tensor; integers (int64) and
            floats (float32), in its order.
    """
    native = library(name)
    assert native is not None
    getattr(native, function)(*map(_converted, arguments), ctypes.c_int64(torch.get_num_threads()))


def expect(what: str, tensor: Tensor | None, *shape: int) -> None:
    """Makes sure that a kernel stays within a tensor: C++ reads where it is told to.

    Raises:
        ValueError: it has another shape, or is not contiguous.
    """
    if tensor is not None and (tuple(tensor.shape) != shape or not tensor.is_contiguous()):
        raise ValueError(f"{what} has shape {tuple(tensor.shape)}, expected {shape}, contiguous")


def runs_natively(name: str, *tensors: Tensor, kinds: Container[torch.dtype] = FLOATS) -> bool:
    """Whether a kernel is there and can take these tensors: of these kinds, contiguous, on the CPU, no gradients."""
    fits = all(x.device.type == "cpu" and x.is_contiguous() and x.dtype in kinds for x in tensors)
    return (
        fits and not (torch.is_grad_enabled() and any(x.requires_grad for x in tensors)) and library(name) is not None
    )


def _converted(argument: Tensor | int | float | None) -> object:
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    if argument is None:
        return None
    return ctypes.c_int64(argument) if isinstance(argument, int) else ctypes.c_float(argument)
