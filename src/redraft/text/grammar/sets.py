"""Sets of code points, as the ascending, disjoint ranges that `Chars` holds.

Surrogates and marks are in none of them: texts hold no surrogates, and marks are special tokens.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable
from functools import cache

Ranges = tuple[tuple[int, int], ...]
LAST = 0x10FFFF
ALL: Ranges = ((0, 0xD7FF), (0xE100, LAST))
_LAST_LETTER = 0x40000
# Between these are scripts without case.
_CASED = range(0x2E80), range(0xA640, 0xAC00), range(0xFB00, 0x10000), range(0x10400, 0x1F200)


def ranges(pairs: Iterable[tuple[int, int]]) -> Ranges:
    """The set of these ranges, in any order and overlapping, without surrogates and marks."""
    return intersection(_merged(pairs), ALL)


def _merged(pairs: Iterable[tuple[int, int]]) -> Ranges:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(pairs):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(merged[-1][1], last)
        else:
            merged.append((first, last))
    return tuple(merged)


def of(characters: str) -> Ranges:
    """The set of these characters."""
    return ranges((ord(character), ord(character)) for character in characters)


def union(*sets: Ranges) -> Ranges:
    """What is in any of the sets."""
    return ranges(pair for one in sets for pair in one)


def intersection(one: Ranges, other: Ranges) -> Ranges:
    """What is in both sets."""
    found, i, j = [], 0, 0
    while i < len(one) and j < len(other):
        first, last = max(one[i][0], other[j][0]), min(one[i][1], other[j][1])
        if first <= last:
            found.append((first, last))
        if one[i][1] < other[j][1]:
            i += 1
        else:
            j += 1
    return tuple(found)


def complement(one: Ranges) -> Ranges:
    """Every other character."""
    gaps, start = [], 0
    for first, last in one:
        if start < first:
            gaps.append((start, first - 1))
        start = last + 1
    if start <= LAST:
        gaps.append((start, LAST))
    return ranges(gaps)


def difference(one: Ranges, other: Ranges) -> Ranges:
    """What is in the first set and not in the second."""
    return intersection(one, complement(other))


def holds(one: Ranges, code_point: int) -> bool:
    """Whether a code point is in a set."""
    place = bisect_right(one, (code_point, LAST + 1)) - 1
    return place >= 0 and one[place][1] >= code_point


@cache
def matching(pattern: str) -> Ranges:
    """Every letter or digit that a class of Python's `re` holds."""
    text = "".join(map(chr, range(_LAST_LETTER)))
    return ranges((found.start(), found.end() - 1) for found in re.finditer(f"(?:{pattern})+", text))


@cache
def categories() -> dict[str, Ranges]:
    """The set of each general category, and of its first letter."""
    runs: dict[str, list[tuple[int, int]]] = {}
    start, running = 0, unicodedata.category(chr(0))
    for point in range(1, LAST + 2):
        kind = unicodedata.category(chr(point)) if point <= LAST else ""
        if kind != running:
            runs.setdefault(running, []).append((start, point - 1))
            start, running = point, kind
    found = {kind: ranges(pairs) for kind, pairs in runs.items()}
    for letter in {kind[0] for kind in found}:
        found[letter] = union(*(found[kind] for kind in runs if kind[0] == letter))
    return found


@cache
def _cases() -> tuple[Ranges, ...]:
    """Characters that differ in case alone, more than one each."""
    groups: dict[str, set[str]] = {}
    for character in (chr(point) for part in _CASED for point in part):
        folded = character.casefold()
        if len(folded) == 1 and folded != character:
            groups.setdefault(folded, {folded}).add(character)
    return tuple(of("".join(group)) for group in groups.values())


def in_any_case(one: Ranges) -> Ranges:
    """The set with each of its characters in upper and lower case."""
    return union(one, *(group for group in _cases() if any(holds(one, point) for point, _ in _points(group))))


def _points(group: Ranges) -> list[tuple[int, int]]:
    return [(point, point) for first, last in group for point in range(first, last + 1)]
