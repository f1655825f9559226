"""OpenAI-style messages, checked before anything reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from redraft.core.errors import PromptError
from redraft.text.image_parts import TYPES, Shown, refuse_part, shown_part
from redraft.text.lines import read_value

Message = Mapping[str, Any]
ROLES = ("system", "developer", "user", "assistant", "tool")
MAX_DEPTH = 64


def checked_messages(messages: Sequence[Message], images: list[Shown] | None = None) -> list[dict[str, Any]]:
    """A conversation in plain form: content as text or None, arguments of calls as mappings.

    Args:
        messages: OpenAI-style.
        images: gets the pictures and videos, in their order. A content that holds some is then a list of parts, of
            which those have nothing but their type, "image". None: there may be none.

    Raises:
        PromptError: a message that is none: an unknown role, neither content nor calls, arguments that are no JSON, a
            result of no call; text that is none; a picture where none may be.
    """
    if not messages:
        raise PromptError("the conversation is empty: give at least one message")
    checked: list[dict[str, Any]] = []
    for number, message in enumerate(messages):
        checked.append(_checked(message, number, checked, images))
    return checked


def check_values(value: Any, where: str) -> None:
    """Makes sure that JSON values can be rendered and encoded.

    Raises:
        PromptError: nested too deep, or a string that holds half of a surrogate pair.
    """
    level = [value]
    for _ in range(MAX_DEPTH):
        texts = [item for item in level if isinstance(item, str)]
        texts += [key for item in level if isinstance(item, Mapping) for key in item if isinstance(key, str)]
        if any(not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text) for text in texts):
            raise PromptError(f"{where}: a text holds half of a surrogate pair, which is no character")
        level = [part for item in level if isinstance(item, Mapping | list | tuple) for part in _parts(item)]
        if not level:
            return
    raise PromptError(f"{where}: nested deeper than {MAX_DEPTH} levels")


def _parts(value: Mapping[str, Any] | Sequence[Any]) -> Sequence[Any]:
    return list(value.values()) if isinstance(value, Mapping) else value


def _checked(message: Any, number: int, before: list[dict[str, Any]], images: list[Shown] | None) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise PromptError(f"message {number} must be a mapping with 'role' and 'content', got {message!r:.80}")
    check_values(message, f"message {number}")
    role = message.get("role")
    if role not in ROLES:
        raise PromptError(f"message {number} has role {role!r:.80}; known roles: {', '.join(ROLES)}")
    content, calls = message.get("content"), message.get("tool_calls")
    if content is not None and not isinstance(content, str | list):
        raise PromptError(f"message {number}: content must be text, got {content!r:.80}")
    if isinstance(content, list):
        content = _plain_parts(content, role, number, images)
    if content is None and not calls:
        raise PromptError(f"message {number} has neither content nor tool_calls")
    if role == "user" and not isinstance(content, list) and not (content or "").strip():
        raise PromptError(f"message {number} is an empty user message")
    checked = {**message, "content": content}
    if calls is not None and not isinstance(calls, list):
        raise PromptError(f"message {number}: tool_calls must be a list")
    if calls:
        if role != "assistant":
            raise PromptError(f"message {number}: tool_calls belong to the assistant's messages, not to {role!r}")
        checked["tool_calls"] = [_call(call, number) for call in calls]
    if role == "tool":
        _check_result(message, number, before)
    return checked


def _plain_parts(parts: list[Any], role: str, number: int, images: list[Shown] | None) -> str | list[dict[str, Any]]:
    """Parts of text joined, where there are no others."""
    plain: list[dict[str, Any]] = []
    for place, part in enumerate(parts):
        where = f"message {number}, part {place}"
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text":
            if not isinstance(part.get("text"), str):
                raise PromptError(f"message {number}: a content part of type 'text' needs its 'text', a string")
            plain.append({"type": "text", "text": part["text"]})
        elif kind in TYPES and images is not None:
            images.append(shown_part(part, role, where))
            plain.append({"type": "image"})
        elif kind in TYPES:
            raise PromptError(f"{where} is a {'video' if 'video' in kind else 'picture'}: here there is text alone")
        else:
            raise refuse_part(part, where)
    if any(part["type"] == "image" for part in plain):
        return plain
    return "".join(part["text"] for part in plain)


def _call(call: Any, number: int) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise PromptError(f"message {number}: a tool call needs function.name")
    arguments, name = function.get("arguments"), function["name"]
    if isinstance(arguments, str):
        arguments = _read(arguments, f"message {number}: the arguments of {name}")
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, Mapping):
        raise PromptError(f"message {number}: the arguments of {name} must be a mapping")
    return {**call, "type": "function", "function": {**function, "arguments": dict(arguments)}}


def _read(text: str, where: str) -> Any:
    """A text of JSON inside a message."""
    try:
        value = read_value(text or "{}")
    except ValueError as error:
        raise PromptError(f"{where} are no JSON: {error}") from None
    check_values(value, where)
    return value


def _check_result(message: Message, number: int, before: list[dict[str, Any]]) -> None:
    """A tool's result answers one of the calls before it."""
    asking = next((earlier for earlier in reversed(before) if earlier["role"] != "tool"), {})
    calls = asking.get("tool_calls") or []
    if not calls:
        raise PromptError(f"message {number}: a tool result must follow the call it answers")
    wanted, known = message.get("tool_call_id"), [call.get("id") for call in calls]
    if wanted is not None and None not in known and wanted not in known:
        raise PromptError(f"message {number}: tool_call_id {wanted!r:.80} is none of the calls before it")
