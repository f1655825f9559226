"""Reads evaluation data: OpenAI-style conversations, one a line, the last message of each the reference."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redraft.core.errors import DataError, InputError
from redraft.core.results import ToolCall


@dataclass(frozen=True, kw_only=True)
class Row:
    """One conversation and what should follow.

    Attributes:
        prompt: the messages before the reference.
        calls: the calls the reference makes; none when it is text.
        text: the reference's text, "" when it only calls.
        tools: tool declarations that go with the prompt, None when the row has none.
    """

    prompt: tuple[Mapping[str, Any], ...]
    calls: tuple[ToolCall, ...]
    text: str
    tools: tuple[Mapping[str, Any], ...] | None = None


def read_rows(path: Path) -> list[Row]:
    """All rows of a JSONL file; blank lines are skipped.

    Raises:
        DataError: a row that is no such conversation.
        InputError: a file without rows, or one that is not UTF-8.
    """
    rows = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    rows.append(_read_row(line, str(path), number))
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error.reason}): convert it first") from error
    if not rows:
        raise InputError(f"{path} has no rows: give one conversation a line")
    return rows


def _read_row(line: str, path: str, number: int) -> Row:
    try:
        return parse_row(json.loads(line))
    except json.JSONDecodeError as error:
        raise DataError(path, number, f"not JSON ({error.msg}, column {error.colno})") from error
    except ValueError as error:
        raise DataError(path, number, str(error)) from error


def parse_row(value: Any) -> Row:
    """A row from its JSON value.

    Raises:
        ValueError: it is no conversation that ends with an assistant message; says why.
    """
    messages = value.get("messages") if isinstance(value, Mapping) else None
    if not isinstance(messages, list) or not messages:
        raise ValueError('expected {"messages": [...]} with at least two messages')
    for message in messages:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise ValueError('each message needs a "role"')
    *prompt, reference = messages
    if reference["role"] != "assistant":
        raise ValueError(f"the last message must be the assistant's, it is from {reference['role']!r}")
    if not prompt:
        raise ValueError("there is no message before the assistant's")
    calls = _parse_calls(reference.get("tool_calls") or [])
    text = reference.get("content") or ""
    if not isinstance(text, str):
        raise ValueError("the assistant's content must be text")
    if not calls and not text:
        raise ValueError("the assistant's message has neither content nor tool_calls")
    return Row(prompt=tuple(prompt), calls=calls, text=text, tools=_parse_tools(value.get("tools")))


def _parse_calls(values: Any) -> tuple[ToolCall, ...]:
    if not isinstance(values, list):
        raise ValueError("tool_calls must be a list")
    calls = []
    for value in values:
        function = value.get("function") if isinstance(value, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise ValueError('each tool call needs {"function": {"name": ..., "arguments": ...}}')
        calls.append(ToolCall(name=function["name"], arguments=_parse_arguments(function)))
    return tuple(calls)


def _parse_arguments(function: Mapping[str, Any]) -> dict[str, Any]:
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except json.JSONDecodeError as error:
            raise ValueError(f"arguments of {function['name']!r} are not JSON ({error.msg})") from error
    if not isinstance(arguments, dict):
        raise ValueError(f"arguments of {function['name']!r} must be an object")
    return arguments


def _parse_tools(values: Any) -> tuple[Mapping[str, Any], ...] | None:
    if values is None:
        return None
    if not isinstance(values, list) or not all(isinstance(value, Mapping) for value in values):
        raise ValueError("tools must be a list of declarations")
    return tuple(values)
