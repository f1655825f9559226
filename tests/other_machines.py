"""Kernels as another machine's compiler would build them."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from emulated import COMPILER, EMULATOR, Emulated, carried
from redraft.core.native import FLAGS
from redraft.kernels.native import build

# What -march=native stands for elsewhere, and the flag of /proc/cpuinfo without which it does not run.
_FLAG = {"AVX2": ("-march=x86-64-v3", "avx2"), "AVX-VNNI": ("-march=x86-64-v3 -mavxvnni", "avx_vnni")}
# Of a server of 2019 and of one of 2022, where an emulator runs them.
_ARM = {"ARM": "-march=armv8.2-a+dotprod", "ARM-BF16": "-march=armv8.6-a"}
MACHINES = ("this one", "AVX2", *_ARM)


def built_for(machine: str, name: str, folder: Path) -> ctypes.CDLL | Emulated:
    """The library of a kernel's source file; skips what this machine cannot build or run."""
    if machine == "this one":
        found = build.library(name)
        if found is None:
            pytest.skip("no compiler")
        return found
    if machine in _ARM:
        if not all(map(shutil.which, (COMPILER, EMULATOR))):
            pytest.skip(f"no {COMPILER} or {EMULATOR}")
        return Emulated(_compiled(COMPILER, _ARM[machine], name, folder))
    flags, needed = _FLAG[machine]
    if needed not in Path("/proc/cpuinfo").read_text().split() or shutil.which("g++") is None:
        pytest.skip(f"no {machine} here")
    return ctypes.CDLL(str(_compiled("g++", flags, name, folder)))


def _compiled(compiler: str, flags: str, name: str, folder: Path) -> Path:
    path = folder / f"{name}.so"
    rest = [*(flag for flag in FLAGS if "native" not in flag), "-fopenmp"]
    source = Path(build.__file__).parent / f"{name}.cpp"
    subprocess.run([compiler, *rest, *flags.split(), "-o", path, source], check=True, timeout=120)
    return path


def in_its_place(library: ctypes.CDLL | Emulated, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has this process call it, and its own for everything else."""
    own = build.library
    monkeypatch.setattr("redraft.kernels.native.call.library", lambda each: library if each == name else own(each))
    if isinstance(library, Emulated):
        monkeypatch.setattr("redraft.kernels.native.call._converted", carried)
