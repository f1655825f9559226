r"""What `\d`, `\w`, `\s`, `.` and `\p{...}` stand for.

Each stands for two sets, for dialects and their readers differ: `inner` is what all of them take, and is written;
`outer` is what any of them takes, and is left out where the class is negated. In ECMA 262 digits and letters are ASCII
and blanks are all of Unicode's with U+FEFF; readers in Python take all digits and letters, and not U+FEFF. In the
dialect of Rust and Python digits, letters and blanks are all of Unicode's; marks are letters in Rust alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from redraft.text.grammar.sets import ALL, Ranges, categories, complement, difference, matching, of, ranges, union

_LONG_NAMES = {
    "Letter": "L", "Cased_Letter": "LC", "Uppercase_Letter": "Lu", "Lowercase_Letter": "Ll", "Titlecase_Letter": "Lt",
    "Modifier_Letter": "Lm", "Other_Letter": "Lo", "Mark": "M", "Nonspacing_Mark": "Mn", "Spacing_Mark": "Mc",
    "Enclosing_Mark": "Me", "Number": "N", "Decimal_Number": "Nd", "Letter_Number": "Nl", "Other_Number": "No",
    "Punctuation": "P", "Connector_Punctuation": "Pc", "Dash_Punctuation": "Pd", "Open_Punctuation": "Ps",
    "Close_Punctuation": "Pe", "Initial_Punctuation": "Pi", "Final_Punctuation": "Pf", "Other_Punctuation": "Po",
    "Symbol": "S", "Math_Symbol": "Sm", "Currency_Symbol": "Sc", "Modifier_Symbol": "Sk", "Other_Symbol": "So",
    "Separator": "Z", "Space_Separator": "Zs", "Line_Separator": "Zl", "Paragraph_Separator": "Zp", "Other": "C",
    "Control": "Cc", "Format": "Cf", "Private_Use": "Co", "Unassigned": "Cn",
}  # fmt: skip
_BLANKS = union(of("\t\n\v\f\r \u00a0\u1680\u2028\u2029\u202f\u205f\u3000"), ((0x2000, 0x200A),))
_CIRCLED: Ranges = ((0x24B6, 0x24E9), (0x1F130, 0x1F149), (0x1F150, 0x1F169), (0x1F170, 0x1F189))
_ASCII_DIGITS: Ranges = ((0x30, 0x39),)
_ASCII_WORD = of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
POSIX = {
    "alpha": "A-Za-z", "digit": "0-9", "alnum": "A-Za-z0-9", "upper": "A-Z", "lower": "a-z", "xdigit": "0-9A-Fa-f",
    "space": r"\t\n\v\f\r ", "blank": r"\t ", "punct": r"!-/:-@\[-`{-~", "cntrl": r"\x00-\x1f\x7f", "print": " -~",
    "graph": "!-~", "word": "A-Za-z0-9_", "ascii": r"\x00-\x7f",
}  # fmt: skip


@dataclass(frozen=True)
class Class:
    """A set as it is written, and as it is left out where it is negated."""

    inner: Ranges
    outer: Ranges

    @property
    def negated(self) -> Class:
        """Every other character."""
        return Class(complement(self.outer), complement(self.inner))

    @classmethod
    def exactly(cls, one: Ranges) -> Class:
        """A set that everybody reads alike."""
        return cls(one, one)

    def joined(self, other: Class) -> Class:
        """What is in either."""
        return Class(union(self.inner, other.inner), union(self.outer, other.outer))


@cache
def shorthand(letter: str, ecma: bool) -> Class:
    r"""The class of `\d`, `\w`, `\s` and of their negations in capitals."""
    if letter.isupper():
        return shorthand(letter.lower(), ecma).negated
    if letter == "d":
        return Class(_ASCII_DIGITS if ecma else matching(r"\d"), matching(r"\d"))
    if letter == "w":
        letters = matching(r"\w")
        if ecma:
            return Class(_ASCII_WORD, letters)
        marks = union(categories()["M"], categories()["Pc"], categories()["Nl"], of("\u200c\u200d"))
        return Class(difference(letters, categories()["No"]), union(letters, marks, _CIRCLED))
    if ecma:
        return Class(_BLANKS, union(_BLANKS, of("\x1c\x1d\x1e\x1f\x85\ufeff")))
    return Class(union(_BLANKS, of("\x85")), union(_BLANKS, of("\x1c\x1d\x1e\x1f\x85")))


def dot(ecma: bool, all_lines: bool) -> Class:
    """The class of `.`: no line's end, or anything."""
    if all_lines:
        return Class.exactly(ALL)
    ends = of("\n\r\u2028\u2029") if ecma else of("\n")
    return Class(complement(ends), complement(of("\n")))


def category(name: str) -> Class | None:
    r"""The class of `\p{name}`, a general category; None where it is none."""
    for start in ("General_Category=", "gc="):
        name = name.removeprefix(start)
    if name in ("Any", "ASCII"):
        return Class.exactly(ALL if name == "Any" else ranges([(0, 127)]))
    short = _LONG_NAMES.get(name, name)
    if short in ("LC", "L&"):
        return Class.exactly(union(*(categories()[kind] for kind in ("Lu", "Ll", "Lt"))))
    found = categories().get(short)
    return Class.exactly(found) if found else None
