"""An automaton that dies where a text spells one of several words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from redraft.core.automaton import DEAD
from redraft.text.grammar.nfa import BYTES, SYMBOLS
from redraft.text.grammar.nodes import FIRST_MARK, MARKS

Symbols = tuple[int, ...]


def symbols(text: str) -> Symbols:
    """A text as automata read it: private-use characters are marks."""
    found: list[int] = []
    for character in text:
        mark = ord(character) - FIRST_MARK
        found += [BYTES + mark] if 0 <= mark < MARKS else character.encode()
    return tuple(found)


def text_of(spelled: Iterable[int]) -> str:
    """The text of symbols, marks as private-use characters."""
    found: list[str] = []
    pending = bytearray()
    for symbol in (*spelled, -1):
        if 0 <= symbol < BYTES:
            pending.append(symbol)
            continue
        found.append(pending.decode("utf-8", "replace"))
        pending.clear()
        if symbol >= 0:
            found.append(chr(FIRST_MARK + symbol - BYTES))
    return "".join(found)


def matcher(words: Iterable[str]) -> NDArray[np.int32]:
    """[M, 512] from state 0: a state is the longest end of the text that begins one of the words.

    Source: Aho and Corasick 1975.
    """
    spelled = [symbols(word) for word in words]
    begun = {text: n for n, text in enumerate(sorted({word[:n] for word in spelled for n in range(len(word))}))}
    known = {symbol for word in spelled for symbol in word}
    table = np.zeros((len(begun), SYMBOLS), np.int32)
    for begin, place in begun.items():
        for symbol in known:
            text = (*begin, symbol)
            ended = any(text[-len(word) :] == word for word in spelled)
            rest = next(text[i:] for i in range(len(text) + 1) if text[i:] in begun)
            table[place, symbol] = DEAD if ended else begun[rest]
    return table


def spelling_one_of(texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """([M, 512] from state 0, [M] which of the texts stands there as a whole, -1 for none); it never dies."""
    whole = {symbols(text): place for place, text in enumerate(texts)}
    begun = sorted({text[:n] for text in whole for n in range(len(text) + 1)})
    number = {text: place for place, text in enumerate(begun)}
    # The last state is where a text is none of them any more.
    table = np.full((len(begun) + 1, SYMBOLS), len(begun), np.int32)
    for text, place in number.items():
        if text:
            table[number[text[:-1]], text[-1]] = place
    return table, np.array([*(whole.get(text, -1) for text in begun), -1])
