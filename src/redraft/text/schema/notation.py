"""How values are written: JSON with some white space, or the arguments of a call without any."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from redraft.core.errors import SchemaError
from redraft.text.grammar.build import any_of, optional, sequence
from redraft.text.grammar.nodes import NOTHING, AnyOrder, Both, Distinct, Node, Repeat, Text
from redraft.text.grammar.regex import whole
from redraft.text.markers import NAME
from redraft.text.schema.alphabet import CALL_STRING, JSON_STRING, ONE_WAY_JSON, Alphabet

# Without a bound, a model may fill its budget with blanks.
_SPACE = optional(any_of([Text(" "), sequence([Text("\n"), Repeat(Text(" "), 0, 6)])]))


@dataclass(frozen=True, kw_only=True)
class Notation:
    """A way to write JSON's values.

    Attributes:
        quote: what strings stand between.
        strings: how their characters are written.
        space: white space that may stand between parts.
        after_colon: white space behind a key's colon.
        bare_keys: whether a key that is a name stands without quotes.
        one_way: whether each value is written in one way alone, so that equal values are equal texts.
    """

    quote: str
    strings: Alphabet
    space: Node
    after_colon: Node
    bare_keys: bool
    one_way: bool = False

    def in_one_way(self) -> Notation:
        """The notation that writes each value in one way alone."""
        strings = ONE_WAY_JSON if self.strings is JSON_STRING else self.strings
        return replace(self, strings=strings, space=NOTHING, after_colon=NOTHING, one_way=True)

    def string(self, content: Node) -> Node:
        """A string of this content, which is given as it is written."""
        return sequence([Text(self.quote), content, Text(self.quote)])

    def free_string(self, least: int = 0, most: int | None = None) -> Node:
        """A string of so many characters."""
        return self.string(Repeat(self.strings.character, least, most))

    @property
    def any_key(self) -> Node:
        """A key of any name."""
        return _bare_key() if self.bare_keys else self.free_string()

    def key(self, key: str, path: str) -> Node:
        """One key.

        Raises:
            SchemaError: it has characters that cannot be written.
        """
        return Text(key) if self.bare_keys and NAME.fullmatch(key) else self.literal(key, path)

    def literal(self, value: Any, path: str) -> Node:
        """One value, compact.

        Raises:
            SchemaError: it has characters that cannot be written, or is no JSON.
        """
        if isinstance(value, str):
            written = self.strings.written(value)
            if written is None:
                raise SchemaError(path, f"the text {value!r:.80} cannot be written: leave its special characters out")
            return self.string(Text(written))
        if isinstance(value, Mapping):
            return self.record(
                [(self.pair(self.key(str(key), path), self.literal(item, path)), True) for key, item in value.items()]
            )
        if isinstance(value, list | tuple):
            return self.sequence([self.literal(item, path) for item in value])
        if isinstance(value, float) and not math.isfinite(value):
            raise SchemaError(path, f"{value} is no JSON: give a number or null")
        try:
            return Text(json.dumps(value))
        except (TypeError, ValueError):
            raise SchemaError(path, f"{value!r:.80} is no JSON: give a value of JSON") from None

    def pair(self, key: Node, value: Node) -> Node:
        """A key with its value."""
        return sequence([key, Text(":"), self.after_colon, value])

    def listed(self, item: Node, least: int, most: int | None, *, unique: bool = False) -> Node:
        """A list of so many items; `unique`, each text of which once."""
        if most == 0:
            return self.sequence([])
        kind = Distinct if unique else Repeat
        return self._enclosed("[", kind(item, max(1, least), most, self.comma), "]", empty=not least)

    def unordered(self, items: list[Node], least: int, most: int) -> Node:
        """A list of so many of these items, in any order, each once."""
        if most == 0:
            return self.sequence([])
        fields = AnyOrder(tuple((item, NOTHING) for item in items), frozenset(), self.comma)
        if (least, most) == (0, len(items)):
            some: Node = fields
        elif (max(least, 1), most) == (len(items), len(items)):
            some = AnyOrder(fields.fields, frozenset(range(len(items))), self.comma)
        else:
            some = Both(fields, Repeat(any_of(items), max(1, least), most, self.comma))
        return self._enclosed("[", some, "]", empty=not least)

    def mapped(self, pair: Node, least: int, most: int | None) -> Node:
        """A mapping of so many pairs, whatever their keys."""
        if most == 0:
            return self.record([])
        return self._enclosed("{", Repeat(pair, max(1, least), most, self.comma), "}", empty=not least)

    def sequence(self, items: list[Node], rest: Node | None = None, *, required: int | None = None) -> Node:
        """A list of these, of which the last may be missing where not all are required, and of what may follow them.

        Args:
            items: in their order.
            rest: what stands behind the last item, from its comma on.
            required: how many of the items are always there; None is all of them.
        """
        required = len(items) if required is None else required
        inner: Node = NOTHING if rest is None else rest
        for place in reversed(range(len(items))):
            inner = sequence([self.comma if place else NOTHING, items[place], inner])
            if place and place >= required:
                inner = optional(inner)
        if not items:
            return sequence([Text("["), self.space, Text("]")])
        return self._enclosed("[", inner, "]", empty=required == 0)

    def record(self, items: list[tuple[Node, bool]], *, empty: bool = True) -> Node:
        """A mapping of these pairs in this order; those that are not required may be left out, not `empty` not all."""
        if not items:
            return sequence([Text("{"), self.space, Text("}")])
        first = next((i for i, (_, required) in enumerate(items) if required), None)
        if first is None:
            return self._enclosed("{", self._some([item for item, _ in items]), "}", empty=empty)
        before = [optional(sequence([item, self.comma])) for item, _ in items[:first]]
        inner = sequence([*before, items[first][0], *self._optional(items[first + 1 :])])
        return self._enclosed("{", inner, "}", empty=False)

    @property
    def comma(self) -> Node:
        """What stands between two items."""
        return sequence([Text(","), self.space])

    def _enclosed(self, opening: str, inner: Node, closing: str, *, empty: bool) -> Node:
        filled = sequence([inner, self.space])
        return sequence([Text(opening), self.space, optional(filled) if empty else filled, Text(closing)])

    def _some(self, items: list[Node]) -> Node:
        """At least one of these, in order; by halves, which keeps the tree and its automaton small."""
        if len(items) == 1:
            return items[0]
        left, right = self._some(items[: len(items) // 2]), self._some(items[len(items) // 2 :])
        return any_of([left, sequence([optional(sequence([left, self.comma])), right])])

    def _optional(self, items: list[tuple[Node, bool]]) -> list[Node]:
        behind = [(sequence([self.comma, item]), required) for item, required in items]
        return [item if required else optional(item) for item, required in behind]


@cache
def _bare_key() -> Node:
    return whole("[A-Za-z_][A-Za-z0-9_]*")


JSON = Notation(
    quote='"', strings=JSON_STRING, space=_SPACE, after_colon=optional(Text(" ")), bare_keys=False
)  # fmt: skip


def call_notation(quote: str) -> Notation:
    """The notation of a call's arguments; `quote` is the mark of the string delimiter."""
    return Notation(quote=quote, strings=CALL_STRING, space=NOTHING, after_colon=NOTHING, bare_keys=True)
