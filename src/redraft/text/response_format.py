"""`response_format`, in OpenAI's forms and two more, as the pattern of a whole reply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redraft.core.errors import OptionError
from redraft.text.schema import schema_pattern
from redraft.text.schema_strings import literal

KINDS = ("text", "json_object", "json_schema", "regex", "choice")


def response_pattern(wanted: Mapping[str, Any]) -> str | None:
    """The pattern of the reply; None where it may be any text.

    Args:
        wanted: `{"type": "text"}`, `{"type": "json_object"}`, `{"type": "json_schema", "json_schema": {"schema": ...}}`
            (or with `schema` itself at the top), `{"type": "regex", "pattern": ...}` for a reply that matches as a
            whole, or `{"type": "choice", "choices": [...]}`.

    Raises:
        OptionError: it is none of these.
        SchemaError: a schema that cannot be enforced.
    """
    kind = wanted.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return schema_pattern({"type": "object"})
    if kind == "json_schema":
        inner = wanted.get("json_schema", wanted)
        schema = inner.get("schema") if isinstance(inner, Mapping) else None
        if not isinstance(schema, Mapping | bool):
            raise OptionError("response_format: json_schema needs a 'schema'")
        return schema_pattern(schema)
    if kind == "regex":
        pattern = wanted.get("pattern", wanted.get("regex"))
        if not isinstance(pattern, str) or not pattern:
            raise OptionError("response_format: regex needs a 'pattern'")
        return pattern
    if kind == "choice":
        choices = wanted.get("choices", wanted.get("choice"))
        if not isinstance(choices, list | tuple) or not choices or not all(isinstance(c, str) and c for c in choices):
            raise OptionError("response_format: choice needs 'choices', a list of texts that are not empty")
        return "|".join(literal(choice) for choice in choices)
    raise OptionError(f"response_format: type must be one of {', '.join(KINDS)}, got {kind!r}")


def has_patterns(part: Any) -> bool:
    """Whether a response format or declarations hold a stranger's regular expression, or may hold one."""
    if isinstance(part, Mapping):
        return "pattern" in part or "regex" in part or any(map(has_patterns, part.values()))
    return isinstance(part, list | tuple) and any(map(has_patterns, part))
