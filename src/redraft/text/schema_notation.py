"""How values are written: JSON with some white space, or the arguments of a call without any."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redraft.core.errors import SchemaError
from redraft.text.markers import NAME
from redraft.text.schema_strings import CALL_STRING, JSON_STRING, Alphabet, literal

# Without a bound, a model may fill its budget with blanks.
_SPACE = "(?: |\n {0,6})?"


@dataclass(frozen=True, kw_only=True)
class Notation:
    """A way to write JSON's values.

    Attributes:
        quote: what strings stand between.
        strings: how their characters are written.
        space: white space that may stand between parts.
        after_colon: white space behind a key's colon.
        bare_keys: whether a key that is a name stands without quotes.
    """

    quote: str
    strings: Alphabet
    space: str
    after_colon: str
    bare_keys: bool

    def string(self, content: str) -> str:
        """A string of this content."""
        quote = literal(self.quote)
        return f"{quote}(?:{content}){quote}"

    @property
    def any_key(self) -> str:
        """A key of any name."""
        return r"[A-Za-z_][A-Za-z0-9_]*" if self.bare_keys else self.string(f"{self.strings.character}*")

    def key(self, key: str, path: str) -> str:
        """One key.

        Raises:
            SchemaError: it has characters that cannot be written.
        """
        return literal(key) if self.bare_keys and NAME.fullmatch(key) else self.literal(key, path)

    def literal(self, value: Any, path: str) -> str:
        """One value, compact.

        Raises:
            SchemaError: it has characters that cannot be written, or is no JSON.
        """
        if isinstance(value, str):
            written = self.strings.written(value)
            if written is None:
                raise SchemaError(path, f"the text {value!r} cannot be written")
            return self.string(literal(written))
        if isinstance(value, Mapping):
            pairs = [
                (self.pair(self.key(str(key), path), self.literal(item, path)), True) for key, item in value.items()
            ]
            return self.record(pairs)
        if isinstance(value, list | tuple):
            return self.sequence([self.literal(item, path) for item in value])
        if isinstance(value, float) and not math.isfinite(value):
            raise SchemaError(path, f"{value} is no JSON")
        return literal(json.dumps(value))

    def pair(self, key: str, value: str) -> str:
        """A key with its value."""
        return f"{key}:{self.after_colon}{value}"

    def listed(self, item: str, least: int, most: int | None) -> str:
        """A list of so many items."""
        return self._enclosed("[", item, "]", least, most)

    def mapped(self, key: str, value: str, least: int, most: int | None) -> str:
        """A mapping of so many pairs, whatever their keys."""
        return self._enclosed("{", self.pair(key, value), "}", least, most)

    def sequence(self, items: list[str]) -> str:
        """A list of just these."""
        inner = self._comma.join(items)
        return rf"\[{self.space}{inner}{self.space}\]" if items else rf"\[{self.space}\]"

    def record(self, items: list[tuple[str, bool]]) -> str:
        """A mapping of these pairs in this order; those that are not required may be left out."""
        if not items:
            return rf"\{{{self.space}\}}"
        return rf"\{{{self.space}(?:{self._ordered(items)}){self.space}\}}"

    @property
    def _comma(self) -> str:
        return "," + self.space

    def _enclosed(self, opening: str, item: str, closing: str, least: int, most: int | None) -> str:
        empty = f"\\{opening}{self.space}\\{closing}"
        if most == 0:
            return empty
        # The last item stands alone: the other way round, the automaton has to know each one twice.
        before = f"{{{max(0, least - 1)},{'' if most is None else most - 1}}}"
        some = f"\\{opening}{self.space}(?:{item}{self._comma}){before}{item}{self.space}\\{closing}"
        return some if least else f"(?:{empty}|{some})"

    def _ordered(self, items: list[tuple[str, bool]]) -> str:
        first = next((i for i, (_, required) in enumerate(items) if required), None)
        if first is None:
            return f"(?:{self._some([item for item, _ in items])})?"
        before = [f"(?:{item}{self._comma})?" for item, _ in items[:first]]
        return "".join([*before, items[first][0], *self._optional(items[first + 1 :])])

    def _some(self, items: list[str]) -> str:
        """At least one of these, in order; by halves, which keeps the pattern and its automaton small."""
        if len(items) == 1:
            return items[0]
        left, right = self._some(items[: len(items) // 2]), self._some(items[len(items) // 2 :])
        return f"(?:{left}|(?:{left}{self._comma})?{right})"

    def _optional(self, items: list[tuple[str, bool]]) -> list[str]:
        return [f"{self._comma}{item}" if required else f"(?:{self._comma}{item})?" for item, required in items]


JSON = Notation(quote='"', strings=JSON_STRING, space=_SPACE, after_colon=" ?", bare_keys=False)


def call_notation(quote: str) -> Notation:
    """The notation of a call's arguments; `quote` is the mark of the string delimiter."""
    return Notation(quote=quote, strings=CALL_STRING, space="", after_colon="", bare_keys=True)
