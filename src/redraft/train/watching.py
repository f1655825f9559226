"""Where a run's figures go beside `metrics.jsonl`: TensorBoard's files, an offline run of Weights & Biases."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from redraft.core.errors import RecipeError
from redraft.train.metrics import append_row
from redraft.train.recipe import Recipe


class Board(Protocol):
    """Takes figures."""

    def add(self, kind: str, step: int, figures: Mapping[str, float]) -> None:
        """Figures of a step, all finite, by the names of the log."""
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


class Log:
    """`metrics.jsonl`, and the boards that a recipe wants."""

    def __init__(self, recipe: Recipe) -> None:
        """Raises RecipeError where a board's library is not there."""
        self.path = recipe.output / "metrics.jsonl"
        self.boards = [_BOARDS[name](recipe) for name in recipe.watch]

    def add(self, kind: str, step: int, figures: Mapping[str, float]) -> None:
        """Logs the figures of a step."""
        append_row(self.path, kind, step, figures)
        # Rows at fixed noise are told apart by two of their own figures.
        end = f"/t={figures['t']:g}{'/signal' * bool(figures['signal'])}" if "t" in figures else ""
        known = {f"{name}{end}": value for name, value in figures.items() if math.isfinite(value)}
        for board in self.boards:
            board.add(kind, step, known)

    def close(self) -> None:
        """Nothing more comes."""
        for board in self.boards:
            board.close()


class _TensorBoard:
    def __init__(self, recipe: Recipe) -> None:
        library = _library("torch.utils.tensorboard", "tensorboard")
        self.writer = library.SummaryWriter(str(recipe.output / "tensorboard"))

    def add(self, kind: str, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        self.writer.close()


class _Wandb:
    def __init__(self, recipe: Recipe) -> None:
        wandb = _library("wandb", "wandb")
        Path(recipe.output / "wandb").mkdir(parents=True, exist_ok=True)
        self.run: Any = wandb.init(
            project="redraft",
            name=recipe.output.name,
            dir=str(recipe.output),
            config=recipe.model_dump(mode="json"),
            # `wandb sync` is for those who want it elsewhere.
            mode="offline",
        )

    def add(self, kind: str, step: int, figures: Mapping[str, float]) -> None:
        self.run.log({f"{kind}/{name}": value for name, value in figures.items()}, step=step)

    def close(self) -> None:
        self.run.finish()


_BOARDS = {"tensorboard": _TensorBoard, "wandb": _Wandb}


def _library(module: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise RecipeError(f"watch: {name} is not installed: pip install 'redraft[watch]'") from None
