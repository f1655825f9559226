"""redraft: run, tune and judge DiffusionGemma on the machine you own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redraft.core.engine import Engine, Prompt, Request
from redraft.core.errors import (
    CheckpointError,
    ContextLengthError,
    DataError,
    GenerationError,
    InputError,
    ModelNotFoundError,
    OptionError,
    PromptError,
    RecipeError,
    RedraftError,
    UnknownOptionError,
)
from redraft.core.events import Commit, Draft, Event
from redraft.core.options import GenerationOptions
from redraft.core.results import Generation, GenerationStats, ModelInfo, ToolCall

if TYPE_CHECKING:
    from redraft.checkpoint.load import load_model
    from redraft.engine.load import load

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "Commit",
    "ContextLengthError",
    "DataError",
    "Draft",
    "Engine",
    "Event",
    "Generation",
    "GenerationError",
    "GenerationOptions",
    "GenerationStats",
    "InputError",
    "ModelInfo",
    "ModelNotFoundError",
    "OptionError",
    "Prompt",
    "PromptError",
    "RecipeError",
    "RedraftError",
    "Request",
    "ToolCall",
    "UnknownOptionError",
    "load",
    "load_model",
]


def __getattr__(name: str) -> Any:
    # What needs torch is imported on first use: `redraft --help` must not wait for it.
    if name == "load":
        from redraft.engine.load import load

        return load
    if name == "load_model":
        from redraft.checkpoint.load import load_model

        return load_model
    raise AttributeError(f"module 'redraft' has no attribute {name!r}")
