"""A regular expression as an automaton over bytes, and the few operations on such automata that constraints need."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from outlines_core import Index, Vocabulary

from redraft.core.automaton import DEAD
from redraft.core.errors import OptionError

MAX_STATES = 50_000
# Parts of a pattern once its counts are written out.
LARGEST = 60_000
# Symbols: 256 bytes, then 256 marks, which are special tokens.
BYTES, SYMBOLS = 256, 512
FIRST_MARK = 0xE000
_END = chr(FIRST_MARK + SYMBOLS - BYTES - 1)

Symbols = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class ByteAutomaton:
    """Deterministic; every state can be reached and can still end.

    Attributes:
        next: [S, 512] the state that follows each byte, and each mark, `DEAD` where none does.
        start: the state before the first byte.
        final: [S] states in which a text may end.
    """

    next: NDArray[np.int32]
    start: int
    final: NDArray[np.bool_]


@functools.lru_cache(maxsize=64)
def compile_pattern(pattern: str) -> ByteAutomaton:
    """The automaton of a regular expression that must match a whole text.

    A mark is a special token, and stands only where the pattern names it: `.` and `[^a]` do not mean it.

    Raises:
        OptionError: it is no regular expression, or needs too many states.
    """
    named = _named_marks(pattern)
    if _expanded(pattern) > LARGEST:
        raise OptionError("response_format: the pattern repeats too much: lower its length bounds")
    vocabulary = Vocabulary(BYTES, {bytes([byte]): [byte] for byte in range(BYTES)})
    try:
        # outlines-core drops the way on from a state in which a text may end (`(xay)*` matches one round only), so
        # the only such state is behind a mark that nothing follows. And it looks for literals that begin a pattern,
        # which takes minutes where there are many (a value of any type); behind a class there are none.
        index = Index(f"[\\x00-\\x1f](?:{pattern}){_END}", vocabulary)
    except (ValueError, OverflowError) as error:
        reason = " ".join(re.sub(r"[\ue000-\ue0ff]", "?", str(error)).split())[:200]
        raise OptionError(f"response_format: the pattern cannot be compiled: {reason}") from None
    transitions = index.get_transitions()
    before = index.get_initial_state()
    ids = {transitions[before][0]: 0}
    for state, following in transitions.items():
        if state == before:
            continue
        for target in (state, *following.values()):
            ids.setdefault(target, len(ids))
    if len(ids) > MAX_STATES:
        raise OptionError(f"response_format: the automaton has {len(ids)} states, more than {MAX_STATES}: simplify it")
    table = np.full((len(ids), SYMBOLS), DEAD, np.int32)
    for state, following in transitions.items():
        if state not in ids:
            continue
        for byte, target in following.items():
            if byte < BYTES:
                table[ids[state], byte] = ids[target]
    _mark(table)
    # The mark may also be a character of the text, so that it leads somewhere does not mean an end.
    ended = [ids[state] for state in index.get_final_states()]
    final = np.isin(table[:, SYMBOLS - 1], ended)
    table[:, [mark for mark in range(BYTES, SYMBOLS) if mark not in named]] = DEAD
    return trimmed(*_without_private_use(table, final))


def _named_marks(pattern: str) -> set[int]:
    """Symbols of the marks that a pattern has outside its classes.

    Raises:
        OptionError: it closes more parentheses than it opens, and so would escape from the group that it is put in.
    """
    depth, in_class, named = 0, False, set()
    for token in re.findall(r"\\.|\[\^?\]?|.", pattern, re.DOTALL):
        if in_class:
            in_class = token != "]"
        elif token[0] == "[":
            in_class = True
        else:
            depth += (token == "(") - (token == ")")
            named |= {symbol for symbol in symbols(token) if symbol >= BYTES}
        if depth < 0:
            raise OptionError("response_format: the pattern closes a parenthesis that it did not open")
    return named


def _expanded(pattern: str) -> int:
    """Parts of a pattern with every count written out; a compiler that meets too many takes minutes and gigabytes."""
    sizes, last = [0], 0
    for token in re.findall(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{\d+(?:,\d*)?\}|.", pattern, re.DOTALL):
        if token == "(":
            sizes.append(0)
            continue
        if token == ")" and len(sizes) > 1:
            last = sizes.pop()
        elif token[0] == "{" and len(token) > 1:
            # The part is there once already.
            last *= max(0, max(int(n) for n in re.findall(r"\d+", token)) - 1)
        else:
            last = 1
        sizes[-1] += last
    return sum(sizes)


def symbols(text: str) -> Symbols:
    """A text as the automaton reads it: private-use characters are marks."""
    found: list[int] = []
    for character in text:
        mark = ord(character) - FIRST_MARK
        found += [BYTES + mark] if 0 <= mark < SYMBOLS - BYTES else character.encode()
    return tuple(found)


def _mark(table: NDArray[np.int32]) -> None:
    """Fills in the marks' symbols, from where their characters lead byte by byte."""
    padded = np.vstack([table, np.full((1, SYMBOLS), DEAD, np.int32)])
    for mark in range(SYMBOLS - BYTES):
        state = np.arange(len(table))
        for byte in chr(FIRST_MARK + mark).encode():
            state = padded[state, byte]
        table[:, BYTES + mark] = state


