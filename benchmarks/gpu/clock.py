"""Time and memory on a device: events where it has them, the host's clock on a CPU."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from redraft.bench.memory import peak_bytes, reset_peak
from redraft.engine.launch import capture

_WARM_UP = 3
# Twice this is read before a sample that must not find its inputs in a cache, where the device does not say.
_CACHE_BYTES = 64 * 2**20


class Clock:
    """Times work on one device; `quick` takes few samples, for a trial of the script itself."""

    def __init__(self, device: torch.device, *, quick: bool = False) -> None:
        self.device, self.quick = device, quick
        self.on_device = device.type != "cpu"
        self._flood: torch.Tensor | None = None

    def synchronize(self) -> None:
        """Waits for the device."""
        if self.on_device:
            torch.accelerator.synchronize(self.device)

    def is_alive(self) -> bool:
        """Whether the device still answers: after some errors nothing works in the same process."""
        try:
            torch.ones(1, device=self.device).add_(1).item()
            self.synchronize()
        except RuntimeError:
            return False
        return True

    def samples_ms(
        self, work: Callable[[], object], *, seconds: float = 1.0, most: int = 100, cold: bool = False
    ) -> list[float]:
        """Milliseconds of each of several calls, after some that do not count.

        Args:
            work: what is timed.
            seconds: that the samples may take together, about.
            most: samples.
            cold: whether caches are flooded before each sample.
        """
        for _ in range(1 if self.quick else _WARM_UP):
            work()
        self.synchronize()
        started = time.perf_counter()
        work()
        self.synchronize()
        once = time.perf_counter() - started
        count = 2 if self.quick else max(5, min(most, int(seconds / max(once, 1e-6))))
        pairs = []
        for _ in range(count):
            if cold and self.on_device:
                self._flush()
            began = self.mark()
            work()
            pairs.append((began, self.mark()))
        self.synchronize()
        return [round(self.between_ms(*pair), 5) for pair in pairs]

    def between_launches_ms(self, work: Callable[[], object], count: int = 50) -> float:
        """Milliseconds of one of many calls in a row: without what the host does between one and the next."""
        count = 2 if self.quick else count
        work()
        self.synchronize()
        began = self.mark()
        for _ in range(count):
            work()
        ended = self.mark()
        self.synchronize()
        return self.between_ms(began, ended) / count

    def mark(self) -> Any:
        """A moment, on the device where it keeps time."""
        if not self.on_device:
            return time.perf_counter()
        event = torch.Event(self.device, enable_timing=True)
        event.record()
        return event

    def between_ms(self, first: Any, last: Any) -> float:
        """Milliseconds between two moments that have passed."""
        return float(first.elapsed_time(last)) if self.on_device else 1e3 * (last - first)

    def _flush(self) -> None:
        """Fills the caches with what no kernel wants. It is read: what is written would be written back meanwhile."""
        if self._flood is None:
            size = _CACHE_BYTES
            if self.device.type == "cuda":
                size = int(getattr(torch.cuda.get_device_properties(self.device), "L2_cache_size", size))
            self._flood = torch.ones(max(size, _CACHE_BYTES) // 2, dtype=torch.int32, device=self.device)
        self._flood.amax()

    def captured(self, work: Callable[[], object]) -> tuple[Callable[[], object], str | None]:
        """(a replay of `work`, None), or (`work` itself, why it could not be captured)."""
        graph, reason = capture(work, self.device)
        return (work if graph is None else graph.replay), reason

    def reset_peak(self) -> None:
        """Peak memory counts from here on."""
        if self.on_device:
            torch.accelerator.reset_peak_memory_stats(self.device)
        else:
            reset_peak()

    def peak_bytes(self) -> int:
        """The most that tensors took on the device, or the process on a CPU."""
        return int(torch.accelerator.max_memory_allocated(self.device)) if self.on_device else peak_bytes()

    def reserved_bytes(self) -> int:
        """The most that was held for tensors, what captured graphs keep for themselves included; 0 on a CPU."""
        return int(torch.accelerator.max_memory_reserved(self.device)) if self.on_device else 0

    def empty_cache(self) -> None:
        """Gives back what no tensor holds; a captured step and what it launches hold each other."""
        gc.collect()
        if self.on_device:
            torch.accelerator.empty_cache()


def timed(samples_ms: list[float], **more: Any) -> dict[str, Any]:
    """Samples and their median, as a result."""
    return {"median_ms": median(samples_ms), "samples_ms": samples_ms} | more
