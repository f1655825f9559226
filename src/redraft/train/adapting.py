"""A run that trains an adapter: its base, which stays as it is, and what is written of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from redraft.adapters.adapter import Adapter
from redraft.adapters.attach import Attached, attach
from redraft.adapters.base import fingerprint
from redraft.adapters.files import write_adapter
from redraft.adapters.settings import Settings
from redraft.checkpoint.load import load_model
from redraft.core.errors import CheckpointError, OptionError, RecipeError
from redraft.model.model import DiffusionGemma
from redraft.train.recipe import Recipe

# What the names of a tower's parameters begin with here.
TOWER = "tower."


def learning(model: DiffusionGemma) -> dict[str, nn.Parameter]:
    """The parameters that a run steps: all of a model, with its tower where that learns too, or an adapter's."""
    found = {name: p for name, p in model.backbone.named_parameters() if p.requires_grad}
    if model.tower is not None:
        found |= {f"{TOWER}{name}": p for name, p in model.tower.named_parameters() if p.requires_grad}
    return found


@dataclass(kw_only=True)
class Tuned:
    """A frozen base with the adapter that is trained.

    Attributes:
        model: the base, with the adapter in it.
        attached: the adapter.
        name: the base's, as the recipe has it.
    """

    model: DiffusionGemma
    attached: Attached
    name: str

    def save(self, directory: Path, dtype: torch.dtype) -> None:
        """Writes the adapter in peft's layout."""
        write_adapter(self.attached.adapter, self.model.config, directory, base=self.name, dtype=dtype)


def load_base(recipe: Recipe, directory: Path, device: torch.device) -> Tuned:
    """The base of a recipe with a fresh adapter in it, in the dtype of its passes; the adapter itself is float32.

    Raises:
        RecipeError: an adapter that cannot be, by its field.
        CheckpointError: the base has no canvas mode.
    """
    assert recipe.adapter is not None
    fields = recipe.adapter.model_dump()
    quantize = fields.pop("quantize")
    try:
        settings = Settings(**fields)
    except OptionError as error:
        raise RecipeError(f"adapter: {error}") from None
    model = load_model(directory, device, getattr(torch, recipe.precision), quantize)
    if not model.config.has_canvas:
        raise CheckpointError(f"{directory} has no canvas mode to train: init must be a DiffusionGemma checkpoint")
    try:
        adapter = Adapter.fresh(settings, model.config, seed=recipe.seed)
        adapter.base = fingerprint(model)
        attached = attach(model, adapter, learning=True)
    except OptionError as error:
        raise RecipeError(f"adapter: {error}") from None
    return Tuned(model=model, attached=attached, name=str(recipe.init))
