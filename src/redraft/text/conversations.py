"""Conversations in files: JSONL, one OpenAI-style conversation a line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redraft.core.errors import DataError, PromptError
from redraft.text.messages import checked_messages


@dataclass(frozen=True)
class Conversation:
    """One row of a file.

    Attributes:
        messages: checked, arguments of calls as mappings.
        line: where it stood, from 1.
        tools: declarations that go with it, None when the row has none.
    """

    messages: list[dict[str, Any]]
    line: int
    tools: list[dict[str, Any]] | None = None


def read_conversations(path: str | Path) -> list[Conversation]:
    """Every conversation of a JSONL file; blank lines are skipped.

    Raises:
        DataError: the file is missing or empty, or a row is no conversation, with its line.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise DataError(str(path), 0, "no such file") from None
    except UnicodeDecodeError as error:
        raise DataError(str(path), 0, f"is not UTF-8 text: {error}") from None
    rows = [_row(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not rows:
        raise DataError(str(path), 1, "the file holds no conversation")
    return rows


def _row(path: Path, number: int, line: str) -> Conversation:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(str(path), number, f"is no JSON: {error}") from None
    messages = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(messages, list):
        raise DataError(str(path), number, 'is no conversation: it needs {"messages": [...]}')
    tools = row.get("tools")
    if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        raise DataError(str(path), number, "tools must be a list of declarations")
    try:
        return Conversation(checked_messages(messages), number, tools)
    except PromptError as error:
        raise DataError(str(path), number, str(error)) from None
