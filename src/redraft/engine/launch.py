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


class Launch:
    """Something that reads and writes tensors which stay where they are, and that never asks the device anything.

    On CUDA and ROCm it becomes one graph: a step of a thousand launches costs the host one. Where it cannot be
    captured it is called as it is, after one warning.
    """

    def __init__(self, work: Callable[[], None], device: torch.device) -> None:
        """Runs `work` a few times where it is captured: its tensors must hold something by then."""
        self._work = work
        self._graph: torch.cuda.CUDAGraph | None = None
        if device.type == "cuda":
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


@cache
def _pool() -> Any:
    """Memory that all graphs share: they run one after the other, and what they leave is copied out of it."""
    return torch.cuda.graph_pool_handle()


def _captured(work: Callable[[], None], device: torch.device) -> torch.cuda.CUDAGraph | None:
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    try:
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                work()
        torch.cuda.current_stream(device).wait_stream(stream)
        with torch.cuda.graph(graph, pool=_pool()):
            work()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        _log.warning("a step cannot be captured as a graph and runs launch by launch: %s", error)
        return None
    return graph
