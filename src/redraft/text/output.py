"""A reply's parts: the answer, the thought channel and the tool calls."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redraft.core.errors import InputError
from redraft.core.results import ToolCall
from redraft.text.calls import BARE_CALL, CALL_CLOSE, CALL_OPEN, MAX_DEPTH, NAME, QUOTE, TURN_MARKER, read_call

_CHANNEL_OPEN, _CHANNEL_CLOSE = "<|channel>", "<channel|>"
_CHANNEL_MARKER = re.compile(r"<\|channel>|<channel\|>")
_THOUGHT_NAME = re.compile(r"\A\s*+thought[ \t]*+(?:\n|\Z)")
_TURN_MARKER = re.compile(TURN_MARKER)
_POINT = re.compile(rf"<\|channel>|<channel\|>|<\|tool_call>|<tool_call\|>|{TURN_MARKER}|{BARE_CALL}")


@dataclass(frozen=True, kw_only=True)
class ParsedReply:
    """A reply taken apart.

    Attributes:
        text: the answer, without thought channel, calls and turn markers; stripped.
        reasoning: the thought channels' text, None when there was none or it was empty.
        tool_calls: calls in the order they were written.
    """

    text: str
    reasoning: str | None
    tool_calls: tuple[ToolCall, ...]


def parse_reply(reply: str, *, bare_calls: bool = True) -> ParsedReply:
    """Takes a reply apart; mends garbled calls, loses no text, and never raises.

    A call inside a closed thought is a thought. A thought that is not closed goes on to the next `<|tool_call>`, the
    next channel or the end. A `<|tool_call>` behind which no call can be read stays in the text as it stands; a bare
    `call:` without a name, a bracket and a pair is prose.

    Args:
        reply: the decoded reply with its markers as text, ended before end-of-turn.
        bare_calls: whether a `call:` without its marker is a call too; not where the protocol was enforced.

    Returns:
        Its parts. A call that had to be mended has `repaired` set; of a repeated argument the first counts.
    """
    text: list[str] = []
    thoughts: list[str] = []
    calls: list[ToolCall] = []
    pos, unread = 0, False
    while point := _POINT.search(reply, pos):
        text.append(reply[pos : point.start()])
        pos, marker = point.end(), point[0]
        if marker == _CHANNEL_OPEN:
            thought, pos = _read_thought(reply, pos)
            thoughts.append(thought)
        elif marker == CALL_CLOSE and unread:
            text.append(marker)
            unread = False
        elif marker == "call:" and not bare_calls:
            text.append(marker)
        elif marker in (CALL_OPEN, "call:"):
            found = read_call(reply, point.start())
            if found:
                calls.append(found[0])
                pos = found[1]
            else:
                text.append(marker)
                unread = unread or marker == CALL_OPEN
    text.append(reply[pos:])
    reasoning = "\n\n".join(thought for thought in thoughts if thought)
    return ParsedReply(text="".join(text).strip(), reasoning=reasoning or None, tool_calls=tuple(calls))


def _read_thought(reply: str, start: int) -> tuple[str, int]:
    marker = _CHANNEL_MARKER.search(reply, start)
    end = marker.start() if marker else len(reply)
    if marker and marker[0] == _CHANNEL_CLOSE:
        behind = marker.end()
    else:
        call = reply.find(CALL_OPEN, start, end)
        behind = end = call if call >= 0 else end
    thought = _TURN_MARKER.sub("", reply[start:end])
    return _THOUGHT_NAME.sub("", thought).strip(), behind


def format_call(call: ToolCall) -> str:
    """A call for people to read: `PlayMusic(artist="Daft Punk", year="2011")`.

    Args:
        call: what the model called.

    Returns:
        One line; values as JSON.
    """
    values = (f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in call.arguments.items())
    return f"{call.name}({', '.join(values)})"


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
