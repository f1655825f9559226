"""Fields of a schema that every object it allows has: those of few values, and those of free text or numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

from redraft.text.grammar.build import ANY, any_of, optional, sequence
from redraft.text.grammar.nodes import Chars, Choice, Node, Repeat, Sequence, Text
from redraft.text.grammar.sets import of
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
_PLACE = "the field stands here"
# A number ends where something else begins.
_BEHIND = optional(Sequence((Chars(of(" \n,}")), Repeat(ANY))))


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


def told_apart(schema: Any, field: SchemaField) -> tuple[Node, list[tuple[Any, Node]]]:
    """All texts by the value that they have in a field.

    Returns:
        What stands before the field, as the schema has it; and of each value that the field's own schema allows, the
        value with whatever may follow it.

    Raises:
        SchemaError: the schema cannot be enforced, or what stands before the field has no end of its own.
    """
    references = References(schema)
    holder = _PLACE
    while holder in repr(schema):
        holder += "_"
    fixed, own = _fixed(schema, field.path, holder, references)
    head = _before(schema_node(fixed, root=schema), f'"{holder}"')
    if head is None:
        raise SchemaError(".".join(field.path), "has no place of its own in this schema")
    found = []
    for value in field.values:
        try:
            schema_node({**{name: kept for name, kept in own.items() if name != "const"}, "enum": [value]}, root=schema)
        except Unfit:
            continue
        found.append((value, sequence([schema_node({"enum": [value]}), _BEHIND])))
    return head, found


def _within(schema: Any, path: tuple[str, ...], references: References) -> Iterator[SchemaField]:
    own = _followed(schema, references)
    if own is None or len(path) > _DEEPEST or own.get("nullable") is True:
        return
    values = _values(own)
    if values is not None:
        # Nothing but the reply's end would tell a lone 1 from a 12.
        if path and (values or own.get("type") in _OF_MANY):
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


def _fixed(
    schema: Any, path: tuple[str, ...], value: Any, references: References
) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """(the schema with one value left to a field, what it says of the field); references lead to where they led."""
    own = _followed(schema, references)
    assert own is not None
    if not path:
        return {"enum": [value]}, own
    inner, of_field = _fixed(own["properties"][path[0]], path[1:], value, references)
    return {**own, "properties": {**own["properties"], path[0]: inner}}, of_field


def _before(node: Node, mark: str) -> Node | None:
    """What stands before a mark in the texts of a tree that have it; None where none has it at a place of its own."""
    match node:
        case Text():
            head, found, _ = node.text.partition(mark)
            return Text(head) if found else None
        case Sequence():
            for place, part in enumerate(node.parts):
                head = _before(part, mark)
                if head is not None:
                    return sequence([*node.parts[:place], head])
            return None
        case Choice():
            heads = [head for part in node.parts if (head := _before(part, mark)) is not None]
            return any_of(heads) if heads else None
        case _:
            return None
