"""Decisions beside what was right: how often they are, what their probabilities are worth, what they cost."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from redraft.core.decisions import Answer, Decisions, Refusal
from redraft.core.engine import Engine
from redraft.core.questions import DecideOptions, Question
from redraft.decide.calibration import key_of
from redraft.decide.intervals import interval
from redraft.decide.measures import Columns, Outcome, accuracy, brier, outcome, summary
from redraft.decide.rows import Row

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Rows with what was decided.

    Attributes:
        decisions: of each row.
        seconds: that each took.
        elapsed_s: all of them together.
    """

    decisions: tuple[Decisions, ...]
    seconds: tuple[float, ...]
    elapsed_s: float

    @property
    def answers(self) -> list[Answer | Refusal]:
        """Of all questions, row by row."""
        return [answer for decisions in self.decisions for answer in decisions.answers]


def ask(engine: Engine, rows: Sequence[Row], options: DecideOptions, on_progress: Progress | None = None) -> Asked:
    """Asks the rows one by one, as somebody does who waits for each.

    Raises:
        InputError: a row or an option that cannot work.
        GenerationError: it failed while it ran.
    """
    found: list[Decisions] = []
    seconds: list[float] = []
    started = time.perf_counter()
    for number, row in enumerate(rows):
        if on_progress is not None:
            on_progress(number, len(rows))
        before = time.perf_counter()
        found.append(engine.decide(row.state, list(row.questions), options))
        seconds.append(time.perf_counter() - before)
    if on_progress is not None:
        on_progress(len(rows), len(rows))
    return Asked(decisions=tuple(found), seconds=tuple(seconds), elapsed_s=time.perf_counter() - started)


def state_numbers(rows: Sequence[Row]) -> list[int]:
    """A number for each row's state: equal ones have the same."""
    keys = [json.dumps([row.state.text, list(row.state.messages)], sort_keys=True, default=str) for row in rows]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return [numbers[key] for key in keys]


def outcomes(rows: Sequence[Row], asked: Asked, *, raw: bool) -> list[Outcome]:
    """What came of each question of each row; a question has its name for a key, so that people know it again.

    Args:
        rows: that were asked.
        asked: what was decided.
        raw: whether probabilities as they were read are meant, or calibrated ones.
    """
    return [
        outcome(state, key_of(question), question.kind, answer, shares, raw=raw)
        for state, row, decisions in zip(state_numbers(rows), rows, asked.decisions, strict=True)
        for question, shares, answer in zip(row.questions, row.shares, decisions.answers, strict=True)
    ]


def measured(found: Sequence[Outcome]) -> dict[str, Any]:
    """All measures of some outcomes, with intervals of two."""
    columns = Columns.of(found)
    intervals = {}
    for name, measure in (("accuracy", accuracy), ("brier", brier)):
        between = interval(columns, measure)
        intervals[f"{name}_interval"] = [between.low, between.high]
    return summary(columns) | intervals


def costs(rows: Sequence[Row], asked: Asked) -> dict[str, Any]:
    """What the decisions cost; a state's time is shared by its questions."""
    each = [seconds / len(row.questions) for seconds, row in zip(asked.seconds, rows, strict=True)]
    stats = [decisions.stats for decisions in asked.decisions]
    answers = asked.answers
    return {
        "p50_s": float(np.quantile(each, 0.5)),
        "p95_s": float(np.quantile(each, 0.95)),
        "decisions_per_second": len(answers) / asked.elapsed_s,
        "canvas_reads": sum(each.canvas_reads for each in stats),
        "causal_reads": sum(each.causal_reads for each in stats),
        "reread": sum(each.reread for each in stats),
        "abstained": sum(each.abstained for each in stats),
        "cannot_be_asked": sum(isinstance(each, Refusal) and each.answer is None for each in answers),
    }


