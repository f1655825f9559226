"""As on a GPU that is not here: kernels are specialised and compiled as Triton's own JIT does it there, not launched.

What a kernel is compiled to depends on its arguments: which numbers are 1 or multiples of 16, which pointers are
aligned or within 2 GB. Triton decides all of that itself, for a driver that says it is this device, so that its cache
has what the device will ask for. Tensors are of the meta device. Written for Triton 3.6, which must have been imported
without its interpreter.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

Target = tuple[str, int | str, int]

# (backend, architecture, threads of a warp) -> bytes of shared memory that a program may have, and processors.
TARGETS: dict[Target, tuple[int, int]] = {
    ("cuda", 80, 32): (163 * 1024, 108),
    ("cuda", 86, 32): (99 * 1024, 84),
    ("cuda", 89, 32): (99 * 1024, 142),
    ("cuda", 90, 32): (227 * 1024, 132),
    ("cuda", 100, 32): (227 * 1024, 148),
    ("cuda", 120, 32): (99 * 1024, 170),
    ("hip", "gfx90a", 64): (64 * 1024, 104),
    ("hip", "gfx942", 64): (64 * 1024, 304),
    ("hip", "gfx1100", 32): (64 * 1024, 48),
}
# Sines of large angles keep a table of their own on the stack, on NVIDIA's.
ROTARY_STACK_BYTES = 32
# As the metadata of an AMD kernel calls them.
_HIP = ("vgpr_count", "vgpr_spill_count")
_TRITON = "redraft.kernels.triton"


@dataclass
class Seen:
    """What was asked of a device.

    Attributes:
        compiled: every kernel that was, or was found in Triton's cache: `triton.compiler.CompiledKernel`.
        seconds: that compiling took, by a kernel's hash; none for what was found.
        launches: by a kernel's name.
    """

    compiled: list[Any] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    launches: Counter[str] = field(default_factory=Counter)


def target_named(name: str) -> Target:
    """The target of "cuda:90" or "hip:gfx942".

    Raises:
        ValueError: it is not in TARGETS.
    """
    found = [target for target in TARGETS if f"{target[0]}:{target[1]}" == name]
    if not found:
        raise ValueError(f"no target {name!r}; there are {', '.join(f'{t[0]}:{t[1]}' for t in TARGETS)}")
    return found[0]


@contextmanager
def on(target: Target, *, launchers: bool = False) -> Iterator[Seen]:
    """Inside, redraft's kernels run on this GPU, as far as they and Triton can tell.

    Args:
        target: one of TARGETS.
        launchers: whether what Triton compiles on the host, for each kind of launch, is put into its cache as well. For
            NVIDIA only: on AMD's that has a path of the machine in it.

    Raises:
        RuntimeError: Triton was imported with its interpreter, whose kernels are never compiled.
    """
    import triton
    from triton import knobs

    if import_module(f"{_TRITON}.target").interpreted():
        raise RuntimeError("Triton was imported with its interpreter: unset TRITON_INTERPRET")
    seen = Seen()
    driver = _Driver(target, seen, launchers and target[0] == "cuda")
    with ExitStack() as stack:
        for place, name, value in (
            (triton.runtime.driver, "_active", driver),
            (knobs.compilation, "listener", driver.compiled),
            (knobs.runtime, "jit_post_compile_hook", driver.kept),
        ):
            stack.callback(setattr, place, name, getattr(place, name))
            setattr(place, name, value)
        for home, name, value in _answers(target):
            stack.enter_context(replaced(home, name, value))
        yield seen


def _answers(target: Target) -> list[tuple[str, str, Callable[..., Any]]]:
    """(module, function, what it is there) of all that asks about the device."""
    shared, processors = TARGETS[target]
    operands = import_module(f"{_TRITON}.dense").operands_of(*target[:2])
    return [
        ("target", "shared_bytes", lambda _, dtype=torch.bfloat16: shared * 2 // max(2, dtype.itemsize)),
        ("target", "processors", lambda _: processors),
        ("target", "lanes", lambda _: target[2]),
        ("target", "target_of", lambda _: target[:2]),
        ("dense", "float8_operands", lambda _: operands),
        ("fallback", "on_gpu", lambda *tensors: all(x.device.type == "meta" for x in tensors)),
        # What does not compile is to be heard of.
        ("fallback", "attempt", lambda name, fast, reference, form="": fast()),
    ]


@contextmanager
def replaced(home: str, name: str, value: Any) -> Iterator[None]:
    """Puts another function in the place of one of `redraft.kernels.triton.<home>`, wherever a module holds it."""
    original = getattr(import_module(f"{_TRITON}.{home}"), name)
    _swap(name, original, value)
    try:
        yield
    finally:
        # Modules that were imported meanwhile hold it, too.
        _swap(name, value, original)


def _swap(name: str, old: Any, new: Any) -> None:
    for module in list(sys.modules.values()):
        if getattr(module, "__dict__", {}).get(name) is old:
            setattr(module, name, new)


class _Driver:
    """Triton's view of the device. It is its own device: Triton keeps what it has compiled by device, and each of these
    begins without any."""

    def __init__(self, target: Target, seen: Seen, launchers: bool) -> None:
        from triton.backends.compiler import GPUTarget

        self._target, self._seen, self._launchers = target, seen, launchers
        self._gpu = GPUTarget(*target)
        self.utils, self.launcher_cls = self, self._launcher
        if launchers:
            _host_module("cuda_utils")

    def get_current_target(self) -> Any:
        return self._gpu

    def get_current_device(self) -> _Driver:
        return self

    def get_current_stream(self, device: _Driver) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("meta")

    def get_device_properties(self, device: _Driver) -> dict[str, int]:
        shared, processors = TARGETS[self._target]
        return {"max_shared_mem": shared, "multiprocessor_count": processors, "warpSize": self._target[2]}

    def load_binary(self, name: str, binary: bytes, shared: int, device: _Driver) -> tuple[int, int, int, int, int]:
        """(module, function, registers, spilled, most threads); the middle ones nobody reads."""
        return 1, 1, 0, 0, 1024

    def _launcher(self, src: Any, metadata: Any) -> Callable[..., None]:
        if self._launchers:
            _host_module("launcher", src, metadata)

        def launched(*_: Any) -> None:
            self._seen.launches[metadata.name] += 1

        return launched

    def kept(self, *, fn: Any, compile: dict[str, Any], **_: Any) -> None:
        """Triton's hook after it has a kernel."""
        kernels, *_ = fn.jit_function.device_caches[self]
        self._seen.compiled.append(kernels[compile["key"]])

    def compiled(self, *, metadata: dict[str, Any], times: Any, cache_hit: bool, **_: Any) -> None:
        """Triton's listener of its compiler."""
        if not cache_hit:
            self._seen.seconds[metadata["hash"]] = times.total / 1e6


