"""Languages of texts as trees: what a schema, a pattern or a list of tools comes to before it is compiled.

Special tokens of the model stand in them as private-use characters, U+E000 to U+E0FF, the marks; no set of characters
holds one, so that a mark stands only where a `Text` names it.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_MARK, MARKS = 0xE000, 256


@dataclass(frozen=True)
class Text:
    """One text; marks in it are special tokens."""

    text: str


@dataclass(frozen=True)
class Chars:
    """One character of a set.

    Attributes:
        ranges: code points, (first, last) each, ascending and disjoint; neither surrogates nor marks.
    """

    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Sequence:
    """Parts one behind the other; none of them is the empty text."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Choice:
    """One of several."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Repeat:
    """A part so many times, with a separator between two of them.

    Attributes:
        part: what is repeated.
        least: times, from 0.
        most: times; None is without end.
        separator: what stands between two.
    """

    part: Node
    least: int = 0
    most: int | None = None
    separator: Node | None = None


@dataclass(frozen=True)
class AnyOrder:
    """Fields in any order, each once at most; at least one where any is required.

    Attributes:
        fields: (key, value) each; no key, which holds what parts it from its value, begins another.
        required: places of those that must be there.
        separator: what stands between two.
    """

    fields: tuple[tuple[Node, Node], ...]
    required: frozenset[int]
    separator: Node


@dataclass(frozen=True)
class Distinct:
    """A repeat in which no two texts of the part are the same; equal values are written in one way alone.

    Attributes:
        part, least, most, separator: as in `Repeat`.
    """

    part: Node
    least: int = 0
    most: int | None = None
    separator: Node | None = None


@dataclass(frozen=True)
class Both:
    """The texts of two languages at once."""

    one: Node
    other: Node


@dataclass(frozen=True)
class Without:
    """The texts of a language in which none of these words is spelled, marks among them."""

    part: Node
    words: tuple[str, ...]


Node = Text | Chars | Sequence | Choice | Repeat | AnyOrder | Distinct | Both | Without
NOTHING = Sequence(())
