"""Experts that wait in host memory: a layer's come to the device while the layers before it compute.

A canvas touches most experts of a layer, so whole layers are copied, in the order in which a forward comes to them,
into two places by turns, on a stream of their own. Every forward begins with the first of them, so that a captured one
is complete in itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from redraft.kernels.accelerator import current
from redraft.kernels.experts import experts
from redraft.kernels.matrices.int8 import Int8Matrix
from redraft.model.backbone import Backbone
from redraft.placement.quantized import experts_of

# One is in use while the next layer arrives in the other.
PLACES = 2

# An Int4Matrix, a PackedInt4, a Float8Matrix, a PlainStack: a dataclass of tensors and what is known of them.
Stack = Any
Pair = tuple[Stack, Stack]


@dataclass(frozen=True)
class PlainStack:
    """A stack in floating point."""

    data: Float[Tensor, "E R K"]


class Conveyor:
    """Brings some layers' experts to a device, one layer ahead of need.

    Attributes:
        layers: their numbers, in order.
        places: (gate-up, down) on the device; which layer's they hold changes.
        bytes_moved: by all forwards; replays of a captured one do not count.
    """

    def __init__(self, layers: Iterable[tuple[int, Pair]], device: torch.device) -> None:
        """`layers` are (number, (gate-up, down)) in order, in a form that the device multiplies and all of one shape.
        Each is moved to the host before the next one is asked for."""
        self._module, self._device = torch.get_device_module(device), device
        self._host = {layer: tuple(_changed(stack, _pinned) for stack in pair) for layer, pair in layers}

        def room(tensor: Tensor) -> Tensor:
            return torch.empty_like(tensor, device=device, pin_memory=False)

        first, order = next(iter(self._host.values())), list(self._host)
        self.layers = order
        self._next = dict(zip(order, [*order[1:], None], strict=True))
        self._first = order[0]
        self.places: list[Pair] = [
            (_changed(first[0], room), _changed(first[1], room)) for _ in range(min(PLACES, len(order)))
        ]
        with current(device):
            self._copying = self._module.Stream()
        self._arrived, self._free = ([self._module.Event() for _ in self.places] for _ in range(2))
        self._place_of = {layer: number % len(self.places) for number, layer in enumerate(order)}
        self.bytes_moved = 0

    def begin(self) -> None:
        """Starts on the first layer. Nothing of the forward before is in use any more: it came first on this stream."""
        for free in self._free:
            free.record(self._module.current_stream(self._device))
        self._start(self._first)

    def take(self, layer: int) -> int:
        """Which of `places` holds a layer's experts, from here on in the current stream; starts on the one after it."""
        place, after = self._place_of[layer], self._next[layer]
        if after is not None and len(self.places) > 1:
            self._start(after)
        self._module.current_stream(self._device).wait_event(self._arrived[place])
        return place

    def give_back(self, layer: int) -> None:
        """What the current stream has been told to do with a layer's experts is all."""
        self._free[self._place_of[layer]].record(self._module.current_stream(self._device))

    def _start(self, layer: int) -> None:
        place = self._place_of[layer]
        with self._module.stream(self._copying):
            self._copying.wait_event(self._free[place])
            for stack, room in zip(self._host[layer], self.places[place], strict=True):
                for name, tensor in _tensors(stack).items():
                    getattr(room, name).copy_(tensor, non_blocking=True)
                    self.bytes_moved += tensor.nbytes
            self._arrived[place].record(self._copying)


class ConveyedExperts(nn.Module):
    """A layer's experts that are copied to the device for each forward."""

    def __init__(self, conveyor: Conveyor, layer: int, modules: list[nn.Module]) -> None:
        """`modules` multiply what lies in each of the conveyor's places."""
        super().__init__()
        self.conveyor, self.layer = conveyor, layer
        # Shared by all layers, and no part of any of them.
        self._modules_of_places = tuple(modules)

    def forward(
        self, x: Float[Tensor, "N D"], index: Int[Tensor, "N A"], weight: Float[Tensor, "N A"]
    ) -> Float[Tensor, "N D"]:
        out: Tensor = self._modules_of_places[self.conveyor.take(self.layer)](x, index, weight)
        self.conveyor.give_back(self.layer)
        return out


def convey(backbone: Backbone, layers: Iterable[tuple[int, Pair]], device: torch.device) -> Conveyor:
    """Replaces the experts of some layers by ones that come from host memory.

    Args:
        backbone: whose modules are replaced.
        layers: see `Conveyor`.
        device: which multiplies them.
    """
    conveyor = Conveyor(layers, device)
    modules = [_module_of(*pair) for pair in conveyor.places]
    for layer in conveyor.layers:
        backbone.layers[layer].experts = ConveyedExperts(conveyor, layer, modules)
    backbone.register_forward_pre_hook(lambda *_: conveyor.begin())
    return conveyor


class _PlainExperts(nn.Module):
    def __init__(self, gate_up: PlainStack, down: PlainStack) -> None:
        super().__init__()
        self.gate_up, self.down = gate_up, down

    def forward(self, x: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        return experts(x, index, weight, self.gate_up.data, self.down.data)


def _module_of(gate_up: Stack, down: Stack) -> nn.Module:
    """What multiplies two stacks as they lie. Int8 ones would be packed, which is a copy."""
    if isinstance(gate_up, PlainStack):
        return _PlainExperts(gate_up, down)
    if isinstance(gate_up, Int8Matrix):
        raise TypeError("int8 experts do not come from host memory")
    return experts_of(gate_up, down)


def _tensors(stack: Stack) -> dict[str, Tensor]:
    found = {field.name: getattr(stack, field.name) for field in dataclasses.fields(stack)}
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def _changed(stack: Stack, change: Any) -> Stack:
    return dataclasses.replace(stack, **{name: change(tensor) for name, tensor in _tensors(stack).items()})


def _pinned(tensor: Tensor) -> Tensor:
    tensor = tensor.cpu()
    # Pinning needs an accelerator to pin for.
    return tensor.pin_memory() if torch.accelerator.is_available() else tensor
