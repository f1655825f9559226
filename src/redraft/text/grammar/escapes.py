"""Escapes and bracketed classes of regular expressions."""

from __future__ import annotations

import re
import string

from redraft.text.grammar.anchored import PatternError
from redraft.text.grammar.classes import POSIX, Class, category, shorthand
from redraft.text.grammar.sets import in_any_case, intersection, of, ranges

_CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v"}
_CODE = re.compile(
    r"x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|[ux]\{([0-9A-Fa-f]{1,8})\}|c([A-Za-z])|(0)(?!\d)"
)
_LOW_HALF = re.compile(r"\\u([dD][c-fC-F][0-9A-Fa-f]{2})")
_PROPERTY = re.compile(r"[pP](?:\{([^{}]*)\}|([A-Z]))")
_POSIX = re.compile(r"\[:(\^?)([a-z]+):\]")
_CLASSES_DEEP = 8
# Letters behind a backslash that would be taken for themselves although something else is meant.
_LETTERS = set(string.ascii_letters + string.digits)


class Escapes:
    """A pattern that is read.

    Attributes:
        pattern, ecma: what is read, and in which dialect.
        place: of the next character.
        any_case, all_lines: flags that hold there.
    """

    def __init__(self, pattern: str, ecma: bool) -> None:
        self.pattern, self.ecma = pattern, ecma
        self.place, self.any_case, self.all_lines = 0, False, False

    def took(self, character: str) -> bool:
        """Whether this character stands next; it is read then."""
        found = self.pattern.startswith(character, self.place)
        self.place += found * len(character)
        return found

    def escape(self) -> str | Class:
        """What stands behind a backslash: a character or a class."""
        letter = self.pattern[self.place]
        if found := _CODE.match(self.pattern, self.place):
            self.place = found.end()
            return self._character(found)
        if letter in "pP" and (found := _PROPERTY.match(self.pattern, self.place)):
            self.place = found.end()
            named = category(found[1] or found[2])
            if named is None:
                raise PatternError(f"\\{found[0]} cannot be enforced: general categories can, as \\p{{L}} or \\p{{Lu}}")
            return named.negated if letter == "P" else named
        self.place += 1
        if letter in "dDwWsS":
            return shorthand(letter, self.ecma)
        if letter in _CONTROLS:
            return _CONTROLS[letter]
        if letter == "a" and not self.ecma:
            return "\a"
        if letter in _LETTERS:
            raise PatternError(f"the escape \\{letter} is not known: leave the backslash out for the character")
        return letter

    def _character(self, found: re.Match[str]) -> str:
        if found[5]:
            return chr(ord(found[5]) % 32)
        if found[6]:
            return "\0"
        point = int(found[1] or found[2] or found[3] or found[4], 16)
        if 0xD800 <= point <= 0xDBFF and (low := _LOW_HALF.match(self.pattern, self.place)):
            self.place = low.end()
            point = 0x10000 + ((point - 0xD800) << 10) + int(low[1], 16) - 0xDC00
        if point > 0x10FFFF or 0xD800 <= point <= 0xDFFF:
            raise PatternError(f"\\{found[0]} is no character")
        return chr(point)

    def bracketed(self, depth: int = 0) -> Class:
        """The class of a bracket whose opening has been read."""
        if depth > _CLASSES_DEEP:
            raise PatternError(f"its classes nest more than {_CLASSES_DEEP} deep")
        negated = self.took("^")
        found, kept, first = Class((), ()), None, True
        while not self._closes(first):
            if not self.ecma and self.took("&&"):
                kept, found = _both(kept, found), Class((), ())
            elif not self.ecma and any(self.pattern.startswith(sign, self.place) for sign in ("--", "~~")):
                raise PatternError("-- and ~~ in a class cannot be enforced: write out what is left")
            else:
                found = found.joined(self._item(depth))
            first = False
        found = _both(kept, found)
        if self.any_case:
            found = Class(in_any_case(found.inner), in_any_case(found.outer))
        return found.negated if negated else found

    def _closes(self, first: bool) -> bool:
        if self.place >= len(self.pattern):
            raise PatternError("a bracket is not closed: write \\[ for the character")
        # A bracket that closes at once stands for itself, but in ECMA.
        return (self.ecma or not first) and self.took("]")

    def _item(self, depth: int) -> Class:
        if not self.ecma and (found := _POSIX.match(self.pattern, self.place)):
            self.place = found.end()
            if found[2] not in POSIX:
                raise PatternError(f"{found[0]} is no class: {', '.join(POSIX)}")
            inner = Escapes(POSIX[found[2]] + "]", True).bracketed()
            return inner.negated if found[1] else inner
        if not self.ecma and self.took("["):
            return self.bracketed(depth + 1)
        low = self._end()
        dashed = self.pattern.startswith("-", self.place) and not self.pattern.startswith("-]", self.place)
        if isinstance(low, Class) or not dashed or (not self.ecma and self.pattern.startswith("--", self.place)):
            return low if isinstance(low, Class) else Class.exactly(of(low))
        self.place += 1
        high = self._end()
        if isinstance(high, Class):
            return Class.exactly(of(low + "-")).joined(high)
        if high < low:
            raise PatternError(f"the range {low}-{high} runs backwards")
        return Class.exactly(ranges([(ord(low), ord(high))]))

    def _end(self) -> str | Class:
        if self.place >= len(self.pattern):
            raise PatternError("a bracket is not closed: write \\[ for the character")
        character = self.pattern[self.place]
        self.place += 1
        if character != "\\":
            return character
        if self.place >= len(self.pattern):
            raise PatternError("ends with a backslash: write \\\\ for the character")
        if self.took("b"):
            return "\b"
        return self.escape()


def _both(one: Class | None, other: Class) -> Class:
    if one is None:
        return other
    return Class(intersection(one.inner, other.inner), intersection(one.outer, other.outer))
