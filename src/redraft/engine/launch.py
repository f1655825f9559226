"""Work that is launched again and again: captured once where the device can, called elsewhere."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from redraft.kernels.accelerator import current
from redraft.kernels.triton.fallback import strictly

_log = logging.getLogger(__name__)
# In the first run kernels compile and choose their forms, and libraries make their workspaces; the last may not wait.
_WARM_UP = 2
_GRAPHS = {"cuda": "CUDAGraph", "xpu": "XPUGraph"}
# Only of CUDA's: other threads of the process may use the device while this one captures.
_MODE = {"cuda": {"capture_error_mode": "thread_local"}}

failures: list[str] = []
"""Why captures of this process failed after they had begun. torch 2.11 does not recover from that: a capture that fails
at its end leaves the memory cache and the default generator in the middle of it. Who measures goes on elsewhere."""


class Launch:
    """Something that reads and writes tensors which stay where they are, and that never asks the device anything.

    On CUDA and ROCm, and on XPU where this torch has graphs for it, it becomes one graph: hundreds of launches cost the
    host one. Where it cannot be captured it is called as it is, after one warning.
    """

    def __init__(
        self, work: Callable[[], None], device: torch.device, simplify: Callable[[], bool] | None = None
    ) -> None:
        """Runs `work` a few times where it is captured: its tensors must hold something by then.

        Args:
            work: what is to be launched.
            device: where.
            simplify: makes of work that cannot be captured what perhaps can be; False if it knows nothing simpler.
        """
        self._work = work
        self._graph, self.reason = capture(work, device)
        if self._graph is None and can_capture(device):
            _log.warning("a step cannot be captured as a graph and runs launch by launch: %s", self.reason)
            if simplify is not None and simplify():
                self._graph, self.reason = capture(work, device)

    @property
    def is_captured(self) -> bool:
        """Whether it is one graph."""
        return self._graph is not None

    def close(self) -> None:
        """Lets go of the graph, and of the work, whose owner mostly owns this."""
        self._graph, self._work = None, _nothing

    def __call__(self) -> None:
        """Does the work once."""
        if self._graph is None:
            self._work()
        else:
            self._graph.replay()


def _nothing() -> None:
    """What is closed does."""


def forbid() -> None:
    """From here on nothing is captured in this process."""
    _GRAPHS.clear()


def can_capture(device: torch.device) -> bool:
    """Whether torch has graphs for this kind of device."""
    return device.type in _GRAPHS and hasattr(torch.get_device_module(device), _GRAPHS[device.type])


def capture(work: Callable[[], object], device: torch.device) -> tuple[Any, str | None]:
    """(the graph of some work, which has `replay`; None), or (None, why there is none).

    It is captured on the stream that it has run on before: libraries have their workspaces for that stream by then, in
    ordinary memory, where one that they made within the capture would stay in the graph's for ever. Each graph has a
    stream and memory of its own, so that what one leaves behind when it goes is nobody else's.
    """
    if not can_capture(device):
        return None, f"graphs are captured on CUDA, ROCm and XPU, this is {device.type}"
    module = torch.get_device_module(device)
    with current(device):
        before = module.current_stream(device)
        try:
            graph, stream = getattr(module, _GRAPHS[device.type])(), module.Stream(device)
            stream.wait_stream(before)
            try:
                with module.stream(stream):
                    for _ in range(_WARM_UP - 1):
                        work()
                    with _no_waiting(module), strictly():
                        work()
            finally:
                # What it was told is still under way.
                before.wait_stream(stream)
            # Within a capture, a collection could end another graph.
            gc.collect()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            return None, _said(error)
        try:
            with module.graph(graph, stream=stream, **_MODE.get(device.type, {})), strictly():
                work()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            # It may be left on the stream that was to be captured.
            module.set_stream(before)
            failures.append(_said(error))
            return None, failures[-1]
    return graph, None


@contextmanager
def _no_waiting(module: Any) -> Iterator[None]:
    """An error where the host would wait for the device. Within a capture that would be one as well, but one that torch
    2.11 does not recover from."""
    if not hasattr(module, "set_sync_debug_mode"):
        yield
        return
    mode = module.get_sync_debug_mode()
    module.set_sync_debug_mode("error")
    try:
        yield
    finally:
        module.set_sync_debug_mode(mode)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
