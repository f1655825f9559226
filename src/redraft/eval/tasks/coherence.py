"""Whether what a model writes holds together, beside what people wrote to the same prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redraft.core.engine import Engine
from redraft.core.results import Generation
from redraft.eval.answers import answer, share
from redraft.eval.data import Row
from redraft.eval.measures.coherence import measure

# Per 1,000 words or shares; means over texts.
MEASURES = ("rep_2", "rep_4", "doubled_words", "doubled_spans", "doubled", "unbalanced", "words")


def is_right(row: Row, reply: Generation) -> bool:
    """Whether a reply says something, and no word and no span of it twice at once."""
    found = measure(reply.text)
    return reply.finish_reason != "error" and found["words"] > 0 and not found["doubled"]


def evaluate(engine: Engine, rows: Sequence[Row], **how: Any) -> dict[str, Any]:
    """Answers the rows, how `redraft.eval.answers.answer` is told, and measures the replies and the references.

    Returns:
        Of the replies that say something, means of `redraft.eval.measures.coherence.measure`, and by the same names
        with `_of_references` those of the references; `empty` (a share of those that did not fail); and the costs of
        `redraft.eval.answers.Answers`.
    """
    answers = answer(engine, rows, is_wrong=lambda row, reply: not is_right(row, reply), **how)
    replies = [measure(reply.text) for _, reply in answers.pairs if reply.finish_reason != "error"]
    said = [found for found in replies if found["words"]]
    references = [measure(row.text) for row, _ in answers.pairs if row.text]
    measures: dict[str, Any] = {}
    for name in MEASURES:
        measures[name] = share([found[name] for found in said])
        measures[f"{name}_of_references"] = share([found[name] for found in references])
    return measures | {"empty": share([not found["words"] for found in replies])} | answers.costs()
