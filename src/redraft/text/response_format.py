"""`response_format`, in OpenAI's forms and two more, as the pattern of a whole reply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redraft.core.errors import OptionError
from redraft.text.schema import schema_pattern
from redraft.text.schema_strings import literal

_OF_SCHEMA = {"name", "description", "schema", "strict"}
_FIELDS = {
    "text": set[str](),
    "json_object": {"schema"},
    "json_schema": {"json_schema", *_OF_SCHEMA},
    "regex": {"pattern", "regex"},
    "choice": {"choices", "choice"},
}


def response_pattern(wanted: Mapping[str, Any]) -> str | None:
    """The pattern of the reply; None where it may be any text.

    Args:
        wanted: `{"type": "text"}`, `{"type": "json_object"}` (which may have a `schema`, as some servers take it),
            `{"type": "json_schema", "json_schema": {"schema": ...}}` (or with `schema` itself at the top),
            `{"type": "regex", "pattern": ...}` for a reply that matches as a whole, or
            `{"type": "choice", "choices": [...]}`.

    Raises:
        OptionError: it is none of these, or has a field that would do nothing.
        SchemaError: a schema that cannot be enforced.
    """
    kind = wanted.get("type")
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise OptionError(f"response_format: type must be one of {', '.join(_FIELDS)}, got {kind!r:.80}")
    _refuse_others(wanted, {"type", *_FIELDS[kind]}, kind)
    if kind == "text":
        return None
    if kind == "json_object":
        return schema_pattern(_schema(wanted, kind) if "schema" in wanted else {"type": "object"})
    if kind == "json_schema":
        inner = wanted.get("json_schema", wanted)
        if inner is not wanted and isinstance(inner, Mapping):
            _refuse_others(wanted, {"type", "json_schema"}, kind)
            _refuse_others(inner, _OF_SCHEMA, "json_schema.json_schema")
        return schema_pattern(_schema(inner, kind))
    if kind == "regex":
        pattern = wanted.get("pattern", wanted.get("regex"))
        if not isinstance(pattern, str) or not pattern or len(wanted) != 2:
            raise OptionError("response_format: regex needs one 'pattern'")
        return pattern
    choices = wanted.get("choices", wanted.get("choice"))
    fits = isinstance(choices, list | tuple) and choices and all(isinstance(c, str) and c for c in choices)
    if not isinstance(choices, list | tuple) or not fits or len(wanted) != 2:
        raise OptionError("response_format: choice needs one list of 'choices', texts that are not empty")
    return "|".join(literal(choice) for choice in choices)


def _schema(fields: Any, kind: str) -> Mapping[str, Any] | bool:
    schema = fields.get("schema") if isinstance(fields, Mapping) else None
    if not isinstance(schema, Mapping | bool):
        raise OptionError(f"response_format: {kind} needs a 'schema'")
    return schema


def _refuse_others(fields: Mapping[str, Any], known: set[str], kind: str) -> None:
    others = sorted(str(name) for name in fields if name not in known)
    if others:
        raise OptionError(f"response_format: {kind} has no field {others[0]!r:.80}")


def has_patterns(part: Any) -> bool:
    """Whether a response format or declarations hold a stranger's regular expression, or may hold one."""
    if isinstance(part, Mapping):
        return "pattern" in part or "regex" in part or any(map(has_patterns, part.values()))
    return isinstance(part, list | tuple) and any(map(has_patterns, part))
