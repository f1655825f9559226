"""OpenAI's `input` as a state: a text, or a conversation with the calls and the pictures in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from redraft.core.checks import shown
from redraft.core.errors import QuestionError
from redraft.decide.state import as_text
from redraft.server.errors import ApiError
from redraft.text.lines import read_value

# What may stand in an item, by its type; what is not in here would be lost on the way to the model.
_FIELDS = {
    "message": ("role", "content", "type", "phase", "id", "status"),
    "function_call": ("name", "arguments", "call_id", "namespace", "type", "id", "status"),
    "custom_tool_call": ("name", "input", "call_id", "namespace", "type", "id", "status"),
    "function_call_output": ("call_id", "output", "type", "id", "status"),
    "custom_tool_call_output": ("call_id", "output", "type", "id", "status"),
}
# Parts that a role's content may have, and in which field each has its text.
_PARTS = {
    "user": {"input_text": "text", "input_json": "data"},
    "developer": {"input_text": "text"},
    "system": {"input_text": "text"},
    "assistant": {"output_text": "text", "refusal": "refusal"},
    "tool": {"input_text": "text"},
}
# Roles that may show pictures, in OpenAI's two ways to write one.
_SHOWING = ("user", "tool")
_PICTURES = {
    "input_image": ("type", "image_url", "detail", "prompt_cache_breakpoint"),
    "image_url": ("type", "image_url"),
}
_UNREAD = {"input_file": "files", "input_audio": "sounds", "input_video": "films"}


def state_of_input(value: str | list[Any]) -> str | list[dict[str, Any]]:
    """A text where one user alone has spoken, else messages as the chat template takes them.

    Raises:
        ApiError: an item or a part that is none, or that cannot be read; it names the place.
    """
    if isinstance(value, str):
        return value
    messages: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    for number, item in enumerate(value):
        _add(messages, names, item, f"input.{number}")
    if len(messages) == 1 and messages[0]["role"] == "user" and isinstance(messages[0]["content"], str):
        return messages[0]["content"]
    return messages


def _add(messages: list[dict[str, Any]], names: dict[str, str], item: Any, where: str) -> None:
    """Adds an item; `names` are those of the tools that were called, by the ids of the calls."""
    if not isinstance(item, Mapping):
        raise _refused(where, f"must be a message, a call or what a call gave back, got {shown(item)}")
    kind = item.get("type", "message")
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise _refused(f"{where}.type", f"must be one of {', '.join(_FIELDS)}, got {shown(kind)}")
    for field in item:
        if field not in _FIELDS[kind]:
            raise _refused(f"{where}.{field}"[:200], f"there is no such field in a {kind}")
    if kind == "message":
        role = item.get("role")
        if role not in ("user", "developer", "system", "assistant"):
            raise _refused(f"{where}.role", f"must be user, developer, system or assistant, got {shown(role)}")
        messages.append({"role": role, "content": _content(item.get("content"), role, f"{where}.content")})
        return
    call_id = _text(item, "call_id", where)
    if kind.endswith("_output"):
        if call_id not in names:
            raise _refused(f"{where}.call_id", f"{shown(call_id)} is none of the calls before it")
        given = _content(item.get("output"), "tool", f"{where}.output")
        messages.append({"role": "tool", "tool_call_id": call_id, "name": names[call_id], "content": given})
        return
    name = _text(item, "name", where)
    if item.get("namespace") is not None:
        name = f"{_text(item, 'namespace', where)}.{name}"
    names[call_id] = name
    arguments = _arguments(item, where) if kind == "function_call" else {"input": _text(item, "input", where, True)}
    # Calls that follow one another, and what was said before them, are one turn.
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    messages[-1].setdefault("tool_calls", []).append(call)


def _content(value: Any, role: str, where: str) -> str | list[dict[str, Any]]:
    """A text, or parts where there are pictures among it."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise _refused(where, f"must be a text or a list of parts, got {shown(value)}")
    parts: list[dict[str, Any]] = []
    for number, part in enumerate(value):
        if (picture := _picture(part, role, f"{where}.{number}")) is not None:
            parts.append(picture)
            continue
        text, is_json = _part(part, role, f"{where}.{number}")
        # Texts go on as they stand, JSON has lines of its own.
        text = f"\n{text}\n" if is_json else text
        if parts and parts[-1]["type"] == "text":
            parts[-1]["text"] += text
        else:
            parts.append({"type": "text", "text": text})
    if any(part.get("type") == "input_json" for part in value):
        parts = [part | {"text": part["text"].strip("\n")} if part["type"] == "text" else part for part in parts]
    if any(part["type"] != "text" for part in parts):
        return parts
    return parts[0]["text"] if parts else ""


def _picture(part: Any, role: str, where: str) -> dict[str, Any] | None:
    """A picture as the other routes take it; None where the part is none."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    if not isinstance(kind, str) or kind not in _PICTURES or role not in _SHOWING:
        return None
    for field in part:
        if field not in _PICTURES[kind]:
            raise _refused(f"{where}.{field}"[:200], f"there is no such field in a part of type {kind}")
    given = part.get("image_url")
    if kind == "input_image" and not isinstance(given, str):
        raise _refused(f"{where}.image_url", f"must be a data: URL, got {shown(given)}")
    if kind == "image_url" or part.get("detail") is None:
        return {"type": "image_url", "image_url": given}
    return {"type": "image_url", "image_url": {"url": given, "detail": part["detail"]}}


def _part(part: Any, role: str, where: str) -> tuple[str, bool]:
    """The text of a part, and whether it is JSON."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    if isinstance(kind, str) and kind in _PICTURES:
        raise _refused(where, f"a picture belongs to what a user says or a call gives back, not to {role}")
    if isinstance(kind, str) and kind in _UNREAD:
        raise _refused(where, f"{_UNREAD[kind]} are not read yet ({kind})")
    known = _PARTS[role]
    if not isinstance(part, Mapping) or not isinstance(kind, str) or kind not in known:
        raise _refused(where, f"must be a part of type {' or '.join(known)}, got {shown(part)}")
    field = known[kind]
    for other in part:
        if other not in (field, "type", "prompt_cache_breakpoint", *(("annotations",) if role == "assistant" else ())):
            raise _refused(f"{where}.{other}"[:200], f"there is no such field in a part of type {kind}")
    value = part.get(field)
    if kind != "input_json":
        return _text(part, field, where, True), False
    if not isinstance(value, Mapping) and not (isinstance(value, list) and all(isinstance(x, Mapping) for x in value)):
        raise _refused(f"{where}.data", f"must be an object or an array of objects, got {shown(value)}")
    try:
        return as_text(value, f"{where}.data"), True
    except QuestionError as error:
        raise _refused(error.field, error.reason) from None


def _arguments(item: Mapping[str, Any], where: str) -> dict[str, Any]:
    try:
        found = read_value(_text(item, "arguments", where, True) or "{}")
    except ValueError as error:
        raise _refused(f"{where}.arguments", f"are no JSON: {error}") from None
    if not isinstance(found, dict):
        raise _refused(f"{where}.arguments", f"must be an object in JSON, got {json.dumps(found)[:80]}")
    return found


def _text(item: Mapping[str, Any], field: str, where: str, may_be_empty: bool = False) -> str:
    value = item.get(field)
    if not isinstance(value, str) or not (value or may_be_empty):
        raise _refused(f"{where}.{field}", f"must be a text, got {shown(value)}")
    return value


def _refused(where: str, reason: str) -> ApiError:
    return ApiError(400, f"{where}: {reason}", param=where, code="invalid_value")
