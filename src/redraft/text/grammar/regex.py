"""Regular expressions that people write, as trees: ECMA 262's, as schemas have them, and that of Rust and Python.

Literals, escapes, classes, groups, alternatives, counts (lazy ones hold the same texts), anchors at the ends, general
categories and look-ahead at the beginning are read. Other look-around, back references, word boundaries and whatever
else is not a set of texts is an error that says what to write instead. Source: ECMA 262, section 22.2.1, with annex B;
the syntax pages of Rust's `regex` and Python's `re`.
"""

from __future__ import annotations

import re

from redraft.text.grammar.anchored import Anchored, PatternError, alternatives, behind, repeated
from redraft.text.grammar.build import ANY, any_of, sequence
from redraft.text.grammar.classes import Class, dot
from redraft.text.grammar.escapes import Escapes
from redraft.text.grammar.looks import ahead
from redraft.text.grammar.nodes import NOTHING, Chars, Node, Repeat, Text
from redraft.text.grammar.sets import Ranges, in_any_case, of

LONGEST, DEEPEST, MOST_TIMES = 20_000, 50, 100_000
_COUNT = re.compile(r"\{(\d*)(?:(,)(\d*))?\}", re.ASCII)
_NAME = re.compile(r"\?(?:P?<(?![=!])[^>]*>)")
_FLAGS = re.compile(r"\?([A-Za-z]*)(?:-([A-Za-z]*))?([:)])")
_LOOKS = ("?=", "?!", "?<=", "?<!")


def whole(pattern: str, *, ecma: bool = False) -> Node:
    """The texts that match a pattern from their beginning to their end.

    Raises:
        PatternError: a pattern that cannot be read or cannot be enforced.
    """
    return any_of(node for node in _Parser(pattern, ecma, search=False).all().forms.values())


def anywhere(pattern: str, *, ecma: bool = True) -> Node:
    """The texts in which a pattern matches somewhere.

    Raises:
        PatternError: a pattern that cannot be read or cannot be enforced.
    """
    around = Repeat(ANY)
    found = _Parser(pattern, ecma, search=True).all().forms
    return any_of(
        sequence([NOTHING if starts else around, node, NOTHING if ends else around])
        for (starts, ends), node in found.items()
    )


