"""Text with holes: what stands around them is a pattern that the reply must match."""

from __future__ import annotations

import re
from collections.abc import Callable

from redraft.core.errors import PromptError

_HOLE = re.compile(r"\[\[\.\.\.(\d*)\]\]")
_SYNTAX = re.compile(r"[\\.+*?()|\[\]{}^$#&~-]")
_CONTENT = "[^\n\ue000-\ue0ff]"


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


def pattern_of(pieces: list[str], lengths: list[int | None], marked: Callable[[str], str]) -> str:
    """The pieces as they are, and between them what fills the holes.

    Open holes have no longest length: to count in several of them at once takes 2^n states.
    """
    parts = [escaped(marked(pieces[0]))]
    for length, piece in zip(lengths, pieces[1:], strict=True):
        count = "+" if length is None else f"{{{length}}}"
        parts += [_CONTENT + count, escaped(marked(piece))]
    return "".join(parts)


def escaped(text: str) -> str:
    """The text as a pattern that matches it alone."""
    return _SYNTAX.sub(lambda found: "\\" + found[0], text)


def filled(raw: str, pieces: list[str]) -> tuple[str, ...]:
    """What stands in the holes of a reply; empty where the reply was cut before its end."""
    inner = "".join("(.*?)" + re.escape(piece) for piece in pieces[1:])
    found = re.fullmatch(re.escape(pieces[0]) + inner, raw, re.DOTALL)
    return found.groups() if found else ()
