"""Sudoku: positions that depend on each other, which a canvas fills at once and a causal mode one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redraft.core.engine import Engine
from redraft.core.results import Generation
from redraft.eval.answers import answer, share
from redraft.eval.data import Row
from redraft.eval.graders.sudoku import SIDE, is_valid, puzzle, solution_in

INSTRUCTION = "Solve this Sudoku; 0 is a blank cell. Answer with the nine lines of the solution alone."


@dataclass(frozen=True, kw_only=True)
class Problem(Row):
    """A puzzle, whose reference `text` is its solution.

    Attributes:
        puzzle: 81 digits, 0 where a cell is blank.
    """

    puzzle: str


def made(count: int, clues: int, seed: int) -> list[Problem]:
    """So many puzzles; the same for the same seed."""
    return [_problem(*puzzle(clues, seed + number)) for number in range(count)]


def _problem(given: str, solution: str) -> Problem:
    prompt = {"role": "user", "content": f"{INSTRUCTION}\n\n{lines(given)}"}
    return Problem(prompt=(prompt,), calls=(), text=lines(solution), puzzle=given)


def lines(grid: str) -> str:
    """A grid as nine lines."""
    return "\n".join(grid[start : start + SIDE] for start in range(0, len(grid), SIDE))


def is_right(row: Problem, reply: Generation) -> bool:
    """Whether the last 81 digits are the solution."""
    return reply.finish_reason != "error" and solution_in(reply.text) == solution_in(row.text)


def evaluate(engine: Engine, rows: Sequence[Problem], **how: Any) -> dict[str, Any]:
    """Answers the rows, how `redraft.eval.answers.answer` is told, and grades the replies.

    Returns:
        Shares, None where there are no rows: `exact_match`; `blanks_right` and `cells_right` (the second flatters,
        since clues stand in the prompt); `clues_kept` and `by_the_rules`, of replies; `clues`, a mean; and the costs
        of `redraft.eval.answers.Answers`.
    """
    answers = answer(engine, rows, is_wrong=lambda row, reply: not is_right(row, reply), **how)  # type: ignore[arg-type]
    graded = [_cells(row, solution_in(reply.text)) for row, reply in answers.pairs]  # type: ignore[arg-type]
    names = ("blanks_right", "cells_right", "clues_kept", "by_the_rules", "clues")
    measures = {"exact_match": share([is_right(*pair) for pair in answers.pairs])}  # type: ignore[arg-type]
    return measures | {name: share([line[name] for line in graded]) for name in names} | answers.costs()


def _cells(row: Problem, got: str | None) -> dict[str, float]:
    expected, given = solution_in(row.text) or "", row.puzzle
    found = got or "0" * len(given)
    right = [one == other for one, other in zip(expected, found, strict=True)]
    blanks = [held for held, clue in zip(right, given, strict=True) if clue == "0"]
    clues = [clue == cell for clue, cell in zip(given, found, strict=True) if clue != "0"]
    return {
        "blanks_right": sum(blanks) / max(1, len(blanks)),
        "cells_right": sum(right) / len(right),
        "clues_kept": float(all(clues)),
        "by_the_rules": float(is_valid(found)),
        "clues": float(len(clues)),
    }
