"""Deterministic automata over bytes, and the few operations on them that constraints need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redraft.core.automaton import DEAD
from redraft.core.errors import OptionError

# Symbols: 256 bytes, then 256 marks, which are special tokens.
BYTES, SYMBOLS = 256, 512
FIRST_MARK = 0xE000
MAX_PRODUCT = 4_000_000
MOST_ROUNDS = 300

Symbols = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class ByteAutomaton:
    """Every state can be reached and can still end.

    Attributes:
        next: [S, 512] the state that follows each byte, and each mark, `DEAD` where none does.
        start: the state before the first byte.
        final: [S] states in which a text may end.
    """

    next: NDArray[np.int32]
    start: int
    final: NDArray[np.bool_]


def symbols(text: str) -> Symbols:
    """A text as the automaton reads it: private-use characters are marks."""
    found: list[int] = []
    for character in text:
        mark = ord(character) - FIRST_MARK
        found += [BYTES + mark] if 0 <= mark < SYMBOLS - BYTES else character.encode()
    return tuple(found)


def either(one: ByteAutomaton, other: ByteAutomaton) -> ByteAutomaton:
    """The texts of both automata, no two of which begin with the same symbol."""
    S = len(one.next)
    moved = np.where(other.next == DEAD, DEAD, other.next + S)
    first, second = one.next[one.start], moved[other.start]
    assert not ((first != DEAD) & (second != DEAD)).any(), "the first symbol decides"
    start = np.where(first != DEAD, first, second)
    final = np.r_[one.final, other.final, one.final[one.start] | other.final[other.start]]
    return trimmed(np.vstack([one.next, moved, start]).astype(np.int32), S + len(moved), final)


def behind(prefix: ByteAutomaton, body: ByteAutomaton) -> ByteAutomaton:
    """The texts of `body` behind those of `prefix`, none of which begins another."""
    S = len(prefix.next)
    assert (prefix.next[prefix.final] == DEAD).all(), "where a prefix ends, nothing else goes on"
    moved = np.where(body.next == DEAD, DEAD, body.next + S)
    ends = np.isin(prefix.next, np.flatnonzero(prefix.final))
    table = np.vstack([np.where(ends, S + body.start, prefix.next), moved])
    return trimmed(table.astype(np.int32), prefix.start, np.r_[np.zeros(S, np.bool_), body.final])


def trimmed(table: NDArray[np.int32], start: int, final: NDArray[np.bool_]) -> ByteAutomaton:
    """Without the states that cannot be reached or cannot end.

    Raises:
        OptionError: nothing is left: no text matches.
    """
    source, byte = np.nonzero(table != DEAD)
    target = table[source, byte]
    useful = _closure(final.copy(), target, source) & _closure(_one(len(table), start), source, target)
    if not useful[start]:
        raise OptionError("response_format: no text can match it")
    number = np.where(useful, np.cumsum(useful) - 1, DEAD).astype(np.int32)
    kept = table[useful]
    kept = np.where(kept == DEAD, DEAD, number[kept])
    return ByteAutomaton(kept.astype(np.int32), int(number[start]), final[useful])


def minimal(automaton: ByteAutomaton) -> ByteAutomaton:
    """The same texts with the fewest states: those from which the same texts may follow become one.

    Source: Moore's partition refinement, begun from the distances to an end, which part most states at once. Where it
    takes too many rounds, the automaton stays as it is.
    """
    kind, first = _columns(automaton.next)
    table = automaton.next[:, first]
    weights = _weights(table.shape[1] + 1)
    part = _distances(table, automaton.final).astype(np.int64)
    count = len(np.unique(part))
    for _ in range(MOST_ROUNDS):
        # The dead state is a part of its own, the last.
        following = np.append(part, len(part) + 1).astype(np.uint64)[table]
        mark = part.astype(np.uint64) * weights[-1] + (following * weights[:-1]).sum(axis=1)
        _, example, part = np.unique(mark, return_index=True, return_inverse=True)
        if len(example) == count:
            merged = np.append(part, DEAD)[table[example]][:, kind]
            return ByteAutomaton(merged.astype(np.int32), int(part[automaton.start]), automaton.final[example])
        count = len(example)
    return automaton


def without(automaton: ByteAutomaton, words: Iterable[str]) -> ByteAutomaton:
    """The texts of an automaton in which none of these words is spelled."""
    spelled = [symbols(word) for word in words]
    matcher = Matcher(spelled)
    table = np.zeros((len(matcher.begun), SYMBOLS), np.int32)
    for begin, place in matcher.begun.items():
        for symbol in {symbol for word in spelled for symbol in word}:
            rest, ended = matcher.step(begin, symbol)
            table[place, symbol] = DEAD if ended else matcher.begun[rest]
    return product(automaton, table)


class Matcher:
    """Finds words in a text, symbol by symbol. A state is the longest end of the text that begins one of them.

    Source: Aho and Corasick 1975.
    """

    def __init__(self, words: list[Symbols]) -> None:
        self.words = words
        # The empty beginning sorts first.
        self.begun = {text: n for n, text in enumerate(sorted({word[:n] for word in words for n in range(len(word))}))}

    def step(self, begin: Symbols, symbol: int) -> tuple[Symbols, list[Symbols]]:
        """(the next state, the words that end with this symbol)."""
        text = (*begin, symbol)
        rest = next(text[i:] for i in range(len(text) + 1) if text[i:] in self.begun)
        return rest, [word for word in self.words if text[-len(word) :] == word]


def product(automaton: ByteAutomaton, table: NDArray[np.int32]) -> ByteAutomaton:
    """The texts of an automaton on which a second one, from its state 0, never dies; only pairs that are reached.

    Raises:
        OptionError: there are too many.
    """
    M = len(table)
    if len(automaton.next) * M > MAX_PRODUCT:
        raise OptionError("tools: the calls need too many states: declare fewer arguments")
    kind, first = _columns(np.vstack([automaton.next, table]))
    left, right = automaton.next[:, first].astype(np.int64), table[:, first].astype(np.int64)
    number = np.full(len(left) * M, DEAD, np.int64)
    frontier = np.array([automaton.start * M])
    number[frontier], pairs, rows = 0, [frontier], []
    while len(frontier):
        one, other = left[frontier // M], right[frontier % M]
        rows.append(np.where((one == DEAD) | (other == DEAD), DEAD, one * M + other))
        reached = np.unique(rows[-1])
        frontier = reached[(reached != DEAD) & (number[reached] == DEAD)]
        number[frontier] = sum(map(len, pairs)) + np.arange(len(frontier))
        pairs.append(frontier)
    pair = np.concatenate(rows)
    numbered = np.where(pair == DEAD, DEAD, number[pair])
    final = automaton.final[np.concatenate(pairs) // M]
    return minimal(trimmed(numbered[:, kind].astype(np.int32), 0, final))


def _columns(table: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """([512] the group of each symbol, an example of each group): symbols with equal columns are one group."""
    marks = (table.astype(np.int64).view(np.uint64) * _weights(len(table))[:, None]).sum(axis=0)
    _, first, kind = np.unique(marks, return_index=True, return_inverse=True)
    return kind, first


def _weights(count: int) -> NDArray[np.uint64]:
    """Odd 64-bit numbers for sums that tell rows apart; always the same."""
    return np.random.default_rng(0).integers(0, 2**64, count, np.uint64) | np.uint64(1)


def _distances(table: NDArray[np.int32], final: NDArray[np.bool_]) -> NDArray[np.int64]:
    """[S] symbols to the nearest end."""
    source, column = np.nonzero(table != DEAD)
    target = table[source, column]
    distance = np.where(final, 0, len(table))
    steps = 0
    while True:
        near = source[distance[target] == steps]
        near = near[distance[near] > steps + 1]
        if not len(near):
            return distance
        steps += 1
        distance[near] = steps


def _one(count: int, place: int) -> NDArray[np.bool_]:
    marked = np.zeros(count, np.bool_)
    marked[place] = True
    return marked


def _closure(marked: NDArray[np.bool_], source: NDArray, target: NDArray) -> NDArray[np.bool_]:
    """The marked states and all that edges lead to from them."""
    while True:
        grown = marked.copy()
        grown[target[marked[source]]] = True
        if (grown == marked).all():
            return marked
        marked = grown
