"""A model with an adapter, beside the same model without it: the weights are there once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
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
    other = opened(model, changed_modules(adapter))
    attach(other, adapter)
    return other


def opened(model: DiffusionGemma, paths: Sequence[str]) -> DiffusionGemma:
    """The same model, in which other modules may be put at these paths of its backbone."""
    other = _twin(model)
    backbone = other.backbone = _twin(model.backbone)
    made: dict[str, nn.Module] = {"": backbone}
    for path in paths:
        parts = path.split(".")[:-1]
        for depth, child in enumerate(parts):
            owner, own = ".".join(parts[:depth]), ".".join(parts[: depth + 1])
            if own not in made:
                made[own] = _twin(made[owner].get_submodule(child))
                setattr(made[owner], child, made[own])
    return other


def _twin(module: M) -> M:
    """A module with the same tensors and submodules, of which others may be put in without the first one's notice."""
    other = copy.copy(module)
    # Its tables of parameters, submodules and hooks are its own.
    vars(other).update({name: copy.copy(value) for name, value in vars(module).items() if isinstance(value, dict)})
    return other
