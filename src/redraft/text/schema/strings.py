"""Strings of a schema: length, patterns, formats."""

from __future__ import annotations

from functools import lru_cache

from redraft.core.errors import SchemaError
from redraft.text.grammar.anchored import PatternError
from redraft.text.grammar.build import lengths, limited
from redraft.text.grammar.nodes import Both, Node
from redraft.text.grammar.regex import anywhere
from redraft.text.schema.checks import LONGEST, Unfit
from redraft.text.schema.flat import Flat
from redraft.text.schema.formats import FORMATS, of_format
from redraft.text.schema.notation import Notation

# Where every character has to be counted beside a pattern, no longer texts are written.
COUNTED = 1000


def string_node(flat: Flat, notation: Notation) -> Node:
    """The strings that a schema allows.

    Raises:
        SchemaError: there are none, a bound is too large, or a pattern cannot be enforced.
    """
    least, most = length_bounds(flat, "minLength", "maxLength")
    patterns = tuple((pattern, flat.at("pattern")) for pattern in flat.get("pattern", ()))
    formats = tuple(name for name in flat.get("format", ()) if name in FORMATS)
    if not patterns and not formats:
        return notation.free_string(least, most)
    path = flat.at("pattern" if patterns else "format")
    content = _content(tuple(pattern for pattern, _ in patterns), formats, path)
    content = _of_length(content, least, most, flat)
    try:
        return notation.string(notation.strings.of(content))
    except ValueError as error:
        raise SchemaError(path, f"{error}: leave it out") from None


def pattern_node(pattern: str, path: str) -> Node:
    """The texts in which a pattern of ECMA 262 matches.

    Raises:
        SchemaError: it cannot be enforced.
    """
    try:
        return _searched(pattern)
    except PatternError as error:
        raise SchemaError(path, f"{pattern!r:.60}: {error}") from None


def length_bounds(flat: Flat, low: str, high: str) -> tuple[int, int | None]:
    """(least, most) of two keywords that count.

    Raises:
        SchemaError: they exclude each other or are too large.
    """
    least, most = flat.get(low, 0), flat.get(high)
    if least > LONGEST:
        raise SchemaError(flat.at(low), f"at most {LONGEST} can be enforced, got {least}")
    if most is not None and least > most:
        raise Unfit(flat.at(low), f"{least} is more than {high}, {most}: lower it")
    # Less than what is allowed is written where that is more than anybody reads.
    return least, None if most is None else min(most, LONGEST)


@lru_cache(256)
def _searched(pattern: str) -> Node:
    return anywhere(pattern, ecma=True)


@lru_cache(256)
def _content(patterns: tuple[str, ...], formats: tuple[str, ...], path: str) -> Node:
    first, *others = [*(pattern_node(pattern, path) for pattern in patterns), *map(of_format, formats)]
    for other in others:
        first = Both(first, other)
    return first


def _of_length(content: Node, least: int, most: int | None, flat: Flat) -> Node:
    if least == 0 and most is None:
        return content
    found = limited(content, least, most)
    if _counts(found, content) and (most is None or most > COUNTED):
        if least > COUNTED:
            raise SchemaError(flat.at("minLength"), f"at most {COUNTED} can be enforced beside this pattern: lower it")
        found = limited(content, least, COUNTED) if most is not None or least else content
    if found is None:
        raise Unfit(
            flat.at("maxLength" if most is not None and most < lengths(content)[0] else "minLength"),
            "no text of this length fits its pattern or format: change one of them",
        )
    return found


def _counts(found: Node | None, content: Node) -> bool:
    """Whether a limit has become one automaton beside another."""
    match found:
        case None:
            return False
        case Both():
            return found is not content
        case _:
            parts = getattr(found, "parts", ())
            before = getattr(content, "parts", ())
            return any(isinstance(part, Both) and not any(part is other for other in before) for part in parts)
