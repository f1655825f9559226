"""Labelled rows: states, and what is right about each, as lines of JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redraft.core.checks import integer, shown
from redraft.core.decisions import Refusal
from redraft.core.errors import DataError, QuestionError
from redraft.core.questions import Question
from redraft.decide.files import with_pictures
from redraft.decide.given import questions_of
from redraft.decide.prompts import text_of
from redraft.decide.state import State, state_of
from redraft.text.lines import json_lines

_FIELDS = ("state", "questions", "answers")
# By how much shares may miss 1: they are written with a few digits.
_ROUNDING = 0.01

Shares = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A state and what is right about it.

    Attributes:
        line: of the file, from 1.
        state: what is asked about.
        questions: what is asked; those that the line labels.
        shares: of each question, how right each option is: 1 for the right one; all 0 where none of them is; shares
            that sum to 1 where those who labelled it did not agree.
    """

    line: int
    state: State
    questions: tuple[Question, ...]
    shares: tuple[Shares, ...]


def read_rows(path: str | Path, questions: Sequence[Question | Refusal] | None = None) -> list[Row]:
    """The rows of a file: lines such as `{"state": "...", "answers": {"spam": true, "tone": "angry", "urgency": 3}}`.

    An answer is true or false, a choice's value, a level's number from 0 or its label; null where none of the options
    is right; or a map of options to their shares. A line may bring questions of its own, as `questions`.

    Args:
        path: the file.
        questions: of all lines that bring none.

    Raises:
        DataError: a line that cannot be used.
    """
    rows = [_row(str(path), line, value, questions) for line, value in json_lines(path)]
    if not rows:
        raise DataError(str(path), 0, "holds no rows")
    return rows


def shares_of(question: Question, answer: Any) -> Shares:
    """How right each option of a question is, by an answer as a row has it.

    Raises:
        QuestionError: it is no answer to the question.
    """
    if answer is None:
        return (0.0,) * len(question.options)
    if not isinstance(answer, Mapping):
        right = _index(question, answer)
        return tuple(float(option == right) for option in range(len(question.options)))
    shares = [0.0] * len(question.options)
    for value, share in answer.items():
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise QuestionError("answers", f"give {shown(value)} a share that is no number from 0 to 1: {shown(share)}")
        shares[_named(question, value)] += share
    total = sum(shares)
    if abs(total - 1) > _ROUNDING:
        raise QuestionError("answers", f"have shares that sum to {total:.6g}, not to 1")
    return tuple(share / total for share in shares)


def _row(path: str, line: int, value: Any, questions: Sequence[Question | Refusal] | None) -> Row:
    if not isinstance(value, Mapping):
        raise DataError(path, line, f"must be an object with state and answers, got {shown(value)}")
    for field in value:
        if field not in _FIELDS:
            raise DataError(path, line, f"{field!r} is no field of a row; there is {', '.join(_FIELDS)}")
    if not isinstance(value.get("answers"), Mapping) or not value["answers"]:
        raise DataError(path, line, "answers must be an object of names and what is right")
    try:
        asked = questions if value.get("questions") is None else questions_of(value["questions"])
        state = state_of(with_pictures(value.get("state"), path, line))
        if asked is None:
            raise QuestionError("questions", "are missing: the line brings none, and none were given")
        by_name = _by_name(asked)
        labelled = {name: _labelled(by_name, name, answer) for name, answer in value["answers"].items()}
    except QuestionError as error:
        raise DataError(path, line, str(error)) from None
    return Row(
        line=line,
        state=state,
        questions=tuple(by_name[name] for name in labelled),
        shares=tuple(labelled.values()),
    )


def _labelled(by_name: Mapping[str, Question], name: str, answer: Any) -> Shares:
    if name not in by_name:
        raise QuestionError("answers", f"name {shown(name)}, and the questions are {', '.join(map(shown, by_name))}")
    try:
        return shares_of(by_name[name], answer)
    except QuestionError as error:
        raise QuestionError(f"answers to {shown(name)}", error.reason) from None


def _by_name(questions: Sequence[Question | Refusal]) -> dict[str, Question]:
    found: dict[str, Question] = {}
    for number, question in enumerate(questions, start=1):
        if isinstance(question, Refusal):
            raise QuestionError(f"question {number}", f"cannot be asked: {question.reason}")
        if question.name is None:
            raise QuestionError(f"question {number}", "has no name for its answers")
        if question.name in found:
            raise QuestionError(f"question {number}", f"is called {shown(question.name)}, as another is")
        found[question.name] = question
    return found


def _index(question: Question, answer: Any) -> int:
    """Which option an answer is."""
    number = integer(answer)
    if question.kind == "score" and number is not None:
        if not 0 <= number < len(question.options):
            raise QuestionError("answers", f"must be a level from 0 to {len(question.options) - 1}, got {number}")
        return number
    for place, value in enumerate(question.values):
        if type(value) is type(answer) and value == answer:
            return place
    wanted = ", ".join(map(shown, question.values[:12])) + ", ..." * (len(question.values) > 12)
    raise QuestionError("answers", f"must be one of {wanted}, got {shown(answer)}")


def _named(question: Question, key: str) -> int:
    """Which option a key of JSON means, which is always text."""
    if question.kind == "score" and key.isascii() and key.isdigit() and key not in question.values:
        return _index(question, int(key) if len(key) < 9 else key)
    for place, option in enumerate(question.options):
        if key in (option.value, option.text, text_of(question, option)):
            return place
    return _index(question, key)
