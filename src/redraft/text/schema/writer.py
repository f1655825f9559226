"""Schemas as trees: which values are written, part by part."""

from __future__ import annotations

from collections import Counter
from typing import Any

from redraft.core.errors import SchemaError
from redraft.text.grammar.build import any_of
from redraft.text.grammar.nodes import Node, Text
from redraft.text.schema.arrays import array_node
from redraft.text.schema.checks import Unfit
from redraft.text.schema.flat import Flat
from redraft.text.schema.keywords import OF_TYPE, meant
from redraft.text.schema.multiples import number_node
from redraft.text.schema.notation import Notation
from redraft.text.schema.objects import object_node
from redraft.text.schema.strings import string_node
from redraft.text.schema.unfold import Impossible, Recursion, Unfolder

ANY_DEPTH, DEEPEST = 2, 40
# Of schemas inside themselves each way to come to a part counts.
MOST_VALUES, MOST_RECURSIVE = 20_000, 1_500
_OF_SCALARS = sorted({*OF_TYPE["string"], *OF_TYPE["number"], "format"})


class TooLarge(SchemaError):
    """More parts than can be written out."""


class TreeWriter:
    """Writes the values of one schema's parts, each part once.

    Attributes:
        notation: how values are written.
        unfolder: says what a part allows.
    """

    def __init__(self, unfolder: Unfolder, notation: Notation) -> None:
        self.unfolder, self.notation = unfolder, notation
        self._known: dict[Any, tuple[Any, Node | Recursion]] = {}
        self._anything: dict[int, Node] = {}
        self._scalars: dict[tuple[str, ...], Node] = {}
        self._depth = 0
        self._one_way: TreeWriter | None = None

    def in_one_way(self) -> TreeWriter:
        """The writer that writes each value in one way alone."""
        if self.notation.one_way:
            return self
        if self._one_way is None:
            self._one_way = TreeWriter(self.unfolder, self.notation.in_one_way())
        self._one_way._depth = self._depth
        return self._one_way

    def value(self, schema: Any, path: str, followed: tuple[str, ...] = ()) -> Node:
        """Any value that the schema allows.

        Raises:
            SchemaError: nothing satisfies it, or it cannot be enforced.
        """
        if schema is True or schema == {}:
            return self.anything(ANY_DEPTH)
        # The schema is kept with what it came to, so that no other gets its identity.
        key = id(schema), frozenset(Counter(followed).items())
        if key not in self._known:
            if len(self._known) >= (MOST_RECURSIVE if self.unfolder.recursed else MOST_VALUES):
                raise TooLarge(path, "the schema is too large: split it")
            if self._depth >= DEEPEST:
                raise TooLarge(path, f"its values nest more than {DEEPEST} deep: flatten them")
            self._depth += 1
            try:
                self._known[key] = schema, self._value(schema, path, followed)
            except Recursion as error:
                self._known[key] = schema, error
            finally:
                self._depth -= 1
        found = self._known[key][1]
        if isinstance(found, Recursion):
            raise found.with_traceback(None)
        return found

    def _value(self, schema: Any, path: str, followed: tuple[str, ...]) -> Node:
        flats = self.unfolder.alternatives(schema, path, followed)
        if not flats:
            raise Impossible(path, "nothing satisfies it: its parts exclude each other")
        found, last = list[Node](), None
        for flat in flats:
            try:
                found.append(self._flat(flat))
            except (Recursion, Unfit) as error:
                # Of parts put together, some may exclude each other where others do not.
                last = error
        if not found:
            raise last or SchemaError(path, "nothing satisfies it")
        return any_of(found)

    def _flat(self, flat: Flat) -> Node:
        if "enum" in flat.keywords:
            others = flat.changed(enum=None)
            values = [value for value in flat.get("enum") if self.unfolder.fits(value, others)]
            if not values:
                keyword = "const" if "const" in flat.where else "enum"
                raise Unfit(flat.at(keyword), "no value is left that it allows: list one that fits the rest")
            return any_of(self.notation.literal(value, flat.path) for value in values)
        kinds = flat.get("type", meant(flat.keywords))
        if not kinds:
            return self.anything(ANY_DEPTH)
        found, last = list[Node](), None
        for kind in kinds:
            try:
                found.append(self._of_kind(kind, flat))
            except Recursion as error:
                last = error
        if not found:
            raise last or SchemaError(flat.path, "nothing satisfies it")
        return any_of(found)

    def _of_kind(self, kind: str, flat: Flat) -> Node:
        if kind == "object":
            return object_node(flat, self)
        if kind == "array":
            return array_node(flat, self)
        # What says the same is the same tree.
        key = kind, *(repr(flat.get(name)) for name in _OF_SCALARS)
        if key not in self._scalars:
            self._scalars[key] = self._scalar(kind, flat)
        return self._scalars[key]

    def _scalar(self, kind: str, flat: Flat) -> Node:
        if kind == "string":
            return string_node(flat, self.notation)
        if kind in ("number", "integer"):
            return number_node(flat, whole_only=kind == "integer", one_way=self.notation.one_way)
        return any_of([Text("true"), Text("false")]) if kind == "boolean" else Text("null")

    def anything(self, depth: int) -> Node:
        """Any value, nested at most so deep."""
        depth = 0 if self.notation.one_way else depth
        if depth not in self._anything:
            plain = Flat({}, "")
            found = [self._of_kind(kind, plain) for kind in ("string", "number", "boolean", "null")]
            if depth:
                inner = self.anything(depth - 1)
                pair = self.notation.pair(self.notation.any_key, inner)
                found += [self.notation.listed(inner, 0, None), self.notation.mapped(pair, 0, None)]
            self._anything[depth] = any_of(found)
        return self._anything[depth]
