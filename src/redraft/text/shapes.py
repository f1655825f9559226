"""The shapes that people's rows have, as OpenAI-style ones: ShareGPT, Alpaca, prompt and completion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redraft.text.lines import read_value

_NONE = (
    'is no conversation: it needs {"messages": [...]}, or "conversations", or "instruction" and "output", or "prompt" '
    'and "completion"'
)
# ShareGPT's names of who speaks, and those of its kin.
_SPEAKERS = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "model", "chatgpt", "bing", "bard"), "assistant"),
    **dict.fromkeys(("function_call", "tool_call"), "call"),
    **dict.fromkeys(("observation", "tool", "function_response", "tool_response"), "tool"),
    "system": "system",
    "developer": "developer",
}


def shaped(row: Any) -> dict[str, Any]:
    """A row with `messages`, and `tools` as a list; its other fields as they are.

    Raises:
        ValueError: it has none of the shapes, or two of them; the reason.
    """
    if not isinstance(row, dict):
        raise ValueError(_NONE)
    row = {name: value for name, value in row.items() if value is not None}
    makers = {"messages": _openai, "conversations": _sharegpt, "conversation": _sharegpt}
    found = [name for name in makers if name in row]
    if len(found) > 1:
        raise ValueError(f"has both {found[0]!r} and {found[1]!r}: which is the conversation?")
    if found:
        made = makers[found[0]](row, found[0])
    elif "instruction" in row and "output" in row:
        made = _alpaca(row)
    elif "prompt" in row and "completion" in row:
        made = _completion(row)
    else:
        raise ValueError(_NONE)
    if "tools" in made:
        made["tools"] = _tools(made["tools"])
    return made


def _openai(row: dict[str, Any], name: str) -> dict[str, Any]:
    if not isinstance(row[name], list):
        raise ValueError(_NONE)
    return dict(row)


def _sharegpt(row: dict[str, Any], name: str) -> dict[str, Any]:
    turns = row[name]
    if not isinstance(turns, list):
        raise ValueError(f"{name} must be a list of turns")
    messages = [_turn(turn, f"turn {place}") for place, turn in enumerate(turns)]
    return _begun(row, messages, name)


def _turn(turn: Any, where: str) -> dict[str, Any]:
    if not isinstance(turn, Mapping):
        raise ValueError(f'{where} is no turn: it needs {{"from": ..., "value": ...}}')
    if "role" in turn:
        return dict(turn)
    rest = {name: value for name, value in turn.items() if name not in ("from", "value")}
    speaker, value = turn.get("from"), turn.get("value")
    role = _SPEAKERS.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        raise ValueError(f"{where} is from {speaker!r:.80}; known: {', '.join(_SPEAKERS)}")
    if not isinstance(value, str):
        raise ValueError(f"{where}: its value must be text, got {value!r:.80}")
    if role != "call":
        return {"role": role, "content": value, **rest}
    calls = _read(value, f"{where}: its call")
    calls = calls if isinstance(calls, list) else [calls]
    if not all(isinstance(call, Mapping) and isinstance(call.get("name"), str) for call in calls):
        raise ValueError(f"{where}: a call has a name and arguments")
    made = [{"type": "function", "function": {"name": c["name"], "arguments": c.get("arguments", {})}} for c in calls]
    return {"role": "assistant", "content": None, "tool_calls": made, **rest}


def _alpaca(row: dict[str, Any]) -> dict[str, Any]:
    instruction, given, output = (_text(row, name) for name in ("instruction", "input", "output"))
    history = row.get("history", [])
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise ValueError("history must be a list of [request, reply]")
    messages = []
    for asked, replied in [*history, (f"{instruction}\n\n{given}" if given else instruction, output)]:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": replied}]
    # Stanford's own file repeats the row as one text.
    return _begun(row, messages, "instruction", "input", "output", "history", "text")


def _completion(row: dict[str, Any]) -> dict[str, Any]:
    sides = {"prompt": "user", "completion": "assistant"}
    messages: list[Any] = []
    for name, role in sides.items():
        side = row[name]
        if not isinstance(side, str | list):
            raise ValueError(f"{name} must be text, or a list of messages")
        messages += [{"role": role, "content": side}] if isinstance(side, str) else side
    return _begun(row, messages, *sides)


def _begun(row: dict[str, Any], messages: list[Any], *used: str) -> dict[str, Any]:
    """The row with these messages in the place of what they are made of, behind its `system`."""
    if system := _text(row, "system"):
        messages = [{"role": "system", "content": system}, *messages]
    return {"messages": messages} | {name: value for name, value in row.items() if name not in (*used, "system")}


def _text(row: dict[str, Any], name: str) -> str:
    value = row.get(name, "")
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, got {value!r:.80}")
    return value


def _tools(tools: Any) -> Any:
    """Declarations, which some files hold as a text of JSON, and some without what they are wrapped in."""
    if isinstance(tools, str):
        tools = _read(tools, "tools") if tools.strip() else []
    if not isinstance(tools, list):
        return tools
    bare = [isinstance(tool, dict) and "name" in tool and "function" not in tool for tool in tools]
    return [
        {"type": "function", "function": {name: part for name, part in tool.items() if name != "type"}} if one else tool
        for tool, one in zip(tools, bare, strict=True)
    ]


def _read(text: str, where: str) -> Any:
    try:
        return read_value(text)
    except ValueError as error:
        raise ValueError(f"{where} is no JSON: {error}") from None