class _Parser(Escapes):
    """One pattern, from its beginning on; `place` is the next character's, `search` whether it may match anywhere."""

    def __init__(self, pattern: str, ecma: bool, *, search: bool) -> None:
        super().__init__(pattern, ecma)
        self.search = search

    def all(self) -> Anchored:
        """The pattern's texts."""
        if len(self.pattern) > LONGEST:
            raise PatternError(f"has {len(self.pattern)} characters: at most {LONGEST} can be read")
        if not self.ecma and (flags := _FLAGS.match(self.pattern, 1)) and self.pattern[0] == "(" and flags[3] == ")":
            self.take_flags(flags)
            self.place = flags.end()
        found = self.looked_ahead() if self.looks() else self.choice(0)
        if self.place < len(self.pattern):
            raise PatternError("its parentheses do not match: write \\) for the character")
        if not found.forms:
            raise PatternError("matches no text at all")
        return found

    def looks(self) -> bool:
        """Whether a look-ahead stands at the beginning, where the pattern begins with the text."""
        anchored = self.pattern.startswith("^", self.place)
        place = self.place + anchored
        return (anchored or not self.search) and self.pattern.startswith(("(?=", "(?!"), place)

    def looked_ahead(self) -> Anchored:
        self.took("^")
        looks: list[tuple[bool, Anchored]] = []
        while self.pattern.startswith(("(?=", "(?!"), self.place):
            self.place += 3
            looks.append((self.pattern[self.place - 1] == "!", self.choice(1)))
            if not self.took(")"):
                raise PatternError("its parentheses do not match: one is not closed")
        rest = self.row(0)
        if self.pattern.startswith("|", self.place):
            raise PatternError("alternatives behind a look-ahead cannot be enforced: put them in parentheses")
        around = Repeat(ANY) if self.search else NOTHING
        texts = any_of(sequence([node, NOTHING if ends else around]) for (_, ends), node in rest.forms.items())
        for negative, look in looks:
            texts = ahead(texts, look, negative=negative)
        return Anchored({(True, True): texts})

    def choice(self, depth: int) -> Anchored:
        if depth > DEEPEST:
            raise PatternError(f"its groups nest more than {DEEPEST} deep: flatten it")
        branches = [self.row(depth)]
        while self.took("|"):
            branches.append(self.row(depth))
        return alternatives(branches)

    def row(self, depth: int) -> Anchored:
        parts: list[Anchored] = []
        while self.place < len(self.pattern) and self.pattern[self.place] not in "|)":
            parts.append(self.counted(self.one(depth)))
        return behind(parts)

    def counted(self, part: Anchored) -> Anchored:
        bounds = self.count()
        if bounds is None:
            return part
        if self.place < len(self.pattern) and self.pattern[self.place] == "+" and not self.ecma:
            raise PatternError("a possessive count, with + behind it, cannot be enforced: leave that + out")
        self.took("?")
        if self.count() is not None:
            raise PatternError("has two counts behind each other: put the first into parentheses")
        return repeated(part, *bounds)

    def count(self) -> tuple[int, int | None] | None:
        for sign, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self.took(sign):
                return bounds
        found = _COUNT.match(self.pattern, self.place)
        # Both dialects take braces that are no count for themselves; only one knows a count without its first number.
        if not found or (not found[1] and (self.ecma or not found[3])):
            return None
        self.place = found.end()
        if any(len(digits or "") > 9 or int(digits or 0) > MOST_TIMES for digits in (found[1], found[3])):
            raise PatternError(f"{found[0]}: counts go up to {MOST_TIMES}")
        least = int(found[1] or 0)
        most = least if found[2] is None else int(found[3]) if found[3] else None
        if most is not None and most < least:
            raise PatternError(f"{found[0]}: the second number is the smaller one")
        return least, most

    def one(self, depth: int) -> Anchored:
        character = self.pattern[self.place]
        self.place += 1
        if character == "(":
            return self.group(depth)
        if character == "[":
            return self.chars(self.bracketed())
        if character == ".":
            return self.chars(dot(self.ecma, self.all_lines))
        if character in "^$":
            return Anchored({(character == "^", character == "$"): NOTHING})
        if character == "\\":
            return self.escaped()
        if character in "*+?" or (not self.ecma and character == "{" and _COUNT.match(self.pattern, self.place - 1)):
            raise PatternError(f"{character!r} has nothing before it to repeat: write \\{character} for the character")
        return self.literal(character)

    def group(self, depth: int) -> Anchored:
        kept = self.any_case, self.all_lines
        for look in _LOOKS:
            if self.pattern.startswith(look, self.place):
                raise PatternError(
                    f"look-around, ({look}, cannot be enforced here, only look-ahead right behind ^ at the beginning:"
                    " write out the texts that are meant, as alternatives"
                )
        if found := _NAME.match(self.pattern, self.place):
            self.place = found.end()
        elif found := _FLAGS.match(self.pattern, self.place):
            if found[3] == ")":
                raise PatternError(f"({found[0]} stands inside: flags can stand at the beginning of a pattern alone")
            self.take_flags(found)
            self.place = found.end()
        elif self.pattern.startswith("?", self.place):
            raise PatternError(
                f"({self.pattern[self.place : self.place + 3]} cannot be enforced: write (...), (?:...) or (?<name>...)"
            )
        inside = self.choice(depth + 1)
        if not self.took(")"):
            raise PatternError("its parentheses do not match: one is not closed")
        self.any_case, self.all_lines = kept
        return inside

    def take_flags(self, found: re.Match[str]) -> None:
        """Takes what flags change; `u` is what is done anyway, and captures do not matter."""
        for letters, on in ((found[1], True), (found[2] or "", False)):
            for letter in letters:
                if letter == "i":
                    self.any_case = on
                elif letter == "s":
                    self.all_lines = on
                elif letter != "u" or not on:
                    raise PatternError(f"the flag {letter!r} cannot be enforced: i and s can")

    def escaped(self) -> Anchored:
        if self.place >= len(self.pattern):
            raise PatternError("ends with a backslash: write \\\\ for the character")
        letter = self.pattern[self.place]
        if letter in "bB" and not self.pattern.startswith("b{", self.place):
            raise PatternError(
                f"the word boundary \\{letter} cannot be enforced: write the characters that stand there, as \\s or ^"
            )
        if letter in "AzZ" and not self.ecma:
            self.place += 1
            return Anchored({(letter == "A", letter != "A"): NOTHING})
        if letter in "123456789" or (letter == "k" and self.pattern.startswith("k<", self.place)):
            raise PatternError(f"the back reference \\{letter} cannot be enforced: write the group's pattern again")
        found = self.escape()
        return self.literal(found) if isinstance(found, str) else self.chars(found)

    def literal(self, character: str) -> Anchored:
        if not of(character):
            raise PatternError(f"the character {character!r} cannot be written: leave it out")
        if self.any_case:
            return self.chars(Class.exactly(of(character)))
        return Anchored.plain(Text(character))

    def chars(self, found: Class) -> Anchored:
        return _of_set(in_any_case(found.inner) if self.any_case else found.inner)


def _of_set(one: Ranges) -> Anchored:
    if not one:
        return alternatives(())
    if len(one) == 1 and one[0][0] == one[0][1]:
        return Anchored.plain(Text(chr(one[0][0])))
    return Anchored.plain(Chars(one))
