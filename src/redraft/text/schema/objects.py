"""Objects of a schema: declared properties in their order, or mappings of any keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from redraft.core.errors import SchemaError
from redraft.text.grammar.build import any_of
from redraft.text.grammar.nodes import Both, Node, Sequence, Text
from redraft.text.schema.checks import Unfit, joined
from redraft.text.schema.flat import Flat, both, of_key, together
from redraft.text.schema.notation import Notation
from redraft.text.schema.strings import length_bounds, pattern_node, string_node
from redraft.text.schema.unfold import Recursion, Unfolder

MOST_DEPENDENT = 6


class Writer(Protocol):
    """Who writes the values inside."""

    notation: Notation
    unfolder: Unfolder

    def value(self, schema: Any, path: str, followed: tuple[str, ...]) -> Node:
        """The values of a schema."""
        ...

    def in_one_way(self) -> Writer:
        """A writer that writes each value in one way alone."""
        ...

    def anything(self, depth: int) -> Node:
        """Any value."""
        ...


def object_node(flat: Flat, writer: Writer) -> Node:
    """The objects that a schema allows, as far as they are written.

    Raises:
        SchemaError: there are none, or keywords that cannot be enforced.
    """
    found, last = list[Node](), None
    for one in _independent(flat, writer, 0):
        try:
            found.append(_record(one, writer) if _names_keys(one) else _mapping(one, writer))
        except Recursion as error:
            last = error
    if not found:
        raise last or Unfit(flat.at("required"), "nothing satisfies what its properties ask of each other")
    return any_of(found)


def _names_keys(flat: Flat) -> bool:
    return "properties" in flat.keywords or bool(flat.get("required"))


def _independent(flat: Flat, writer: Writer, depth: int) -> Iterator[Flat]:
    """The schema by which of the properties are there that ask something of others."""
    if not flat.get("dependent"):
        yield flat
        return
    if depth > MOST_DEPENDENT:
        raise SchemaError(flat.path, f"at most {MOST_DEPENDENT} properties that ask for others can be enforced")
    (key, schema), *others = flat.get("dependent")
    rest = flat.changed(dependent=others)
    properties = rest.get("properties", {})
    if key not in rest.get("required", ()):
        yield from _independent(rest.changed(properties={**properties, key: False}), writer, depth + 1)
    with_key = rest.changed(
        properties={**properties, key: of_key(rest, key)},
        required=list(dict.fromkeys([*rest.get("required", ()), key])),
    )
    if with_key.get("properties")[key] is False:
        return
    for other in writer.unfolder.alternatives(schema, flat.path, flat.followed):
        if found := together(with_key, other):
            yield from _independent(found, writer, depth + 1)


def _record(flat: Flat, writer: Writer) -> Node:
    """Declared properties, in their order; those that are only required come last."""
    notation, required = writer.notation, set(flat.get("required", ()))
    items: list[tuple[Node, bool]] = []
    for key in dict.fromkeys([*flat.get("properties", {}), *flat.get("required", ())]):
        schema, at = of_key(flat, key), joined(flat.at("properties"), key)
        if schema is False or not _named(key, flat, writer):
            if key in required:
                raise Unfit(flat.at("required"), f"{key!r:.60} is required and not allowed: allow it")
            continue
        try:
            value = writer.value(schema, at, flat.followed)
        except Recursion:
            if key in required:
                raise
            continue
        items.append((notation.pair(notation.key(key, at), value), key in required))
    least, most = length_bounds(flat, "minProperties", "maxProperties")
    always = sum(there for _, there in items)
    if least > len(items):
        raise Unfit(
            flat.at("minProperties"), f"only the {len(items)} declared properties are written: declare more or lower it"
        )
    if most is not None and most < always:
        raise Unfit(flat.at("maxProperties"), f"{always} are required: raise it")
    if (most is None or most >= len(items)) and least <= max(1, always):
        return notation.record(items, empty=least == 0)
    written = any_of([pair for pair, _ in items])
    return Both(notation.record(items, empty=least == 0), notation.mapped(written, least, most))


def _named(key: str, flat: Flat, writer: Writer) -> bool:
    names = flat.get("propertyNames", True)
    if names is True:
        return True
    found = writer.unfolder.alternatives(names, flat.at("propertyNames"), flat.followed)
    return any(writer.unfolder.fits(key, one) for one in found)


def _mapping(flat: Flat, writer: Writer) -> Node:
    notation = writer.notation
    least, most = length_bounds(flat, "minProperties", "maxProperties")
    if notation.one_way:
        raise SchemaError(
            flat.path, "mappings of any keys cannot be told apart beside uniqueItems: name their properties"
        )
    try:
        pair = _pair(flat, writer) if most != 0 else None
    except Recursion:
        if least:
            raise
        pair = None
    if pair is None:
        if least:
            raise Unfit(flat.at("minProperties"), "no key is allowed: lower it")
        return notation.record([])
    if least > 1:
        raise SchemaError(
            flat.at("minProperties"),
            "more than 1 cannot be enforced without properties, for keys may repeat: name them",
        )
    return notation.mapped(pair, least, most)


def _pair(flat: Flat, writer: Writer) -> Node | None:
    """A key with its value; None where no key is allowed."""
    names, at = flat.get("propertyNames", True), flat.at("propertyNames")
    if "patternProperties" in flat.keywords:
        if names is not True:
            raise SchemaError(at, "cannot be enforced beside patternProperties: put it into the pattern")
        return _pair_by_pattern(flat, writer)
    value = flat.get("additionalProperties", True)
    if value is False:
        return None
    inner = (
        writer.anything(1)
        if value is True or value == {}
        else writer.value(value, flat.at("additionalProperties"), flat.followed)
    )
    if names is True:
        return writer.notation.pair(writer.notation.any_key, inner)
    keys = [_key(one, writer) for one in writer.unfolder.alternatives(both(names, {"type": "string"}), at)]
    return writer.notation.pair(any_of(keys), inner) if keys else None


def _pair_by_pattern(flat: Flat, writer: Writer) -> Node | None:
    """A key that matches a pattern with its value; None where no key is allowed."""
    path, found, begun = flat.at("patternProperties"), list[Node](), list[str]()
    patterns = flat.get("patternProperties")
    for pattern, schema in patterns.items():
        inner = joined(path, pattern)
        texts = pattern_node(pattern, inner)
        begins = _beginning(texts)
        if len(patterns) > 1 and (not begins or any(b.startswith(begins) or begins.startswith(b) for b in begun)):
            raise SchemaError(
                path, "two patterns may match one key: begin each with ^ and a text of its own, or name the keys in"
                " properties"
            )  # fmt: skip
        begun.append(begins)
        if schema is not False:
            key = _content_key(texts, writer.notation, inner)
            found.append(writer.notation.pair(key, writer.value(schema, inner, flat.followed)))
    return any_of(found) if found else None


def _beginning(texts: Node) -> str:
    """The text that all texts of a tree begin with, as far as it stands there."""
    first = texts.parts[0] if isinstance(texts, Sequence) and texts.parts else texts
    return first.text if isinstance(first, Text) else ""


def _key(flat: Flat, writer: Writer) -> Node:
    """A key that a schema of names allows."""
    if "enum" in flat.keywords:
        values = [value for value in flat.get("enum") if writer.unfolder.fits(value, flat)]
        if not values:
            raise Unfit(flat.at("enum"), "no name is left that it allows: list one")
        return any_of(writer.notation.key(value, flat.path) for value in values)
    return string_node(flat, writer.notation)


def _content_key(content: Node, notation: Notation, path: str) -> Node:
    try:
        return notation.string(notation.strings.of(content))
    except ValueError as error:
        raise SchemaError(path, f"{error}: leave it out") from None
