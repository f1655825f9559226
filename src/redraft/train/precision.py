"""Where a run computes, and in which dtype: float32 masters that learn, and the copy that is run."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from redraft.core.errors import OptionError, RecipeError
from redraft.kernels.private import private
from redraft.model.model import DiffusionGemma
from redraft.placement.device import find_device


def training_device(name: str) -> torch.device:
    """The device of a recipe.

    Raises:
        RecipeError: there is no such device here.
    """
    try:
        return find_device(name)
    except OptionError as error:
        raise RecipeError(f"device: {error}") from None


def moved(x: Tensor, device: torch.device) -> Tensor:
    """A host tensor on the device; the host does not wait for the copy."""
    if device.type == "cpu":
        return x
    # From pageable memory a copy would wait for what the device still has to do.
    return (x.pin_memory() if device.type == "cuda" else x).to(device, non_blocking=True)


class Working:
    """The model that forward and backward passes run: the masters themselves in float32, a bfloat16 copy of them else.

    A copy and not autocast: every weight is rounded once a step, and the kernels see one dtype, as in inference. The
    optimizer and the averaged weights see the float32 masters alone, which keep what a step adds to a weight even where
    it is less than bfloat16 can hold.
    """

    def __init__(self, masters: DiffusionGemma, dtype: torch.dtype) -> None:
        self.masters = masters
        self.model = masters
        if dtype != masters.dtype:
            self.model = copy.deepcopy(masters).to(dtype)
            # Angles need float32 whatever the model computes in.
            self.model.backbone.build_rotary(masters.device)
            # So do numbers that cancel others of their own size.
            exact = () if masters.tower is None else masters.tower.named_buffers()
            for name, buffer in ((n, b) for n, b in exact if n.endswith(("std_bias", "std_scale"))):
                self.model.get_submodule(f"tower.{name}".rpartition(".")[0]).register_buffer(
                    name.rpartition(".")[2], buffer.clone()
                )
        self._pairs = list(zip(masters.parameters(), self.model.parameters(), strict=True))

    def give_gradients(self) -> None:
        """After a backward pass: its gradients become the masters'."""
        if self.model is self.masters:
            return
        for master, copied in self._pairs:
            master.grad = None if copied.grad is None else copied.grad.to(master.dtype)

    @torch.no_grad()
    def refresh(self) -> None:
        """After the masters have changed: the copy is rounded from them again."""
        if self.model is not self.masters:
            masters, copies = (list(side) for side in zip(*self._pairs, strict=True))
            if (together := private("_foreach_copy_", "parameters are copied one by one")) is not None:
                together(copies, masters)
                return
            for copied, master in zip(copies, masters, strict=True):
                copied.copy_(master)
