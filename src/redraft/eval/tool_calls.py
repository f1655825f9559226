"""Tool calls: the right function, the right arguments, and none where none is due.

An argument's value counts as equal after case folding and collapsing white space; names must be equal as they
are. Where a reference has several calls, their order matters.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from redraft.core.engine import Engine
from redraft.core.results import Generation, ToolCall
from redraft.eval.answers import answer, share
from redraft.eval.data import Row

Tools = Mapping[str, set[str]]


def evaluate(engine: Engine, rows: Sequence[Row], **how: Any) -> dict[str, Any]:
    """Answers the rows, how `redraft.eval.answers.answer` is told, and measures the replies.

    Returns:
        `exact_match, intent_accuracy, slot_f1, valid_calls, wrongly_turned_down`: over the `n_calls` rows whose
        reference is a call; `turned_down`: over the `n_text` others; None where there are no such rows.
        `denoising_steps_per_canvas, tokens_per_forward, seconds_per_request`: over all `n`, of which `n_failed`
        ended in an error.
    """
    answers = answer(engine, rows, is_wrong=lambda row, reply: not is_right(row, reply), **how)
    return grade(answers.pairs, known_tools(rows)) | answers.costs()


def grade(pairs: Sequence[tuple[Row, Generation]], tools: Tools) -> dict[str, Any]:
    """The measures of correctness over (reference, reply) pairs."""
    calling = [(row, reply) for row, reply in pairs if row.calls]
    talking = [(row, reply) for row, reply in pairs if not row.calls]
    return {
        "exact_match": share([_folded(row.calls) == _folded(reply.tool_calls) for row, reply in calling]),
        "intent_accuracy": share([_names(row.calls) == _names(reply.tool_calls) for row, reply in calling]),
        "slot_f1": _slot_f1(calling),
        "valid_calls": share([_is_valid(reply, tools) for _, reply in calling]),
        "turned_down": share([not reply.tool_calls for _, reply in talking]),
        "wrongly_turned_down": share([not reply.tool_calls for _, reply in calling]),
        "n_calls": len(calling),
        "n_text": len(talking),
    }


def is_right(row: Row, reply: Generation) -> bool:
    """Whether a reply makes the row's calls, or none where there are none: what a sentence says is not graded."""
    return reply.finish_reason != "error" and _folded(row.calls) == _folded(reply.tool_calls)


def known_tools(rows: Sequence[Row]) -> dict[str, set[str]]:
    """Function names and their argument names, from the references and from the rows' declarations."""
    tools: dict[str, set[str]] = {}
    for row in rows:
        for call in row.calls:
            tools.setdefault(call.name, set()).update(call.arguments)
        for declaration in row.tools or ():
            function = declaration.get("function", declaration)
            properties = (function.get("parameters") or {}).get("properties") or {}
            tools.setdefault(str(function.get("name")), set()).update(properties)
    return tools


def same_calls(expected: Sequence[ToolCall], got: Sequence[ToolCall]) -> bool:
    """Whether both are the same calls in the same order."""
    return _folded(expected) == _folded(got)


def fold(value: Any) -> str:
    """A value in the form in which it is compared: JSON with folded strings, sorted keys, 1.0 written as 1."""
    return json.dumps(_fold(value), sort_keys=True)


def _fold(value: Any) -> Any:
    if isinstance(value, str):
        return " ".join(value.casefold().split())
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: _fold(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_fold(item) for item in value]
    return value


def _names(calls: Sequence[ToolCall]) -> list[str]:
    return [call.name for call in calls]


def _folded(calls: Sequence[ToolCall]) -> list[tuple[str, str]]:
    return [(call.name, fold(call.arguments)) for call in calls]


def _slots(calls: Sequence[ToolCall]) -> Counter[tuple[str, str, str]]:
    # The function is part of the slot: a right value handed to the wrong function is wrong.
    return Counter((call.name, name, fold(value)) for call in calls for name, value in call.arguments.items())


def _slot_f1(pairs: Sequence[tuple[Row, Generation]]) -> float | None:
    """Micro F1: 2 right / (expected + got), slots counted over all rows; None where there is no slot at all."""
    right = total = 0
    for row, reply in pairs:
        expected, got = _slots(row.calls), _slots(reply.tool_calls)
        right += (expected & got).total()
        total += expected.total() + got.total()
    return 2 * right / total if total else None


def _is_valid(reply: Generation, tools: Tools) -> bool:
    return bool(reply.tool_calls) and all(
        not call.repaired and call.name in tools and tools[call.name].issuperset(call.arguments)
        for call in reply.tool_calls
    )
