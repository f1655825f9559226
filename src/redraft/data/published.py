"""From files as they were published to rows of ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from redraft.core.datasets import CLINC150, SNIPS

# Raw files by their paths.
Raw = Mapping[str, bytes]


def snips(raw: Raw) -> list[dict[str, Any]]:
    """SNIPS' training requests as conversations that end with one call, without those that its validation files hold.

    White space is collapsed; where a slot repeats, its first value is the argument's.
    """
    paths = [file.path for file in SNIPS.files]
    validation = {
        _folded(_text(request)) for path in paths if "/validate_" in path for _, request in _requests(raw[path])
    }
    return [
        {"messages": [{"role": "user", "content": _text(request)}, _calling(intent, request)]}
        for path in paths
        if "/train_" in path
        for intent, request in _requests(raw[path])
        if _folded(_text(request)) not in validation
    ]


def clinc150(raw: Raw) -> list[dict[str, str]]:
    """CLINC150's requests with their intents, all but the test splits."""
    splits = json.loads(raw[CLINC150.files[0].path])
    return [
        {"text": text, "intent": intent}
        for split in ("train", "val", "oos_train", "oos_val")
        for text, intent in splits[split]
    ]


def _requests(content: bytes) -> list[tuple[str, list[dict[str, str]]]]:
    """Each request of a SNIPS file, with its intent: pieces of text, some of which fill a slot."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        # One emoji in PlayMusic is no UTF-8. mini learned that file as Latin-1, mojibake and all.
        text = content.decode("latin-1")
    return [(intent, row["data"]) for intent, rows in json.loads(text).items() for row in rows]


def _text(request: list[dict[str, str]]) -> str:
    return _collapsed("".join(piece["text"] for piece in request))


def _calling(intent: str, request: list[dict[str, str]]) -> dict[str, Any]:
    arguments: dict[str, str] = {}
    for piece in request:
        if "entity" in piece:
            arguments.setdefault(piece["entity"], _collapsed(piece["text"]))
    return {
        "role": "assistant",
        "tool_calls": [{"type": "function", "function": {"name": intent, "arguments": arguments}}],
    }


def _collapsed(text: str) -> str:
    return " ".join(text.split())


def _folded(text: str) -> str:
    return _collapsed(text).casefold()
