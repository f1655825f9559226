"""What of a run's models is kept: the last one, and the best so far."""

from __future__ import annotations

from typing import Any

import torch

from redraft.checkpoint.save import save_checkpoint
from redraft.model.model import DiffusionGemma
from redraft.train.adapting import Tuned
from redraft.train.judging import is_better
from redraft.train.known import write_by_heart
from redraft.train.recipe import Recipe
from redraft.train.state import Progress


class Kept:
    """Writes the model of a run, or its adapter, with the calls that it knows by heart.

    Attributes:
        name: of the best one's directory.
    """

    def __init__(self, recipe: Recipe, model: DiffusionGemma, tuned: Tuned | None, known: dict[str, Any]) -> None:
        self.recipe, self.model, self.tuned, self.known = recipe, model, tuned, known
        self.name = "model" if tuned is None else "adapter"

    def save(self, name: str) -> None:
        """Writes it as it is now into a directory of the run's output."""
        directory, dtype = self.recipe.output / name, getattr(torch, self.recipe.save_dtype)
        if self.tuned is not None:
            self.tuned.save(directory, dtype)
        else:
            tower: Any = self.model.tower
            save_checkpoint(self.model, directory, dtype=dtype, same_weights=False, vision=tower)
        write_by_heart(self.known, directory)

    def save_if_best(self, progress: Progress, loss: float | None, quality: float | None) -> None:
        """Writes it as the best one where it is, and notes that; where nothing is held out, the last one is."""
        if loss is None or is_better(loss, quality, progress.best_loss, progress.best_quality):
            if loss is not None:
                progress.best_loss, progress.best_quality = loss, quality
            self.save(self.name)
