"""Kernels that start while the one before them ends (programmatic dependent launch, compute capability 9 and later).

A launch costs a GPU a microsecond of starting up, which a kernel can spend while the one before is still at work. Every
kernel of ours begins with `after_the_last`, before it reads or writes anything, so that nothing else changes. It is off
unless `REDRAFT_PDL=1` is set: it has not been measured.
"""

from __future__ import annotations

import os

import triton
import triton.language as tl

DEPENDENT = tl.constexpr(os.environ.get("REDRAFT_PDL") == "1")

if DEPENDENT.value:
    from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def after_the_last():  # type: ignore[no-untyped-def]
    """Waits for all that the kernel before has written, then lets the next one start up."""
    if DEPENDENT:
        gdc_wait()
        gdc_launch_dependents()
