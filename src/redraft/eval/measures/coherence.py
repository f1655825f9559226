"""Whether a text holds together, as far as its words alone can say: repetition, doubled words and spans, brackets.

Source: the share of repeated n-grams is seq-rep-n of Welleck et al. 2019, arXiv 1908.04319.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

# Letters with apostrophes inside, numbers, single signs.
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*|\d+(?:[.,]\d+)*|[^\w\s]|_")
_SPAN = (2, 8)
_BRACKETS = {")": "(", "]": "[", "}": "{"}
_QUOTES = {"\u201d": "\u201c"}
_FENCE = "```"


def words_of(text: str) -> list[str]:
    """A text's words, folded: letters with inner apostrophes, numbers, single signs."""
    return [word.casefold() for word in _WORD.findall(text)]


def repetition(words: Sequence[str], n: int) -> float:
    """1 less the share of n-grams that are no repetition of another; 0 where there are none."""
    grams = [tuple(words[place : place + n]) for place in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def doubled_words(words: Sequence[str]) -> list[int]:
    """Places of words, of letters, that equal the one before."""
    return [place for place in range(1, len(words)) if words[place] == words[place - 1] and words[place][0].isalpha()]


def doubled_spans(words: Sequence[str]) -> list[int]:
    """Places where two to eight words, one of letters among them, are said a second time at once."""
    return list(_doubled(words))


def _doubled(words: Sequence[str]) -> Iterator[int]:
    place = 0
    while place < len(words):
        for size in range(min(_SPAN[1], place), _SPAN[0] - 1, -1):
            span = words[place : place + size]
            # A word that is doubled by itself is no span.
            if span == words[place - size : place] and len(set(span)) > 1 and any(word[0].isalpha() for word in span):
                yield place
                place += size
                break
        else:
            place += 1


def is_unbalanced(text: str, *, quotes: bool = True) -> bool:
    """Whether a bracket has no partner, or a fence of code; or, where they are looked at, a curly quote."""
    partners = _BRACKETS | (_QUOTES if quotes else {})
    opened: list[str] = []
    for sign in text:
        if sign in partners.values():
            opened.append(sign)
        elif sign in partners and (not opened or opened.pop() != partners[sign]):
            return True
    return bool(opened) or text.count(_FENCE) % 2 == 1


def measure(text: str) -> dict[str, float]:
    """All of one text: `words`, `rep_2`, `rep_4`, `doubled_words` and `doubled_spans` (per 1,000 words), `doubled`
    (whether there is any of the two) and `unbalanced`."""
    words = words_of(text)
    singles, spans = doubled_words(words), doubled_spans(words)
    a_thousand = 1000 / max(1, len(words))
    return {
        "words": float(len(words)),
        "rep_2": repetition(words, 2),
        "rep_4": repetition(words, 4),
        "doubled_words": len(singles) * a_thousand,
        "doubled_spans": len(spans) * a_thousand,
        "doubled": float(bool(singles or spans)),
        "unbalanced": float(is_unbalanced(text)),
    }
