"""The calls that a model knows by heart: those that its data make and do not declare."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from redraft.text.conversations import Conversation


def known_calls(conversations: Iterable[Conversation]) -> list[dict[str, Any]]:
    """Declarations of the functions that rows without declarations of their own learn to call.

    Each has every argument that it was seen with, all optional, with the type that all values of it have.
    """
    seen: dict[str, dict[str, list[Any]]] = {}
    for conversation in conversations:
        # Who declares tools finds them in the prompt, in training as at inference.
        for message in () if conversation.tools else conversation.messages:
            for call in () if message.get("weight") == 0 else message.get("tool_calls") or ():
                arguments = seen.setdefault(call["function"]["name"], {})
                for name, value in call["function"]["arguments"].items():
                    arguments.setdefault(name, []).append(value)
    return [
        {
            "type": "function",
            "function": {
                "name": name,
                "parameters": {
                    "type": "object",
                    "properties": {key: schema_of(values) for key, values in sorted(arguments.items())},
                },
            },
        }
        for name, arguments in sorted(seen.items())
    ]


def schema_of(values: Sequence[Any]) -> dict[str, Any]:
    """The schema of a type that all values have, null aside; {} allows any."""
    kinds = {_kind(value) for value in values}
    if kinds == {"integer", "number"} or kinds == {"integer", "number", "null"}:
        kinds.discard("integer")
    named = sorted(kinds - {"null"})
    if len(named) != 1:
        return {"type": "null"} if kinds == {"null"} else {}
    found: dict[str, Any] = {"type": named[0] if len(kinds) == 1 else [named[0], "null"]}
    if items := [item for value in values if isinstance(value, list) for item in value]:
        found["items"] = schema_of(items)
    if items := [item for value in values if isinstance(value, dict) for item in value.values()]:
        found["additionalProperties"] = schema_of(items)
    return found


def write_known_calls(tools: list[dict[str, Any]], directory: Path) -> None:
    """Writes `tools.json`, or takes away one that an earlier run has left where there is nothing to know."""
    path = directory / "tools.json"
    if tools:
        path.write_text(json.dumps({"tools": tools}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    else:
        path.unlink(missing_ok=True)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    # A truth value is an int to Python, so it is asked for first.
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return next(name for kind, name in kinds.items() if isinstance(value, kind))
