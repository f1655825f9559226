"""Adapters of one model side by side at fixed addresses: rows of one forward have different ones, and a captured step
serves whichever are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from redraft.adapters.adapter import Adapter, Pair
from redraft.adapters.beside import opened
from redraft.adapters.settings import GROUPS, adaptable, path_of
from redraft.model.model import DiffusionGemma

# What every row may have a change of: products whose rows stand by their sequences. Experts' rows stand by experts.
TARGETS = (*GROUPS["attention"], *GROUPS["dense"])

# B sequences, T positions, S places, r rank, K inputs, R outputs


class RowAdapters:
    """Which place each sequence of a forward has its factors at.

    Attributes:
        index: [B], on the device; in captured work always the same tensor.
    """

    index: Int[Tensor, "B"]

    def note(self, _: nn.Module, given: tuple[Any, ...]) -> None:
        """What the backbone is about to see says whose rows they are; before each forward."""
        _, _, attend = given
        hidden: Tensor = given[0]
        self.index = attend.cache.adapters.to(hidden.device)


class StackedLinear(nn.Module):
    """A linear layer with factors for each sequence of a forward; those at place 0 are zeros."""

    a: Float[Tensor, "S r K"]
    b: Float[Tensor, "S R r"]

    def __init__(
        self, base: nn.Module, places: int, rank: int, shape: tuple[int, ...], rows: RowAdapters, like: Tensor
    ):
        super().__init__()
        out, inner = shape
        self.base, self._rows = base, rows
        self.register_buffer("a", like.new_zeros(places, rank, inner), persistent=False)
        self.register_buffer("b", like.new_zeros(places, out, rank), persistent=False)

    def forward(self, x: Float[Tensor, "B T K"]) -> Float[Tensor, "B T R"]:
        index = self._rows.index
        inner = torch.bmm(x, self.a[index].mT)
        return self.base(x) + torch.bmm(inner, self.b[index].mT)

    def place(self, number: int, pair: Pair | None) -> None:
        """Writes a pair to a place, or zeros."""
        self.a[number], self.b[number] = 0.0, 0.0
        if pair is not None:
            rank = len(pair.a)
            self.a[number, :rank] = pair.a
            self.b[number, :, :rank] = pair.b * pair.scale


class Stacks:
    """A model whose attention and dense products have room for several adapters.

    Attributes:
        model: shares its weights with the one that was given, which stays as it is.
    """

    def __init__(self, model: DiffusionGemma, places: int, rank: int) -> None:
        """Room for so many adapters of at most this rank."""
        self.rank = rank
        shapes = {path_of(name): shape for name, shape in adaptable(model.config).items()}
        shapes = {path: shape for path, shape in shapes.items() if path.endswith(TARGETS)}
        rows = RowAdapters()
        self.model = opened(model, list(shapes))
        self._linears: Mapping[str, StackedLinear] = {}
        like = model.backbone.norm.weight.detach()
        for path, shape in shapes.items():
            base = model.backbone.get_submodule(path)
            made = StackedLinear(base, places + 1, rank, shape, rows, like)
            owner, _, child = path.rpartition(".")
            setattr(self.model.backbone.get_submodule(owner), child, made)
            self._linears[path] = made
        self.model.backbone.register_forward_pre_hook(rows.note)
        self.model.run_by(None)
        self._free = list(range(places, 0, -1))

    def takes(self, adapter: Adapter) -> bool:
        """Whether there is a place for an adapter, and it has one pair for both modes of products that have room."""
        fits = all(
            path_of(name) in self._linears and pair.a.shape[-2] <= self.rank for name, pair in adapter.denoise.items()
        )
        return bool(self._free) and fits and adapter.is_one

    @torch.no_grad()
    def place(self, adapter: Adapter) -> int:
        """Writes an adapter to a free place; returns its number, from 1 on."""
        number = self._free.pop()
        for path, linear in self._linears.items():
            linear.place(number, adapter.denoise.get(f"{path}.weight"))
        return number

    def free(self, number: int) -> None:
        """Nobody has what lies there any more. Any thread may say so."""
        self._free.append(number)