def _without_private_use(
    table: NDArray[np.int32], final: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], int, NDArray[np.bool_]]:
    """No bytes spell a mark: its special token alone does. U+E000 to U+E0FF are EE 80 80 to EE 83 BF in UTF-8."""
    doubled = np.where(table == DEAD, DEAD, table * 2)
    doubled[:, 0xEE] += table[:, 0xEE] != DEAD
    behind = doubled.copy()
    behind[:, 0x80:0x84] = DEAD
    pair = np.stack([doubled, behind], axis=1).reshape(-1, SYMBOLS)
    return pair.astype(np.int32), 0, np.repeat(final, 2)


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


def without(automaton: ByteAutomaton, words: Iterable[str]) -> ByteAutomaton:
    """The texts of an automaton in which none of these words is spelled."""
    spelled = [symbols(word) for word in words]
    suffixes = sorted({word[:n] for word in spelled for n in range(len(word))})
    place = {suffix: i for i, suffix in enumerate(suffixes)}
    table = np.zeros((len(suffixes), SYMBOLS), np.int32)
    known = {symbol for word in spelled for symbol in word}
    for suffix in suffixes:
        for symbol in known:
            text = (*suffix, symbol)
            rest = place[next(text[i:] for i in range(len(text) + 1) if text[i:] in place)]
            table[place[suffix], symbol] = DEAD if any(text[-len(word) :] == word for word in spelled) else rest
    return _product(automaton, table)


@dataclass(frozen=True)
class Once:
    """A part that a text may hold once at most between an opening and a closing, or exactly once.

    Attributes:
        opening, closing: where counting begins and ends.
        items: the spellings of the part.
        required: whether it must be there at the closing.
    """

    opening: str
    items: tuple[str, ...]
    closing: str
    required: bool


def restricted(automaton: ByteAutomaton, rule: Once) -> ByteAutomaton:
    """The texts of an automaton that keep a rule."""
    return _product(automaton, _counter(rule))


def _product(automaton: ByteAutomaton, table: NDArray[np.int32]) -> ByteAutomaton:
    """The texts of an automaton on which a second one, from its state 0, never dies."""
    M = len(table)
    left = np.repeat(automaton.next, M, axis=0)
    right = np.tile(table, (len(automaton.next), 1))
    pair = np.where((left == DEAD) | (right == DEAD), DEAD, left * M + right)
    return trimmed(pair.astype(np.int32), automaton.start * M, np.repeat(automaton.final, M))


def _counter(rule: Once) -> NDArray[np.int32]:
    """[M, 512] follows a text and counts: outside, inside without the part, inside with it.

    A state is that, and the longest end of the text that begins one of the words (Knuth, Morris and Pratt).
    """
    opening, closing = symbols(rule.opening), symbols(rule.closing)
    items = [symbols(item) for item in rule.items]
    suffixes = sorted({word[:n] for word in (opening, closing, *items) for n in range(len(word))})
    place = {suffix: i for i, suffix in enumerate(suffixes)}
    outside, without, holding = 0, 1, 2
    table = np.full((3 * len(suffixes), SYMBOLS), DEAD, np.int32)
    for suffix in suffixes:
        for symbol in range(SYMBOLS):
            text = (*suffix, symbol)
            rest = place[next(text[i:] for i in range(len(text) + 1) if text[i:] in place)]
            opens, closes = text[-len(opening) :] == opening, text[-len(closing) :] == closing
            item = any(text[-len(word) :] == word for word in items)
            for count in (outside, without, holding):
                after = without if opens else outside if closes else holding if item and count else count
                many, missing = item and count == holding, closes and count == without and rule.required
                if not (many or missing):
                    table[count * len(suffixes) + place[suffix], symbol] = after * len(suffixes) + rest
    # The empty suffix sorts first, so state 0 is outside and has read nothing.
    return table


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
