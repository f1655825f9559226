"""Conversations in files: one a row, OpenAI-style or in another of the shapes that people have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redraft.core.errors import DataError, OptionError, PromptError
from redraft.text.call_pattern import function_names
from redraft.text.markers import NAME
from redraft.text.messages import checked_messages
from redraft.text.row_pictures import found_parts
from redraft.text.shapes import shaped
from redraft.text.tables import RawRow, raw_rows

# Where a row comes from: it asks nothing of a model, so nothing is lost with it.
ABOUT_A_ROW = frozenset(
    ("id", "prompt_id", "source", "dataset", "split", "license", "language", "category", "meta", "metadata")
)
# What a turn says beside its content, by the names that datasets give it; see `Encoder` for who checks that it is said.
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
_OF_ROW = frozenset(("messages", "tools"))
_OF_MESSAGE = frozenset(("role", "content", "name"))
_OF_ROLE = {"assistant": frozenset(("tool_calls", "weight", *THOUGHTS)), "tool": frozenset(("tool_call_id",))}
_OF_CALL, _OF_FUNCTION = frozenset(("id", "index", "type", "function")), frozenset(("name", "arguments"))


@dataclass(frozen=True)
class Conversation:
    """One row of a file.

    Attributes:
        messages: checked, arguments of calls as mappings; a content with pictures stays a list of parts, in which
            they are whole paths, or URLs that hold them.
        line: where it stood, from 1.
        tools: declarations that go with it, None when the row has none.
        context: how many messages stand before those that are the row's own.
    """

    messages: list[dict[str, Any]]
    line: int
    tools: list[dict[str, Any]] | None = None
    context: int = 0


def read_conversations(
    path: str | Path, bad: list[DataError] | None = None, images: Path | None = None
) -> list[Conversation]:
    """Every conversation of a file; fields that are null count as absent.

    See `raw_rows` for the files, `shaped` for the rows.

    Args:
        path: of the file.
        bad: takes what is wrong with rows that are left out; None leaves none out.
        images: the folder that paths of pictures are counted from and stay in; None is the file's own. No picture is
            opened.

    Raises:
        DataError: the file cannot be read or is empty, or a row is no conversation or has a field that nothing would
            use, with its line.
    """
    rows, found = [], 0
    for raw in raw_rows(path):
        found += 1
        try:
            rows.append(_row(str(path), raw, images or Path(path).parent))
        except DataError as error:
            if bad is None:
                raise
            bad.append(error)
    if not found:
        raise DataError(str(path), 0, "the file holds no conversation")
    if not rows:
        assert bad is not None
        raise DataError(str(path), 0, f"none of its {found} rows is a conversation; the first {_first(bad)}")
    return rows


def _first(bad: list[DataError]) -> str:
    return str(bad[0]).split(": ", 1)[1]


def _row(path: str, raw: RawRow, images: Path) -> Conversation:
    if raw.reason is not None:
        raise DataError(path, raw.line, raw.reason)
    try:
        return _conversation(shaped(raw.value), raw.line, images)
    except RecursionError:
        raise DataError(path, raw.line, "nests too deeply") from None
    except (PromptError, OptionError, ValueError) as error:
        raise DataError(path, raw.line, str(error)) from None


def _conversation(row: dict[str, Any], number: int, images: Path) -> Conversation:
    _refuse_others(_named(row), _OF_ROW | ABOUT_A_ROW, "a row", "; what is only about the row may stand in 'metadata'")
    tools = row.get("tools")
    if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        raise ValueError("tools must be a list of declarations")
    if tools:
        function_names(tools)
    return Conversation(_messages(row["messages"], images), number, tools)


def _messages(messages: list[Any], images: Path) -> list[dict[str, Any]]:
    plain = [_named(message) if isinstance(message, dict) else message for message in messages]
    for place, message in enumerate(plain):
        if isinstance(message, dict):
            _check_fields(message, f"message {place}")
            message["content"] = found_parts(message.get("content"), images, f"message {place}")
    checked = checked_messages(plain, [])
    for place, message in enumerate(checked):
        if isinstance(message["content"], list):
            # With what its pictures are, which a template does not see.
            message["content"] = plain[place]["content"]
        for call in message.get("tool_calls") or ():
            name = call["function"]["name"]
            if not NAME.fullmatch(name):
                raise ValueError(f"message {place} calls {name!r}: a name has letters, digits, '_', '-' and '.' alone")
    return checked


def _check_fields(message: dict[str, Any], where: str) -> None:
    role = message.get("role")
    _refuse_others(message, _OF_MESSAGE | _OF_ROLE.get(str(role), frozenset()), f"{where}, which is from {role!r},")
    if "weight" in message and message["weight"] not in (0, 1):
        raise ValueError(f"{where}: weight is 0, which leaves the turn unlearned, or 1, got {message['weight']!r:.40}")
    for name in ("name", "tool_call_id", *THOUGHTS):
        if not isinstance(message.get(name, ""), str):
            raise ValueError(f"{where}: {name} must be text, got {message[name]!r:.40}")
    content, calls = message.get("content"), message.get("tool_calls")
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and part.get("type") == "text":
            _refuse_others(_named(part), ("type", "text"), f"a part of {where}")
    for call in calls if isinstance(calls, list) else ():
        if not isinstance(call, dict) or not isinstance(call.get("function"), dict):
            continue
        _refuse_others(_named(call), _OF_CALL, f"a call of {where}")
        _refuse_others(_named(call["function"]), _OF_FUNCTION, f"the function of a call of {where}")
        if call.get("type", "function") != "function":
            raise ValueError(f"{where}: a call of type {call['type']!r:.40} cannot be written")


def _named(fields: Mapping[str, Any]) -> dict[str, Any]:
    # Tables that hold rows of several shapes fill them up with nulls.
    return {name: value for name, value in fields.items() if value is not None}


def _refuse_others(fields: Iterable[str], known: Iterable[str], owner: str, way_out: str = "") -> None:
    for name in fields:
        if name not in known:
            raise ValueError(f"{owner} has a field {name!r} that nothing would use: take it out{way_out}")
