"""Evaluation data: conversations whose last message is the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redraft.core.errors import DataError
from redraft.core.results import ToolCall
from redraft.text.conversations import Conversation, read_conversations


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
    """All rows of a JSONL file.

    Raises:
        DataError: a row that is no conversation which ends with an assistant message, with its line.
    """
    return [row_of(str(path), conversation) for conversation in read_conversations(path)]


def read_texts(path: Path) -> list[Row]:
    """All rows of a JSONL file whose references are texts.

    Raises:
        DataError: as `read_rows`, or a row whose reference makes a call.
    """
    return [_text(str(path), conversation) for conversation in read_conversations(path)]


def _text(path: str, conversation: Conversation) -> Row:
    row = row_of(path, conversation)
    if row.calls:
        reason = f"the reference calls {row.calls[0].name}, it must be a text: `redraft eval tool-calls` measures calls"
        raise DataError(path, conversation.line, reason)
    return row


def row_of(path: str, conversation: Conversation) -> Row:
    """A conversation as a prompt and its reference.

    Raises:
        DataError: it does not end with an assistant message, or that says nothing.
    """
    *prompt, reference = conversation.messages
    if reference["role"] != "assistant":
        reason = f"the last message must be the assistant's, it is from {reference['role']!r}"
        raise DataError(path, conversation.line, reason)
    if not prompt:
        raise DataError(path, conversation.line, "there is no message before the assistant's")
    if not reference["content"] and not reference.get("tool_calls"):
        raise DataError(path, conversation.line, "the assistant's message has neither content nor tool_calls")
    functions = [call["function"] for call in reference.get("tool_calls") or ()]
    return Row(
        prompt=tuple(prompt),
        calls=tuple(ToolCall(name=function["name"], arguments=function["arguments"]) for function in functions),
        text=reference["content"] or "",
        tools=None if conversation.tools is None else tuple(conversation.tools),
    )
