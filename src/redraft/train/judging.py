"""What a run is judged by beside its loss: replies of its own, which somebody above it makes and grades."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from redraft.core.errors import RecipeError
from redraft.model.model import DiffusionGemma
from redraft.text.conversations import Conversation
from redraft.train.data import Part
from redraft.train.recipe import Recipe

# What a judge's measures must have: the share of replies that are right.
QUALITY = "quality"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a judge shall ask.

    Attributes:
        directory: holds the tokenizer and the chat template of the model.
        adapter: where the adapter in the model has just been written, with the calls that it knows; None without one.
        rows: conversations that end with the expected reply.
        grader: what makes a reply right.
        tokens: the most of a reply; None leaves it to the judge.
        seed: of the replies.
        check: called now and then; raises where the run shall end.
    """

    directory: Path
    adapter: Path | None
    rows: list[Conversation]
    grader: str
    tokens: int | None
    seed: int
    check: Callable[[], None]


Judge = Callable[[DiffusionGemma, Asked], Mapping[str, float]]


def judging(
    judge: Judge, recipe: Recipe, directory: Path, rows: list[Conversation], check: Callable[[], None]
) -> Callable[[DiffusionGemma], dict[str, float]]:
    """What the judge says of a model that has just been written as the last one; `directory` is where it began."""
    last = recipe.output / "last"
    asked = Asked(
        directory=directory if recipe.adapter is not None else last,
        adapter=last if recipe.adapter is not None else None,
        rows=rows,
        grader=recipe.grader,
        tokens=recipe.judge_tokens,
        seed=recipe.seed,
        check=check,
    )
    return lambda model: dict(judge(model, asked))


def rows_to_judge(recipe: Recipe, parts: list[Part], judge: Judge | None) -> list[Conversation]:
    """Held-out conversations, evenly spaced, each up to its last reply; none where nothing is judged.

    Raises:
        RecipeError: a grader that has nothing to grade, or nobody to ask.
    """
    if recipe.grader == "none":
        return []
    if judge is None:
        raise RecipeError(f"grader: {recipe.grader} needs a judge, which `redraft train` brings: from Python, hand one")
    rows = [row for part in parts for row in map(_to_its_reply, part.held_out) if row is not None]
    if not rows:
        raise RecipeError(f"grader: {recipe.grader} needs rows that are held out: raise held_out, or set grader=none")
    count = min(recipe.judge_rows, len(rows))
    return [rows[i * len(rows) // count] for i in range(count)]


def _to_its_reply(row: Conversation) -> Conversation | None:
    ends = [place for place, message in enumerate(row.messages) if message["role"] == "assistant"]
    if not ends or ends[-1] == 0:
        return None
    return Conversation(row.messages[: ends[-1] + 1], row.line, row.tools)


def is_better(loss: float, quality: float | None, best_loss: float, best_quality: float | None) -> bool:
    """Whether a checkpoint is better than the best so far: by quality where there is one, then by loss."""
    if quality is None or best_quality is None:
        return loss < best_loss if quality is None and best_quality is None else quality is not None
    return (quality, -loss) > (best_quality, -best_loss) if not math.isnan(quality) else False