def _host_module(kind: str, *given: Any) -> None:
    """Makes what Triton compiles for the host, under the key that it will look for, and does not load it."""
    from triton.backends.nvidia import driver as nvidia
    from triton.runtime import build

    before = nvidia.library_dirs, build._load_module_from_path
    nvidia.library_dirs = lambda: [nvidia.libdevice_dir, _stub_of_libcuda()]
    build._load_module_from_path = lambda name, path: SimpleNamespace(launch=None)
    try:
        if kind == "launcher":
            nvidia.CudaLauncher(*given)
        else:
            # What `CudaUtils` makes, without its single instance.
            build.compile_module_from_src(
                src=(Path(nvidia.dirname) / "driver.c").read_text(), name=kind, library_dirs=nvidia.library_dirs(),
                include_dirs=nvidia.include_dirs, libraries=nvidia.libraries,
            )  # fmt: skip
    finally:
        nvidia.library_dirs, build._load_module_from_path = before


@cache
def _stub_of_libcuda() -> str:
    """A directory with a library that has the names of the driver's, to link with."""
    from triton.backends.nvidia import driver as nvidia

    names = set(re.findall(r"\bcu[A-Z]\w+", Path(nvidia.__file__).read_text()))
    names |= set(re.findall(r"\bcu[A-Z]\w+(?=\s*\()", (Path(nvidia.dirname) / "driver.c").read_text()))
    folder = Path(tempfile.mkdtemp(prefix="libcuda_stub_"))
    source = folder / "stub.c"
    source.write_text("".join(f"void {name}(void) {{}}\n" for name in sorted(names)))
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    library = folder / "libcuda.so.1"
    command = [*compiler.split(), "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(library), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    return str(folder)


def resources(compiled: Any) -> dict[str, int]:
    """{shared, registers, spilled, and for cuda waits} of a compiled kernel.

    Bytes of shared memory, registers of a thread, what of a thread's does not fit into them (bytes of its stack for
    cuda, registers for hip), and how often it waits for the kernel before.
    """
    backend = compiled.metadata.target.backend
    if backend == "hip":
        count = {key: int(re.findall(rf"\.{key}:\s+(\d+)", compiled.asm["amdgcn"])[0]) for key in _HIP}
        return {"shared": compiled.metadata.shared, "registers": count[_HIP[0]], "spilled": count[_HIP[1]]}
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [str(tool), "-res-usage", file.name]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) .*?LOCAL:(\d+)", report)
    assert found
    registers, stack, local = map(int, found.groups())
    waits = compiled.asm["ptx"].count("griddepcontrol.wait")
    return {"shared": compiled.metadata.shared, "registers": registers, "spilled": stack + local, "waits": waits}
