"""How our OpenAPI document describes states and questions. Each is checked where it is read, with the place at fault,
and a question by itself: nothing is turned away by what stands here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redraft.core.questions import MOST_LEVELS, MOST_OPTIONS, MOST_QUESTIONS
from redraft.server.schema import MAX_MESSAGES

_TEXT = {"type": "string", "minLength": 1}
_SAID = {"anyOf": [_TEXT, {"type": "array", "items": {"type": "object"}, "minItems": 1}]}
_JSON = {"anyOf": [_TEXT, {"type": "object"}, {"type": "array"}]}


def _typed(kind: str, required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"type": {"const": kind}, "form": {"enum": ["auto", "label", "text"]}, **properties},
        "required": ["type", *required],
        "additionalProperties": False,
    }


def _named(kind: str, **more: Any) -> dict[str, Any]:
    return _typed(kind, ("instructions", *more), instructions=_SAID, name={"type": "string"}, **more)


def _described(name: str, value: Mapping[str, Any], most: int) -> dict[str, Any]:
    item = {"type": "object", "properties": {name: value, "description": {"type": "string"}}, "required": [name]}
    return {"type": "array", "items": item, "minItems": 2, "maxItems": most}


_VALUE = {"anyOf": [_TEXT, {"type": "boolean"}]}
_QUESTION = {
    "oneOf": [
        _named("predicate"),
        _named("choice", choices=_described("value", _VALUE, MOST_OPTIONS)),
        _named("score", levels=_described("label", _TEXT, MOST_LEVELS)),
    ]
}
_MEANT = {"anyOf": [*_JSON["anyOf"], {"type": "null"}]}
_CRITERIA = {"type": "object", "additionalProperties": _MEANT, "minProperties": 2, "maxProperties": MOST_OPTIONS}
_LEVELS = {"type": "array", "items": _JSON, "minItems": 2, "maxItems": MOST_LEVELS}
_BOTH = {"type": "object", "properties": {"true": _MEANT, "false": _MEANT}, "additionalProperties": False}
_MAPPED = {
    "oneOf": [
        _typed("noul", instructions=_JSON, criteria=_BOTH),
        _typed("choice", ("criteria",), instructions=_JSON, criteria=_CRITERIA),
        _typed("score", ("criteria",), instructions=_JSON, criteria=_LEVELS),
    ]
}
QUESTIONS = {"type": "array", "items": _QUESTION, "minItems": 1, "maxItems": MOST_QUESTIONS}
QUESTIONS_BY_NAME = {
    "type": "object", "additionalProperties": _MAPPED, "propertyNames": {"minLength": 1},
    "minProperties": 1, "maxProperties": MOST_QUESTIONS,
}  # fmt: skip


def _item(required: tuple[str, ...], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


_IMAGE = _item(
    ("type", "image_url"), type={"const": "input_image"}, detail={"enum": ["low", "auto", "high"]},
    image_url={"type": "string", "description": "a `data:` URL of PNG, JPEG, WebP or GIF in base64"},
)  # fmt: skip


def _parts(*kinds: str, images: bool = False) -> dict[str, Any]:
    parts = [_item(("type", "text"), type={"const": kind}, text=_TEXT) for kind in kinds] + [_IMAGE] * images
    return {"anyOf": [_TEXT, {"type": "array", "items": {"anyOf": parts}, "minItems": 1}]}


_ITEM = {
    "anyOf": [
        _item(("role", "content"), role={"enum": ["developer", "system"]}, content=_parts("input_text")),
        _item(("role", "content"), role={"const": "user"}, content=_parts("input_text", images=True)),
        _item(("role", "content"), role={"const": "assistant"}, content=_parts("output_text")),
        _item(
            ("type", "call_id", "name", "arguments"),
            type={"const": "function_call"}, call_id=_TEXT, name=_TEXT,
            arguments={"type": "string", "description": "an object in JSON"},
        ),
        _item(
            ("type", "call_id", "name", "input"),
            type={"const": "custom_tool_call"}, call_id=_TEXT, name=_TEXT, input={"type": "string"},
        ),
        _item(
            ("type", "call_id", "output"),
            type={"enum": ["function_call_output", "custom_tool_call_output"]}, call_id=_TEXT,
            output=_parts("input_text", images=True),
        ),
    ]
}  # fmt: skip
INPUT = {"anyOf": [_TEXT, {"type": "array", "items": _ITEM, "minItems": 1, "maxItems": MAX_MESSAGES}]}
