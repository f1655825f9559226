"""The judge that `redraft train` brings: the engine around the model that is trained, and a grader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redraft.train.judging import Asked


def judge(model: Any, asked: Asked) -> Mapping[str, float]:
    """The measures of `redraft.eval.quality.quality` for what is asked; `model` is the one that is trained."""
    from redraft.checkpoint.source import Source
    from redraft.checkpoint.vision import LazyVision
    from redraft.engine.engine import LocalEngine
    from redraft.eval.data import row_of
    from redraft.eval.quality import quality

    engine = LocalEngine(
        model,
        name="trained",
        directory=asked.directory,
        adapter=asked.adapter,
        exact=model.device.type == "cpu",
        tower=LazyVision(Source.open(asked.directory), model.device, model.dtype),
    )
    rows = [row_of("held-out rows", row) for row in asked.rows]
    return quality(engine, rows, asked.grader, tokens=asked.tokens, seed=asked.seed, check=asked.check)
