"""The memory of this process, as the kernel counts it."""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def resident_bytes() -> int:
    """What the process holds now; 0 where the system does not say."""
    return _field("VmRSS")


def peak_bytes() -> int:
    """The most that it held since `reset_peak`, or since it began where that cannot be reset."""
    found = _field("VmHWM")
    if found:
        return found
    # macOS counts in bytes, the others in KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def reset_peak() -> int:
    """Starts the peak anew, where the kernel allows it; returns what the process holds now."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return resident_bytes()


def _field(name: str) -> int:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":")), 0)
