"""Text with holes: what stands around them is what the reply must repeat."""

from __future__ import annotations

import re
from collections.abc import Callable

from redraft.core.errors import PromptError
from redraft.text.grammar.nodes import FIRST_MARK, MARKS, Chars, Node, Repeat, Sequence, Text

_HOLE = re.compile(r"\[\[\.\.\.(\d*)\]\]")
_CONTENT = Chars(((0, 0x09), (0x0B, 0xD7FF), (FIRST_MARK + MARKS, 0x10FFFF)))


def holes_of(text: str) -> tuple[list[str], list[int | None]]:
    """(the pieces around the holes, one more than there are holes; the length of each hole, None where it is open).

    A hole is `[[...]]`, or `[[...12]]` for one of twelve characters.

    Raises:
        PromptError: there is no hole.
    """
    lengths = [int(found[1]) if found[1] else None for found in _HOLE.finditer(text)]
    if not lengths:
        raise PromptError("the text has no hole: mark one with [[...]], or [[...12]] for one of twelve characters")
    return _HOLE.split(text)[::2], lengths


def tree_of(pieces: list[str], lengths: list[int | None], marked: Callable[[str], str]) -> Node:
    """The pieces as they are, and between them what fills the holes.

    Args:
        pieces, lengths: see `holes_of`.
        marked: writes special tokens as marks.
    """
    parts: list[Node] = [Text(marked(pieces[0]))]
    for length, piece in zip(lengths, pieces[1:], strict=True):
        # Open holes have no longest length: to count in several of them at once takes 2^n states.
        parts += [Repeat(_CONTENT, 1 if length is None else length, length), Text(marked(piece))]
    return Sequence(tuple(parts))


def filled(raw: str, pieces: list[str]) -> tuple[str, ...]:
    """What stands in the holes of a reply; empty where the reply was cut before its end."""
    inner = "".join("(.*?)" + re.escape(piece) for piece in pieces[1:])
    found = re.fullmatch(re.escape(pieces[0]) + inner, raw, re.DOTALL)
    return found.groups() if found else ()
