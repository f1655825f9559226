"""A vocabulary's spellings in order, so that all tokens that begin with some bytes are one range."""

from __future__ import annotations

import functools
from bisect import bisect_left
from dataclasses import dataclass

from redraft.text.grammar.nfa import BYTES
from redraft.text.vocabulary import Spellings, Vocabulary

# A byte that no text holds: what follows it is the number of a mark.
MARK = 0xFF


@dataclass(frozen=True, eq=False)
class SortedSpellings:
    """Tokens by what they spell.

    Attributes:
        texts: in order; a special token is `MARK` and its number.
        tokens: the token of each.
    """

    texts: list[bytes]
    tokens: list[int]

    def beginning(self, text: bytes, first: int, last: int) -> tuple[int, int]:
        """The range, within another, of what begins so: `text` is that other's and one more byte."""
        first = bisect_left(self.texts, text, first, last)
        if text[-1] == 0xFF:
            return first, last
        return first, bisect_left(self.texts, text[:-1] + bytes([text[-1] + 1]), first, last)


@functools.lru_cache(maxsize=2)
def sorted_spellings(vocabulary: Vocabulary) -> tuple[SortedSpellings, SortedSpellings]:
    """Of tokens inside a text, and of those at the start of a segment or a line."""
    inside = _sorted(vocabulary, vocabulary.inside)
    return inside, inside if vocabulary.at_start is None else _sorted(vocabulary, vocabulary.at_start)


def _sorted(vocabulary: Vocabulary, spellings: Spellings) -> SortedSpellings:
    marked = vocabulary.marked.tolist()
    found = [(bytes([MARK, mark - BYTES]), token) for token, mark in enumerate(marked) if mark >= 0]
    for token, text in enumerate(spellings.texts()):
        if text is not None and MARK not in text and marked[token] < 0:
            found.append((text, token))
    found.sort()
    return SortedSpellings([text for text, _ in found], [token for _, token in found])
