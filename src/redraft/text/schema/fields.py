"""Fields of a schema that every object it allows has: those of few values, and those of free text or numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

from redraft.text.grammar.nodes import Node
from redraft.text.schema import schema_node
from redraft.text.schema.checks import Unfit, among, limits
from redraft.text.schema.keywords import ANNOTATIONS
from redraft.text.schema.references import References

# As many marks as are left beside those of the model's own special tokens.
MOST_VALUES = 250
_SCALARS = (str, int, float, bool, type(None))
_OF_FEW = {"boolean": (True, False), "null": (None,)}
_OF_MANY = {"string", "number", "integer"}
_DEEPEST = 16


@dataclass(frozen=True)
class SchemaField:
    """A field that is always there.

    Attributes:
        path: keys from the root on.
        values: all that it may have, in the schema's order; none where it is a text or number of many values.
    """

    path: tuple[str, ...]
    values: tuple[Any, ...]


def fields_of(schema: Any) -> tuple[SchemaField, ...]:
    """The fields of a schema that are there in whatever it allows, in the order in which they are written.

    A field is one by its own keywords (`enum`, `const`, boolean, integers between bounds, texts, numbers), in objects
    that require it, all the way up; what stands in lists, or is one of several alternatives, is none.
    """
    return tuple(_within(schema, (), References(schema)))


def narrowed(schema: Any, field: SchemaField) -> list[tuple[Any, Node]]:
    """(value, the tree of what the schema allows with that value in the field), without values that nothing allows.

    Raises:
        SchemaError: the schema cannot be enforced.
    """
    found, references = [], References(schema)
    for value in field.values:
        try:
            found.append((value, schema_node(_fixed(schema, field.path, value, references), root=schema)))
        except Unfit:
            continue
    return found


def _within(schema: Any, path: tuple[str, ...], references: References) -> Iterator[SchemaField]:
    own = _followed(schema, references)
    if own is None or len(path) > _DEEPEST or own.get("nullable") is True:
        return
    values = _values(own)
    if values is not None:
        if values or own.get("type") in _OF_MANY:
            yield SchemaField(path, values)
        return
    properties, required = own.get("properties"), own.get("required", ())
    if own.get("type", "object") not in ("object", ["object"]) or not isinstance(properties, Mapping):
        return
    for key, inner in properties.items():
        if key in required:
            yield from _within(inner, (*path, key), references)


def _followed(schema: Any, references: References) -> Mapping[str, Any] | None:
    """A schema without references, where it has nothing but one."""
    for _ in range(_DEEPEST):
        if not isinstance(schema, Mapping):
            return None
        if "$ref" not in schema:
            return schema
        if set(schema) - {"$ref"} - ANNOTATIONS:
            return None
        _, schema = references.follow(schema["$ref"], schema, "")
    return None


def _values(schema: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """All values of a field, none of one that has many; None where it is no such field."""
    kinds = schema.get("type", ())
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    if "const" in schema or "enum" in schema:
        listed = [schema["const"]] if "const" in schema else schema["enum"]
        known = [value for place, value in enumerate(listed) if not among(value, listed[:place])]
        fits = len(known) <= MOST_VALUES and all(isinstance(value, _SCALARS) for value in known)
        return tuple(known) if fits else None
    if kinds and all(kind in _OF_FEW for kind in kinds):
        return tuple(value for kind in kinds for value in _OF_FEW[kind])
    if kinds == ["integer"]:
        return _integers(schema)
    return () if len(kinds) == 1 and kinds[0] in _OF_MANY else None


def _integers(schema: Mapping[str, Any]) -> tuple[int, ...]:
    low, high, above, below = limits(schema)
    if low is None or high is None:
        return ()
    first = floor(low) + 1 if above else ceil(low)
    last = ceil(high) - 1 if below else floor(high)
    return tuple(range(first, last + 1)) if last - first < MOST_VALUES else ()


def _fixed(schema: Any, path: tuple[str, ...], value: Any, references: References) -> dict[str, Any]:
    """The schema with one value left to a field; its references lead to where they led."""
    own = _followed(schema, references)
    assert own is not None
    if not path:
        # Of an integer, the digits are what the schema's own bounds would have.
        if isinstance(value, int) and not isinstance(value, bool) and "enum" not in own and "const" not in own:
            return {**own, "minimum": value, "maximum": value}
        return {**{name: kept for name, kept in own.items() if name != "const"}, "enum": [value]}
    inner = _fixed(own["properties"][path[0]], path[1:], value, references)
    return {**own, "properties": {**own["properties"], path[0]: inner}}
