"""Kernels as an ARM machine's compiler builds them, run by an emulator: each call is a process of its own."""

from __future__ import annotations

import ctypes
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import torch

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
PREFIX = "/usr/aarch64-linux-gnu"
INTEGER, FLOAT, BUFFER = 0, 1, 2


class Carried(ctypes.c_void_p):
    """A pointer that knows its tensor, so that it can be taken somewhere else."""

    tensor: torch.Tensor


def carried(argument: torch.Tensor | int | float | None) -> object:
    """What `redraft.kernels.native.call` makes of an argument, with the tensor in it."""
    if isinstance(argument, torch.Tensor):
        pointer = Carried(argument.data_ptr())
        pointer.tensor = argument
        return pointer
    if argument is None:
        return None
    return ctypes.c_int64(argument) if isinstance(argument, int) else ctypes.c_float(argument)


class Emulated:
    """A library for another machine; its functions take what `carried` makes, and write into the same tensors."""

    def __init__(self, library: Path) -> None:
        self.library = library
        self.program = library.with_suffix(".program")
        source = Path(__file__).with_suffix(".cpp")
        subprocess.run([COMPILER, "-O1", "-o", self.program, source, "-ldl"], check=True, timeout=120)

    def __getattr__(self, function: str) -> Callable[..., None]:
        return lambda *arguments: self._call(function, arguments)

    def _call(self, function: str, arguments: tuple[object, ...]) -> None:
        given, places, at = [], [], 0
        for argument in arguments:
            held = _bytes_of(argument.tensor) if isinstance(argument, Carried) else None
            if held is not None:
                places.append((held, at + 16))
                data = held.numpy().tobytes()
                part = struct.pack("<qq", BUFFER, len(data)) + data + bytes(-len(data) % 8)
            elif isinstance(argument, ctypes.c_float):
                part = struct.pack("<qf4x", FLOAT, argument.value)
            else:
                part = struct.pack("<qq", INTEGER, getattr(argument, "value", None) or 0)
            given.append(part)
            at += len(part)
        file = self.library.with_suffix(".arguments")
        file.write_bytes(b"".join(given))
        command = [EMULATOR, "-cpu", "max", "-L", PREFIX, self.program, self.library, function, file]
        subprocess.run(command, check=True, timeout=120)
        found = file.read_bytes()
        for held, place in places:
            held.copy_(torch.frombuffer(bytearray(found[place : place + len(held)]), dtype=torch.uint8))


def _bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    """From a tensor's first element to the end of its storage, in place."""
    first = tensor.storage_offset() * tensor.element_size()
    return torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())[first:]
