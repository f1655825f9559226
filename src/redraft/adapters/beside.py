"""A model with an adapter, beside the same model without it: the weights are there once."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

from redraft.adapters.adapter import Adapter
from redraft.adapters.attach import attach, changed_modules
from redraft.model.model import DiffusionGemma

M = TypeVar("M", bound=nn.Module)


def beside(model: DiffusionGemma, adapter: Adapter) -> DiffusionGemma:
    """The model with an adapter in it. The one that is given runs as it did, by its own runner, and may do so
    meanwhile; its weights are frozen from here on.

    Args:
        model: without an adapter. Both have its weights, and every module that the adapter does not change.
        adapter: its factors are moved to the model's device.

    Raises:
        CheckpointError, OptionError: as in `attach`.
    """
    other = _opened(model)
    backbone = other.backbone = _opened(model.backbone)
    opened: dict[str, nn.Module] = {"": backbone}
    for path in changed_modules(adapter):
        parts = path.split(".")[:-1]
        for depth in range(len(parts)):
            _open(opened, ".".join(parts[:depth]), parts[depth])
    attach(other, adapter)
    return other


def _open(opened: dict[str, nn.Module], owner: str, child: str) -> None:
    """Puts a copy of a module, which shares what it holds, in its place, once."""
    path = f"{owner}.{child}" if owner else child
    if path not in opened and child in opened[owner]._modules:
        opened[path] = _opened(opened[owner].get_submodule(child))
        setattr(opened[owner], child, opened[path])


def _opened(module: M) -> M:
    """A module with the same tensors and submodules, of which others may be put in without the first one's notice."""
    other = copy.copy(module)
    # Its tables of parameters, submodules and hooks are its own.
    vars(other).update({name: copy.copy(value) for name, value in vars(module).items() if isinstance(value, dict)})
    return other
