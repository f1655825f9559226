"""Where a step's time goes: what the device is busy with inside each module, or where it does not tell, the time
between the module's begin and end on the device."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from clock import Clock
from torch import nn
from torch.autograd import DeviceType
from torch.profiler import profile, supported_activities

from redraft.bench.floor import Part
from redraft.model.model import DiffusionGemma

# By the last part of a module's name. Projections count as attention, the router's product by itself.
_MODULES = {
    "self_attn": "attention",
    "mlp": "dense",
    "self_conditioning": "dense",
    "experts": "experts",
    "router": "router",
    "embed_tokens": "embedding",
}
_PREFIX, _WHOLE = "part ", "whole"
# Kernels that are kept by name.
_LISTED = 40


def part_times_ms(model: DiffusionGemma, work: Callable[[], object], clock: Clock, repeats: int = 5) -> dict[str, Any]:
    """{"by": how, "parts_ms": of one call of `work`, "kernels": by name {ms, launches} of one call, the longest first}.
    What is in no part is "rest"."""
    if not clock.on_device:
        return {"by": "host", "parts_ms": _between(model, work, clock, repeats)}
    try:
        return {"by": "kernels"} | _busy(model, work, clock, repeats)
    except RuntimeError as error:
        # Some drivers let nobody see what runs.
        return {
            "by": "events",
            "note": f"no profile: {str(error)[:200]}",
            "parts_ms": _between(model, work, clock, repeats),
        }


def floors_by_part(parts: list[Part], floors_s: dict[str, float]) -> dict[str, float]:
    """Milliseconds, under the names of `part_times_ms`."""
    found: dict[str, float] = defaultdict(float)
    for part in parts:
        found["attention" if part.name == "projections" else part.name] += 1e3 * floors_s[part.name]
    return dict(found)


def span(name: str) -> Any:
    """A range of the profiler's. Not `record_function`, whose ranges belong to the user: kernels that no operator of
    torch's stands around, which are ours, are not counted in those."""
    return torch._C._profiler._RecordFunctionFast(_PREFIX + name)


def _busy(model: DiffusionGemma, work: Callable[[], object], clock: Clock, repeats: int) -> dict[str, Any]:
    work()
    clock.synchronize()
    with (
        _watched(model, span),
        profile(activities=list(supported_activities())) as found,
    ):
        for _ in range(repeats):
            work()
        clock.synchronize()
    parts: dict[str, float] = defaultdict(float)
    kernels: dict[str, dict[str, float]] = {}
    for event in found.key_averages():
        is_range = event.key.startswith(_PREFIX)
        if event.device_type == DeviceType.CPU:
            # What a range's own launches, Triton's, and those of the operators inside it took.
            if is_range:
                parts[event.key.removeprefix(_PREFIX)] += event.device_time_total / repeats / 1e3
        elif not is_range:
            milliseconds = event.self_device_time_total / repeats / 1e3
            kernels[event.key[:80]] = {"ms": milliseconds, "launches": event.count / repeats}
    if not sum(parts.values()):
        raise RuntimeError("the profiler saw no kernel in any part")
    longest = dict(sorted(kernels.items(), key=lambda kernel: -kernel[1]["ms"])[:_LISTED])
    total = sum(kernel["ms"] for kernel in kernels.values())
    return {"parts_ms": _with_rest(parts, total), "kernels": longest}


def _between(model: DiffusionGemma, work: Callable[[], object], clock: Clock, repeats: int) -> dict[str, float]:
    spans: list[tuple[str, Any, Any]] = []

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        began = clock.mark()
        yield
        spans.append((name, began, clock.mark()))

    work()
    with _watched(model, timed):
        for _ in range(repeats):
            with timed(_WHOLE):
                work()
    clock.synchronize()
    parts: dict[str, float] = defaultdict(float)
    for name, began, ended in spans:
        parts[name] += clock.between_ms(began, ended) / repeats
    return _with_rest(parts, parts.pop(_WHOLE))


def _with_rest(parts: dict[str, float], total: float) -> dict[str, float]:
    return dict(parts) | {"rest": max(0.0, total - sum(parts.values()))}


@contextmanager
def _watched(model: DiffusionGemma, span: Callable[[str], Any]) -> Iterator[None]:
    """Opens a span around every call of a part."""
    open_spans: list[Any] = []
    handles = []
    head = model.head

    def begin(name: str) -> None:
        open_spans.append(span(name))
        open_spans[-1].__enter__()

    def end() -> None:
        open_spans.pop().__exit__(None, None, None)

    def watched_head(*given: Any, **options: Any) -> Any:
        begin("head")
        found = head(*given, **options)
        end()
        return found

    for root in filter(None, (model.backbone, model.runner)):
        for path, module in root.named_modules():
            name = _MODULES.get(path.rpartition(".")[2])
            if name is not None:
                handles += _hooks(module, name, begin, end)
    model.head = watched_head  # type: ignore[method-assign]
    try:
        yield
    finally:
        del model.head
        for handle in handles:
            handle.remove()


def _hooks(module: nn.Module, name: str, begin: Callable[[str], None], end: Callable[[], None]) -> list[Any]:
    return [
        module.register_forward_pre_hook(lambda *_: begin(name)),
        module.register_forward_hook(lambda *_: end()),
    ]
