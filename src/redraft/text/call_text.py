"""Calls as the protocol has them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from redraft.core.errors import InputError
from redraft.text.call_reader import MAX_DEPTH
from redraft.text.markers import CALL_CLOSE, CALL_OPEN, NAME, QUOTE


def render_call(name: str, arguments: Mapping[str, Any]) -> str:
    """Writes a call as the protocol has it, arguments in the given order; `parse_reply` reads it back.

    Args:
        name: the function; letters, digits, `_`, `-` and `.`.
        arguments: JSON values. A key that is no name is written as a string.

    Returns:
        `<|tool_call>call:NAME{k:<|"|>v<|"|>,n:1,b:true}<tool_call|>`.

    Raises:
        InputError: a name that is none, a value that JSON does not have, a string with `<|"|>` in it, or more than
            `MAX_DEPTH` levels.

    Source: the tool calls of the published `chat_template.jinja`.
    """
    if not NAME.fullmatch(name):
        raise InputError(f"a function's name has letters, digits, '_', '-' and '.', got {name!r}")
    return f"{CALL_OPEN}call:{name}{_render(arguments, 1)}{CALL_CLOSE}"


def _render(value: Any, depth: int) -> str:
    if depth > MAX_DEPTH and isinstance(value, Mapping | list | tuple):
        raise InputError(f"arguments are nested deeper than {MAX_DEPTH} levels: flatten them")
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_render_key(key)}:{_render(value[key], depth + 1)}" for key in value) + "}"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return "[" + ",".join(_render(item, depth + 1) for item in value) + "]"
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        try:
            return json.dumps(value)
        except ValueError as error:
            raise InputError(f"a number in a call is too long: {error}") from error
    raise InputError(f"an argument must be a JSON value, got {value!r}")


def _render_key(key: Any) -> str:
    if not isinstance(key, str):
        raise InputError(f"an argument's name must be a string, got {key!r}")
    return key if NAME.fullmatch(key) else _quoted(key)


def _quoted(text: str) -> str:
    if QUOTE in text:
        raise InputError(f"a string in a call cannot hold the string delimiter {QUOTE}, got {text!r}")
    return QUOTE + text + QUOTE
