"""GSM8K: word problems of primary school, whose answer is a number.

Source: Cobbe et al. 2021, arXiv 2110.14168; files of lines `{"question": ..., "answer": "... #### 72"}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from redraft.core.engine import Engine
from redraft.core.errors import DataError
from redraft.core.results import Generation
from redraft.eval.answers import answer, share
from redraft.eval.data import Row
from redraft.eval.graders.numbers import MARK, last, marked
from redraft.text.lines import json_lines

# Of a reply, unless something else is asked for: a budget decides more than a model does.
BUDGET = 1024
INSTRUCTION = f"Solve it step by step. End with {MARK} and the number alone."


def read_rows(path: Path) -> list[Row]:
    """The problems of a file.

    Raises:
        DataError: no lines, or one without a question, or whose answer has no number behind its mark.
    """
    rows = []
    for line, value in json_lines(path):
        if not isinstance(value, dict) or not all(isinstance(value.get(key), str) for key in ("question", "answer")):
            raise DataError(str(path), line, 'expected {"question": "...", "answer": "... #### 72"}')
        if marked(value["answer"]) is None:
            raise DataError(str(path), line, f"the answer has no number behind {MARK}")
        prompt = {"role": "user", "content": f"{value['question']}\n\n{INSTRUCTION}"}
        rows.append(Row(prompt=(prompt,), calls=(), text=value["answer"]))
    if not rows:
        raise DataError(str(path), 0, "holds no problems")
    return rows


def is_right(row: Row, reply: Generation) -> bool:
    """Whether the number behind the last mark is the answer's; a reply that was cut off is not right."""
    return reply.finish_reason == "stop" and marked(reply.text) == marked(row.text)


def is_right_anywhere(row: Row, reply: Generation) -> bool:
    """The same of the last number in the reply."""
    return reply.finish_reason == "stop" and last(reply.text) == marked(row.text)


def evaluate(engine: Engine, rows: Sequence[Row], **how: Any) -> dict[str, Any]:
    """Answers the rows, how `redraft.eval.answers.answer` is told, and grades the replies.

    Returns:
        `exact_match` (behind the mark), `flexible_match` (the last number), `cut` (shares of all rows, None where there
        are none), and the costs of `redraft.eval.answers.Answers`.
    """
    answers = answer(engine, rows, is_wrong=lambda row, reply: not is_right(row, reply), **how)
    return {
        "exact_match": share([is_right(*pair) for pair in answers.pairs]),
        "flexible_match": share([is_right_anywhere(*pair) for pair in answers.pairs]),
        "cut": share([reply.finish_reason == "length" for _, reply in answers.pairs]),
    } | answers.costs()