def evaluate(
    engine: Engine,
    rows: Sequence[Row],
    options: DecideOptions,
    *,
    flips: bool = True,
    on_progress: Callable[[str, int, int], None] = lambda now, done, total: None,
) -> dict[str, Any]:
    """Asks the rows and measures the answers; one that was withheld counts as it would have been.

    Args:
        engine: the model.
        rows: labelled rows.
        options: how they are asked.
        flips: whether choices are asked again in reversed order, and everything with other noise.
        on_progress: called with what runs, how many rows are done, of how many.

    Returns:
        Measures of all questions, `by_kind` where there are several, `costs`, and `flips`.
    """
    turns = 3 if flips else 1
    asked = ask(engine, rows, options, lambda done, total: on_progress("asking", done, turns * total))
    found = outcomes(rows, asked, raw=options.calibration is None)
    result = measured(found) | {"calibrated": options.calibration is not None}
    kinds = sorted({each.kind for each in found})
    if len(kinds) > 1:
        result["by_kind"] = {kind: measured([each for each in found if each.kind == kind]) for kind in kinds}
    result["costs"] = costs(rows, asked)
    if flips:
        result["flips"] = {
            name: _flips(
                engine,
                rows,
                asked,
                options,
                lambda done, total, turn=turn, name=name: on_progress(f"other {name}", turn * total + done, 3 * total),
                order=name == "order",
            )
            for turn, name in enumerate(("order", "noise"), start=1)
        }
    return result


def _flips(
    engine: Engine, rows: Sequence[Row], before: Asked, options: DecideOptions, on_progress: Progress, *, order: bool
) -> dict[str, Any] | None:
    """How many likeliest answers change, and by how much the probabilities; None where nothing could change them.

    In reversed order the prompt is another, and so is its noise: what other noise alone does says how much of the
    change that may be.
    """
    some = [_reversed(row) if order else row for row in rows]
    places = [number for number, row in enumerate(some) if row is not None]
    seed = 1 if options.seed is None else (options.seed + 1) % 2**32
    again = options if order else options.with_changes(seed=seed)
    if not places or (not order and not any(each.stats.canvas_reads for each in before.decisions)):
        return None
    asked = ask(engine, [row for place in places if (row := some[place]) is not None], again, on_progress)
    changes: list[tuple[bool, float]] = []
    for place, decisions in zip(places, asked.decisions, strict=True):
        first = dict(zip(rows[place].questions, before.decisions[place].answers, strict=True))
        for answer in map(_seen, decisions.answers):
            if answer is None or (order and not _is_listed(answer.question)):
                continue
            question = _turned(answer.question) if order else answer.question
            other = _seen(first[question])
            if other is not None:
                now = answer.raw[::-1] if order else answer.raw
                gaps = [abs(p - q) for p, q in zip(now, other.raw, strict=True)]
                changes.append((_top(now) != _top(other.raw), max(gaps)))
    if not changes:
        return None
    flips, gaps = zip(*changes, strict=True)
    return {"count": len(changes), "flips": sum(flips), "max_dp": max(gaps), "mean_dp": sum(gaps) / len(gaps)}


def _reversed(row: Row) -> Row | None:
    """The row with the options of its choices the other way round; None where it has none that lists them."""
    if not any(map(_is_listed, row.questions)):
        return None
    turned = [_turned(question) if _is_listed(question) else question for question in row.questions]
    shares = [s[::-1] if _is_listed(q) else s for q, s in zip(row.questions, row.shares, strict=True)]
    return replace(row, questions=tuple(turned), shares=tuple(shares))


def _is_listed(question: Question) -> bool:
    return question.kind == "choice" and question.form != "reply"


def _turned(question: Question) -> Question:
    return replace(question, options=question.options[::-1])


def _seen(answer: Answer | Refusal) -> Answer | None:
    return answer.answer if isinstance(answer, Refusal) else answer


def _top(probabilities: Sequence[float]) -> int:
    return max(range(len(probabilities)), key=probabilities.__getitem__)
