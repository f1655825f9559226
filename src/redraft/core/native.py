"""Builds what is written in C++ on first use and loads it; None where that cannot be.

The sources need neither torch's headers nor its extension loader: g++ makes one in about a second. A build is kept
under the user's cache by what it was made of, so a new source, compiler or CPU makes a new one.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

from redraft.core.errors import OptionError
from redraft.core.files import cache_directory

_log = logging.getLogger("redraft.kernels")
_PACKAGE = Path(__file__).parents[1]
_TUNED = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
FLAGS = ("-O3", _TUNED, "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC", "-std=c++17")
_TIMEOUT_S = 120


def built(source: Path) -> ctypes.CDLL | None:
    """The library of a source file, built if it is not there yet; None without a compiler that can make it."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None or os.name != "posix":
        return None
    try:
        path = cache_directory("kernels") / f"{source.stem}-{_fingerprint(source, compiler)}.so"
        if not path.exists():
            _tell_building()
            _compile(compiler, source, path)
        return ctypes.CDLL(str(path))
    except (OSError, OptionError, subprocess.SubprocessError) as error:
        reason = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
        first = next(iter((reason or "").strip().splitlines()), type(error).__name__)
        _tell_unbuilt(first)
        return None


@functools.cache
def _tell_unbuilt(reason: str) -> None:
    # Once for each reason: what keeps one kernel from being built, as a cache that cannot be written, keeps all.
    warnings.warn(f"C++ kernels cannot be built, slower forms run instead: {reason}", stacklevel=3)


@functools.cache
def _tell_building() -> None:
    count = len(list(_PACKAGE.rglob("*.cpp")))
    _log.info("compiling %d C++ kernels for this CPU, once: some %d s at most", count, 2 * count)


def threading() -> tuple[str, ...]:
    """The flags for OpenMP. Apple's compiler knows its pragmas, but has no library; torch brings one along."""
    if sys.platform != "darwin":
        return ("-fopenmp",)
    found = importlib.util.find_spec("torch")
    folders = [] if found is None else list(found.submodule_search_locations or [])
    libraries = (f"{flag}{folder}/lib" for folder in folders for flag in ("-L", "-Wl,-rpath,"))
    return ("-Xclang", "-fopenmp", "-lomp", *libraries)


def _fingerprint(source: Path, compiler: str) -> str:
    version = subprocess.run([compiler, "-dumpfullversion"], capture_output=True, text=True, timeout=_TIMEOUT_S).stdout
    sources = b"".join(path.read_bytes() for path in (source, *sorted(source.parent.glob("*.h"))))
    parts = (sources, " ".join((*FLAGS, *threading())).encode(), version.encode(), _cpu().encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _cpu() -> str:
    """What -march=native depends on: a home directory may be shared by machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}))


def _compile(compiler: str, source: Path, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        fresh = Path(folder) / path.name
        command = [compiler, *FLAGS, *threading(), "-o", str(fresh), str(source)]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_TIMEOUT_S)
        # Several processes may build at once; each replaces the file by an equal one.
        os.replace(fresh, path)
