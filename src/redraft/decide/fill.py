"""Asks the same of every row of a file, and writes each down as soon as it is answered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from redraft.core.decisions import Decisions, Refusal
from redraft.core.errors import DataError, GenerationError, OptionError, PromptError, QuestionError
from redraft.core.questions import Question
from redraft.decide.answered import Answered, answers_of

_OF_A_ROW = (PromptError, QuestionError, GenerationError)


def check(states: Iterable[Any], begin: Callable[[Any], Iterator[Any]]) -> None:
    """Makes sure that the options are right for one of the states at least: no model runs for it.

    Args:
        states: of the rows.
        begin: what `Engine.deciding` makes of one; no further than its first reads.

    Raises:
        OptionError: that of the first state, where every other has one, too.
    """
    first: OptionError | None = None
    for state in states:
        try:
            next(begin(state), None)
            return
        except _OF_A_ROW:
            continue
        except OptionError as error:
            first = first or error
    if first is not None:
        raise first


def fill(
    answered: Answered,
    questions: Sequence[Question],
    ask: Callable[[Any], Decisions],
    *,
    first: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, int]:
    """Writes the rows that a file has not yet. A row that cannot be asked says why in its own column.

    Args:
        answered: the file, begun.
        questions: what is asked.
        ask: of a state.
        first: how many rows there are already, by `Answered.begin`.
        on_progress: called with how many there are, of how many.

    Returns:
        `rows` in all, `asked` now, `abstained` (answers, not rows), `errors` (rows).

    Raises:
        DataError: the file can no longer be written.
    """
    total = len(answered.sheet.rows)
    counts = {"rows": total, "asked": total - first, "abstained": 0, "errors": 0}
    try:
        with answered.path.open("ab", buffering=0) as file:
            for number in range(first, total):
                on_progress(number, total)
                try:
                    decisions = ask(answered.sheet.states[number])
                    row = answered.row(number, answers_of(questions, decisions))
                    counts["abstained"] += sum(isinstance(each, Refusal) for each in decisions.answers)
                except (*_OF_A_ROW, OptionError) as error:
                    row = answered.row(number, None, " ".join(str(error).split()))
                    counts["errors"] += 1
                file.write(answered.line(row).encode())
    except OSError as error:
        raise DataError(str(answered.path), 0, f"cannot be written: {error.strerror}") from None
    on_progress(total, total)
    return counts
