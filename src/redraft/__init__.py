"""redraft: run, tune and judge DiffusionGemma on the machine you own."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from redraft.core.changes import GenerationChanges
from redraft.core.decisions import Answer, Decisions, Refusal
from redraft.core.draft import Draft
from redraft.core.engine import Engine, Prompt, Request
from redraft.core.errors import (
    CheckpointError,
    ContextLengthError,
    DataError,
    FetchError,
    GenerationError,
    ImageError,
    InputError,
    ModelNotFoundError,
    OptionError,
    PromptError,
    QuestionError,
    RecipeError,
    RedraftError,
    SchemaError,
    UnknownOptionError,
)
from redraft.core.events import Commit, Event
from redraft.core.options import GenerationOptions
from redraft.core.questions import DecideOptions, Option, Question, choice, predicate, score
from redraft.core.results import Doubt, Generation, GenerationStats, ModelInfo, ToolCall

if TYPE_CHECKING:
    from redraft.checkpoint.load import load_model
    from redraft.engine.load import load

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "CheckpointError",
    "Commit",
    "ContextLengthError",
    "DataError",
    "DecideOptions",
    "Decisions",
    "Doubt",
    "Draft",
    "Engine",
    "Event",
    "FetchError",
    "Generation",
    "GenerationChanges",
    "GenerationError",
    "GenerationOptions",
    "GenerationStats",
    "ImageError",
    "InputError",
    "ModelInfo",
    "ModelNotFoundError",
    "Option",
    "OptionError",
    "Prompt",
    "PromptError",
    "Question",
    "QuestionError",
    "RecipeError",
    "RedraftError",
    "Refusal",
    "Request",
    "SchemaError",
    "ToolCall",
    "UnknownOptionError",
    "choice",
    "load",
    "load_model",
    "predicate",
    "score",
]

# What needs torch is imported on first use: `redraft --help` must not wait for it.
_LATE = {"load": "redraft.engine.load", "load_model": "redraft.checkpoint.load"}


def __dir__() -> list[str]:
    # What stands here for its own use, and the rooms below, are not for everybody.
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})


# Type checkers must not see it: with it, every misspelt name would be one that they know nothing of.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _LATE:
            raise AttributeError(f"module 'redraft' has no attribute {name!r}")
        value = globals()[name] = getattr(importlib.import_module(_LATE[name]), name)
        return value
