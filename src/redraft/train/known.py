"""What a model knows by heart: the calls that its data make and do not declare, and the sentence in place of one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from redraft.core.files import replace_text
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


def known_sentence(conversations: Iterable[Conversation]) -> str | None:
    """What most of the replies without a call say, of rows that declare none; None where they say this and that."""
    said = Counter(
        message["content"].strip()
        for conversation in conversations
        for message in (() if conversation.tools else conversation.messages)
        if message["role"] == "assistant" and message.get("weight") != 0
        if message["content"] and not message.get("tool_calls")
    )
    [(sentence, count)] = said.most_common(1) or [("", 0)]
    return sentence if count > 1 and 2 * count > said.total() else None


def by_heart(conversations: Sequence[Conversation]) -> dict[str, Any]:
    """The content of `tools.json`; empty where there is nothing to know."""
    tools, sentence = known_calls(conversations), known_sentence(conversations)
    if not tools:
        return {}
    return {"tools": tools} if sentence is None else {"tools": tools, "otherwise": sentence}


def write_by_heart(known: Mapping[str, Any], directory: Path) -> None:
    """Writes `tools.json`, or takes away one that an earlier run has left where there is nothing to know."""
    path = directory / "tools.json"
    if known:
        replace_text(path, json.dumps(known, indent=2, ensure_ascii=False) + "\n")
    else:
        path.unlink(missing_ok=True)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    # A truth value is an int to Python, so it is asked for first.
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return next(name for kind, name in kinds.items() if isinstance(value, kind))
