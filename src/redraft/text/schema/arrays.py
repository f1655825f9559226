"""Arrays of a schema: items by place, items of one kind, items that differ."""

from __future__ import annotations

from typing import Any

from redraft.core.errors import SchemaError
from redraft.text.grammar.build import optional, sequence
from redraft.text.grammar.nodes import Choice, Node, Repeat, Text
from redraft.text.schema.checks import Unfit, joined
from redraft.text.schema.flat import Flat
from redraft.text.schema.objects import Writer
from redraft.text.schema.strings import length_bounds
from redraft.text.schema.unfold import Recursion

# Of so many values each order is one path of the automaton; of more, a reply is looked at for what it repeats.
MOST_UNORDERED = 8


def array_node(flat: Flat, writer: Writer) -> Node:
    """The arrays that a schema allows.

    Raises:
        SchemaError: there are none, or keywords that cannot be enforced.
    """
    least, most = length_bounds(flat, "minItems", "maxItems")
    items = flat.get("items", True)
    if flat.get("uniqueItems") and (most is None or most > 1):
        return _unique(flat, items, least, most, writer)
    first = _first(flat, least, most, writer)
    if not first:
        most = 0 if items is False or flat.get("prefixItems") else most
        item = None if most == 0 else _item(items, flat, writer)
        return writer.notation.listed(item, least, most) if item is not None else _empty(flat, least, writer)
    rest = None if most == len(first) or len(first) < len(flat.get("prefixItems")) else _rest(
        flat, items, least - len(first), None if most is None else most - len(first), writer
    )  # fmt: skip
    required = min(least, len(first))
    if least > len(first) and rest is None:
        raise Unfit(flat.at("minItems"), f"only {len(first)} items are allowed: lower it")
    return writer.notation.sequence(first, rest, required=required)


def _first(flat: Flat, least: int, most: int | None, writer: Writer) -> list[Node]:
    """The items that have a place of their own."""
    found: list[Node] = []
    for place, schema in enumerate(flat.get("prefixItems", [])[:most]):
        try:
            if schema is False:
                break
            found.append(writer.value(schema, joined(flat.at("prefixItems"), str(place)), flat.followed))
        except Recursion:
            if place < least:
                raise
            break
    return found


def _rest(flat: Flat, items: Any, least: int, most: int | None, writer: Writer) -> Node | None:
    """What follows the items that have a place; nothing where nobody asks for more."""
    if items is False or ("items" not in flat.keywords and least <= 0):
        return None
    item = _item(items, flat, writer, needed=least > 0)
    if item is None:
        return None
    comma = writer.notation.comma
    if least > 0:
        return sequence([comma, Repeat(item, least, most, comma)])
    return optional(sequence([comma, Repeat(item, 1, most, comma)]))


def _item(items: Any, flat: Flat, writer: Writer, *, needed: bool = False) -> Node | None:
    if items is False:
        return None
    if items is True or items == {}:
        return writer.anything(1)
    try:
        return writer.value(items, flat.at("items"), flat.followed)
    except Recursion:
        if needed or flat.get("minItems", 0):
            raise
        return None


def _empty(flat: Flat, least: int, writer: Writer) -> Node:
    if least:
        raise Unfit(flat.at("minItems"), "no item is allowed: lower it")
    return writer.notation.sequence([])


def _unique(flat: Flat, items: Any, least: int, most: int | None, writer: Writer) -> Node:
    """Items of one kind that differ."""
    if flat.get("prefixItems"):
        raise SchemaError(flat.at("uniqueItems"), "cannot be enforced beside prefixItems: leave it out")
    writer = writer.in_one_way()
    item = _item(items, flat, writer)
    if item is None:
        return _empty(flat, least, writer)
    values = _texts(item)
    if values is None or len(values) > MOST_UNORDERED or _begin_each_other(values):
        if values is not None and least > len(values):
            raise Unfit(flat.at("minItems"), f"only {len(values)} items differ: lower it")
        return writer.notation.listed(item, least, most, unique=True)
    if least > len(values):
        raise Unfit(flat.at("minItems"), f"only {len(values)} items differ: lower it")
    parts: list[Node] = [Text(value) for value in values]
    return writer.notation.unordered(parts, least, len(parts) if most is None else min(most, len(parts)))


def _texts(item: Node) -> list[str] | None:
    """The texts of an item; None where there are more than a few."""
    parts = item.parts if isinstance(item, Choice) else (item,)
    return [part.text for part in parts if isinstance(part, Text)] if all(isinstance(p, Text) for p in parts) else None


def _begin_each_other(values: list[str]) -> bool:
    return any(one != other and other.startswith(one) for one in values for other in values)
