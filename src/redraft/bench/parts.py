"""Where a step's time goes, by the parts of the model: hooks on modules that both libraries name alike."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any, Self

from torch import nn

# What a module's own name says about it.
_MODULES = {"self_attn": "attention", "mlp": "dense", "experts": "experts", "router": "router"}
REST = "rest"


class PartTimer:
    """Adds up the seconds of the parts of a model while it is entered. Does nothing unless enabled."""

    def __init__(self, root: nn.Module, *, enabled: bool) -> None:
        self.root, self.enabled = root, enabled
        self.seconds: dict[str, float] = defaultdict(float)
        self._handles: list[Any] = []
        self._watched: list[tuple[nn.Module, str]] = []
        self._began: dict[int, float] = {}

    def __enter__(self) -> Self:
        if self.enabled:
            for path, module in self.root.named_modules():
                name = _MODULES.get(path.rpartition(".")[2])
                if name is not None:
                    self._handles.append(module.register_forward_pre_hook(self._begin))
                    self._handles.append(module.register_forward_hook(self._ender(name)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        for owner, method in self._watched:
            delattr(owner, method)

    def watch(self, owner: nn.Module, method: str, *, name: str | None = None, starts: bool = False) -> None:
        """Times a method of an object too. One that `starts` a step forgets what went before the first."""
        call, first = getattr(owner, method), starts

        def timed(*arguments: Any, **options: Any) -> Any:
            nonlocal first
            if first:
                self.seconds.clear()
                first = False
            started = time.perf_counter()
            result = call(*arguments, **options)
            if name is not None:
                self.seconds[name] += time.perf_counter() - started
            return result

        setattr(owner, method, timed)
        self._watched.append((owner, method))

    def seconds_per_step(self, steps: int, total_s: float) -> dict[str, float]:
        """Each part's seconds a step, and what no part took."""
        parts = {name: seconds / steps for name, seconds in sorted(self.seconds.items())}
        return parts | {REST: max(0.0, total_s / steps - sum(parts.values()))}

    def _begin(self, module: nn.Module, _: Any) -> None:
        self._began[id(module)] = time.perf_counter()

    def _ender(self, name: str) -> Any:
        def end(module: nn.Module, *_: Any) -> None:
            self.seconds[name] += time.perf_counter() - self._began.pop(id(module))

        return end
