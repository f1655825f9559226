"""How the characters of strings are written: JSON's escapes, or the strings of calls, which have none."""

from __future__ import annotations

from dataclasses import dataclass

from redraft.text.grammar.build import any_of, sequence
from redraft.text.grammar.nodes import AnyOrder, Both, Chars, Choice, Distinct, Node, Repeat, Sequence, Text, Without
from redraft.text.grammar.sets import ALL, Ranges, complement, difference, holds, intersection, of


@dataclass(frozen=True, kw_only=True)
class Alphabet:
    """How a notation writes the characters of a string.

    Attributes:
        plain: characters that stand for themselves.
        character: any one character as it may be written.
        escapes: how characters that are not plain are written; others of them cannot be.
        rare: of the escapes, those that stand only where a text names the character.
    """

    plain: Ranges
    character: Node
    escapes: dict[str, str]
    rare: frozenset[str] = frozenset()

    def written(self, text: str) -> str | None:
        """The text as the notation writes it; None where it cannot."""
        parts = [self.escapes.get(c) if not holds(self.plain, ord(c)) else c for c in text]
        return None if None in parts else "".join(part for part in parts if part is not None)

    def of(self, node: Node) -> Node:
        """A tree of texts as the notation writes them.

        Raises:
            ValueError: a text or set of it that cannot be written at all.
        """
        match node:
            case Text():
                written = self.written(node.text)
                if written is None:
                    raise ValueError(f"the text {node.text!r} cannot be written")
                return Text(written)
            case Chars():
                return self._one_of(node.ranges)
            case Sequence():
                return sequence(self.of(part) for part in node.parts)
            case Choice():
                return any_of(self.of(part) for part in node.parts)
            case Repeat():
                separator = None if node.separator is None else self.of(node.separator)
                return Repeat(self.of(node.part), node.least, node.most, separator)
            case Both():
                return Both(self._wide(node.one), self._wide(node.other))
            case Without():
                return Without(
                    self.of(node.part), tuple(written for written in map(self.written, node.words) if written)
                )
            case AnyOrder() | Distinct():
                raise TypeError("no pattern has these")

    def _wide(self, node: Node) -> Node:
        """As `of`, rare characters in every set: what one side of two spells must not be foreign to the other."""
        return Alphabet(plain=self.plain, character=self.character, escapes=self.escapes).of(node)

    def _one_of(self, ranges: Ranges) -> Node:
        single = len(ranges) == 1 and ranges[0][0] == ranges[0][1]
        escaped = [
            Text(written)
            for character, written in self.escapes.items()
            if holds(ranges, ord(character)) and (single or character not in self.rare)
        ]
        plain = intersection(ranges, self.plain)
        if not plain and not escaped:
            escaped = [Text(written) for c, written in self.escapes.items() if holds(ranges, ord(c))]
        if not plain and not escaped:
            raise ValueError("a character of its pattern cannot be written")
        return any_of([Chars(plain), *escaped] if plain else escaped)


_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\b": "\\b", "\f": "\\f"}
_CONTROLS = {chr(point): f"\\u{point:04x}" for point in range(32) if chr(point) not in _SHORT}
_JSON_PLAIN = difference(ALL, of('"\\' + "".join(map(chr, range(32)))))
JSON_STRING = Alphabet(
    plain=_JSON_PLAIN,
    character=any_of([Chars(_JSON_PLAIN), sequence([Text("\\"), Chars(of('"\\/bfnrt'))])]),
    escapes={**_SHORT, **_CONTROLS},
    rare=frozenset(_CONTROLS),
)
CALL_STRING = Alphabet(plain=complement(()), character=Chars(ALL), escapes={})
# The same strings, each written in one way alone.
ONE_WAY_JSON = Alphabet(
    plain=_JSON_PLAIN,
    character=any_of([Chars(_JSON_PLAIN), sequence([Text("\\"), Chars(of('"\\bfnrt'))])]),
    escapes=JSON_STRING.escapes,
    rare=JSON_STRING.rare,
)
