"""`response_format`, in OpenAI's forms and two more, as the tree of a whole reply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redraft.core.errors import OptionError
from redraft.text.grammar.anchored import PatternError
from redraft.text.grammar.build import any_of
from redraft.text.grammar.nodes import Node, Text
from redraft.text.grammar.regex import whole
from redraft.text.grammar.sets import ALL, holds
from redraft.text.schema import schema_node

_OF_SCHEMA = {"name", "description", "schema", "strict"}
_FIELDS = {
    "text": set[str](),
    "json_object": {"schema"},
    "json_schema": {"json_schema", *_OF_SCHEMA},
    "regex": {"pattern", "regex"},
    "choice": {"choices", "choice"},
}


def response_node(wanted: Mapping[str, Any]) -> Node | None:
    """The tree of the reply; None where it may be any text.

    Args:
        wanted: `{"type": "text"}`, `{"type": "json_object"}` (which may have a `schema`, as some servers take it),
            `{"type": "json_schema", "json_schema": {"schema": ...}}` (or with `schema` itself at the top),
            `{"type": "regex", "pattern": ...}` for a reply that matches as a whole, or
            `{"type": "choice", "choices": [...]}`.

    Raises:
        OptionError: it is none of these, has a field that would do nothing, or a pattern that cannot be enforced.
        SchemaError: a schema that cannot be enforced.
    """
    kind = wanted.get("type")
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise OptionError(f"response_format: type must be one of {', '.join(_FIELDS)}, got {kind!r:.80}")
    _refuse_others(wanted, {"type", *_FIELDS[kind]}, kind)
    if kind == "text":
        return None
    if kind == "json_object":
        return schema_node(_schema(wanted, kind) if "schema" in wanted else {"type": "object"})
    if kind == "json_schema":
        inner = wanted.get("json_schema", wanted)
        if inner is not wanted and isinstance(inner, Mapping):
            _refuse_others(wanted, {"type", "json_schema"}, kind)
            _refuse_others(inner, _OF_SCHEMA, "json_schema.json_schema")
        return schema_node(_schema(inner, kind))
    if kind == "regex":
        pattern = wanted.get("pattern", wanted.get("regex"))
        if not isinstance(pattern, str) or not pattern or len(wanted) != 2:
            raise OptionError("response_format: regex needs one 'pattern'")
        try:
            return whole(pattern)
        except PatternError as error:
            raise OptionError(f"response_format: the pattern {pattern!r:.60}: {error}") from None
    choices = wanted.get("choices", wanted.get("choice"))
    fits = isinstance(choices, list | tuple) and choices and all(isinstance(c, str) and c for c in choices)
    if not isinstance(choices, list | tuple) or not fits or len(wanted) != 2:
        raise OptionError("response_format: choice needs one list of 'choices', texts that are not empty")
    for choice in choices:
        strange = [character for character in choice if not holds(ALL, ord(character))]
        if strange:
            raise OptionError(
                f"response_format: the choice {choice!r:.60} has {strange[0]!r}, which no reply can hold: leave it out"
            )
    return any_of(Text(choice) for choice in choices)


def schema_of(wanted: Mapping[str, Any]) -> Mapping[str, Any] | bool | None:
    """The schema of a format; None of one that has none. See `response_node` for errors."""
    if response_node(wanted) is None or wanted["type"] not in ("json_schema", "json_object"):
        return None
    inner = wanted.get("json_schema", wanted) if wanted["type"] == "json_schema" else wanted
    return inner.get("schema")


def is_any_text(wanted: Mapping[str, Any]) -> bool:
    """Whether a reply may be any text. See `response_node` for errors."""
    return wanted.get("type") == "text" and response_node(wanted) is None


def _schema(fields: Any, kind: str) -> Mapping[str, Any] | bool:
    schema = fields.get("schema") if isinstance(fields, Mapping) else None
    if not isinstance(schema, Mapping | bool):
        raise OptionError(f"response_format: {kind} needs a 'schema'")
    return schema


def _refuse_others(fields: Mapping[str, Any], known: set[str], kind: str) -> None:
    others = sorted(str(name) for name in fields if name not in known)
    if others:
        raise OptionError(f"response_format: {kind} has no field {others[0]!r:.80}")
