"""A state: what questions are asked about."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redraft.core.checks import shown
from redraft.core.errors import PromptError, QuestionError
from redraft.text.messages import ROLES, check_values, checked_messages


@dataclass(frozen=True, kw_only=True)
class State:
    """What questions are asked about.

    Attributes:
        text: a text, or JSON as text; empty where it is a conversation.
        messages: a conversation, OpenAI-style and checked; its pictures are parts of it.
        parts: pictures, and text, of the one message that a user has written; `text` and `messages` are empty then.
    """

    text: str = ""
    messages: tuple[Mapping[str, Any], ...] = ()
    parts: tuple[Mapping[str, Any], ...] = ()

    @property
    def shows(self) -> bool:
        """Whether there are pictures in it."""
        contents = [self.parts, *(message.get("content") for message in self.messages)]
        return any(isinstance(content, list | tuple) and len(content) > 0 for content in contents)

    @property
    def conversation(self) -> tuple[Mapping[str, Any], ...]:
        """As messages, whatever it is."""
        content: Any = list(self.parts) if self.parts else self.text
        return self.messages or ({"role": "user", "content": content},)


def state_of(value: Any) -> State:
    """A state by what a caller gives: text, a conversation, or any other JSON value.

    A conversation is a list of messages, or an object that holds such a list as `messages` and nothing else.

    Raises:
        QuestionError: nothing, or nothing that can be written down.
    """
    if isinstance(value, State):
        return value
    if isinstance(value, str):
        if not value.strip():
            raise QuestionError("state", "is empty")
        _checked(value)
        return State(text=value)
    messages: Any = value["messages"] if isinstance(value, Mapping) and set(value) == {"messages"} else value
    if _is_conversation(messages):
        try:
            return _conversation(messages)
        except PromptError as error:
            raise QuestionError("state", f"is no conversation: {error}") from None
    if not isinstance(value, Mapping | list | tuple) or not value:
        raise QuestionError("state", f"must be a text, a conversation or JSON, got {shown(value)}")
    return State(text=as_text(value, "state"))


def _conversation(messages: Sequence[Mapping[str, Any]]) -> State:
    """Contents with pictures stay as they were given; of one user alone, what is asked goes on behind them."""
    checked = checked_messages(messages, [])
    for before, message in zip(messages, checked, strict=True):
        if isinstance(message["content"], list):
            message["content"] = list(before["content"])
    if len(checked) == 1 and checked[0]["role"] == "user" and isinstance(checked[0]["content"], list):
        return State(parts=tuple(checked[0]["content"]))
    return State(messages=tuple(checked))


def as_text(value: Any, where: str) -> str:
    """A text as it is, or a JSON value written down.

    Raises:
        QuestionError: it is neither.
    """
    if isinstance(value, str):
        return value
    _checked(value, where)
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise QuestionError(where, f"must be text or JSON, got {shown(value)}") from None


def _checked(value: Any, where: str = "state") -> None:
    try:
        check_values(value, where)
    except PromptError as error:
        raise QuestionError(where, str(error).removeprefix(f"{where}: ")) from None


def _is_conversation(value: Any) -> bool:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes) or not value:
        return False
    return all(isinstance(message, Mapping) and message.get("role") in ROLES for message in value)
