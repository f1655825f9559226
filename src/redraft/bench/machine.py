"""What this machine can do at most, measured at the start of a bench, and whether it is busy with something else."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from redraft.kernels.int8 import PackedInt8, quantised_linear
from redraft.kernels.matrices.int8 import Int8Matrix

# Above this share of the machine, others' work shows in the figures.
BUSY_SHARE = 0.1
_PROBE_S = 0.4


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Attributes:
    cpu: its name.
    cores, threads: of the machine, and what torch uses.
    torch: its version.
    peak_flops: operations a second of the best matrix product, by dtype.
    read_bytes_per_s: of memory.
    others_share: share of all cores that other processes took while nothing of ours ran.
    """

    cpu: str
    cores: int
    threads: int
    torch: str
    peak_flops: dict[str, float]
    read_bytes_per_s: float
    others_share: float

    @property
    def busy(self) -> bool:
        """Whether figures measured now would be too high."""
        return self.others_share > BUSY_SHARE

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self) | {"busy": self.busy}


def measure_machine() -> Machine:
    """Measures; takes about three seconds."""
    return Machine(
        cpu=cpu_name(),
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        peak_flops={"float32": _matrix(torch.float32), "bfloat16": _matrix(torch.bfloat16), "int8": _int8()},
        read_bytes_per_s=_read(),
        others_share=others_share(),
    )


def cpu_name() -> str:
    """The processor's own name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def others_share(seconds: float = _PROBE_S) -> float:
    """Share of all cores that is busy while this process sleeps; 0 where the system does not say."""
    before = _busy_ticks()
    time.sleep(seconds)
    after = _busy_ticks()
    if before is None or after is None:
        return 0.0
    ticks = os.sysconf("SC_CLK_TCK") * seconds * (os.cpu_count() or 1)
    return max(0.0, (after - before) / ticks)


def _busy_ticks() -> int | None:
    try:
        fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return user + nice + system + irq + softirq + steal


def best_time(run: Callable[[], object], seconds: float = _PROBE_S) -> float:
    """Seconds of the fastest of the calls that fit into a while."""
    run()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - started)
    return best


def _matrix(dtype: torch.dtype) -> float:
    M, K, N = 256, 1024, 2048
    left, right = torch.randn(M, K).to(dtype), torch.randn(N, K).to(dtype)
    out = torch.empty(M, N, dtype=dtype)
    return 2 * M * K * N / best_time(lambda: torch.mm(left, right.T, out=out))


def _int8() -> float:
    M, K, N = 256, 1024, 2048
    weight = PackedInt8.of(Int8Matrix.of(torch.randn(N, K)))
    values, scale = torch.randint(-127, 128, (M, K), dtype=torch.int8), torch.ones(M)
    return 2 * M * K * N / best_time(lambda: quantised_linear(values, scale, weight))


def _read() -> float:
    # Larger than any cache.
    data = torch.ones(2**27)
    return data.nbytes / best_time(data.sum)
