"""Work that is launched again and again: captured once where the device can, called elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

_log = logging.getLogger(__name__)
# Kernels compile and choose their forms, and libraries make their workspaces, in the first runs.
_WARM_UP = 2
_GRAPHS = {"cuda": "CUDAGraph", "xpu": "XPUGraph"}


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
        self._graph = None
        if can_capture(device):
            self._graph = _captured(work, device)
            if self._graph is None and simplify is not None and simplify():
                self._graph = _captured(work, device)

    @property
    def is_captured(self) -> bool:
        """Whether it is one graph."""
        return self._graph is not None

    def __call__(self) -> None:
        """Does the work once."""
        if self._graph is None:
            self._work()
        else:
            self._graph.replay()


def can_capture(device: torch.device) -> bool:
    """Whether torch has graphs for this kind of device."""
    return device.type in _GRAPHS and hasattr(torch.get_device_module(device), _GRAPHS[device.type])


@cache
def _pool(kind: str) -> Any:
    """Memory that all graphs share: they run one after the other, and what they leave is copied out of it."""
    return torch.get_device_module(kind).graph_pool_handle()


def _captured(work: Callable[[], None], device: torch.device) -> Any:
    """The graph, which has `replay`; None where it could not be captured."""
    module = torch.get_device_module(device)
    try:
        graph, stream = getattr(module, _GRAPHS[device.type])(), module.Stream(device)
        stream.wait_stream(module.current_stream(device))
        with module.stream(stream):
            for _ in range(_WARM_UP):
                work()
        module.current_stream(device).wait_stream(stream)
        with module.graph(graph, pool=_pool(device.type)):
            work()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        _log.warning("a step cannot be captured as a graph and runs launch by launch: %s", error)
        return None
    return graph
