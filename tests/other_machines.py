"""Kernels as another machine's compiler would build them."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from redraft.core.native import _FLAGS
from redraft.kernels.native import build

# What -march=native stands for elsewhere, and the flag of /proc/cpuinfo without which it does not run.
_FLAG = {"AVX2": ("-march=x86-64-v3", "avx2"), "AVX-VNNI": ("-march=x86-64-v3 -mavxvnni", "avx_vnni")}
MACHINES = ("this one", "AVX2")


def built_for(machine: str, name: str, folder: Path) -> ctypes.CDLL:
    """The library of a kernel's source file; skips what this machine cannot build or run."""
    if machine == "this one":
        found = build.library(name)
        if found is None:
            pytest.skip("no compiler")
        return found
    flags, needed = _FLAG[machine]
    if needed not in Path("/proc/cpuinfo").read_text().split() or shutil.which("g++") is None:
        pytest.skip(f"no {machine} here")
    path = folder / f"{name}.so"
    rest = [flag for flag in _FLAGS if not flag.startswith("-march")]
    source = Path(build.__file__).parent / f"{name}.cpp"
    subprocess.run(["g++", *rest, *flags.split(), "-o", path, source], check=True, timeout=120)
    return ctypes.CDLL(str(path))


def in_its_place(library: ctypes.CDLL, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has this process call it, and its own for everything else."""
    own = build.library
    monkeypatch.setattr("redraft.kernels.native.call.library", lambda each: library if each == name else own(each))
