"""A regular expression as an automaton over bytes."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from redraft.core.automaton import DEAD
from redraft.core.errors import OptionError
from redraft.text.byte_automaton import BYTES, FIRST_MARK, SYMBOLS, ByteAutomaton, minimal, symbols, trimmed

MAX_STATES = 50_000
# Parts of a pattern once its counts are written out.
LARGEST = 60_000
_TOKEN = re.compile(r"\{\d+(?:,\d*)?\}|\\[pPxuU]\{[^}]*\}|\\[pP].|\\.|\[\^?\]?|.|\\", re.DOTALL)
_MARKS = "\ue000-\ue0ff"
_BEGIN = "[\ue0c0-\ue0fd]"
_END = chr(FIRST_MARK + SYMBOLS - BYTES - 1)


@functools.lru_cache(maxsize=64)
def compile_pattern(pattern: str) -> ByteAutomaton:
    """The automaton of a regular expression that must match a whole text.

    A mark is a special token, and stands only where the pattern names it: `.` and `[^a]` do not mean it.

    Raises:
        OptionError: it is no regular expression, or needs too many states.
    """
    # Only here: what is held to nothing is generated without it.
    from outlines_core import Index, Vocabulary

    named = _named_marks(pattern)
    if _expanded(pattern) > LARGEST:
        raise OptionError("response_format: the pattern repeats too much: lower its length bounds")
    vocabulary = Vocabulary(BYTES, {bytes([byte]): [byte] for byte in range(BYTES)})
    try:
        # outlines-core drops the way on from a state in which a text may end (`(xay)*` matches one round only), so
        # the only such state is behind a mark that nothing follows. It looks for literals that begin a pattern, which
        # takes minutes where there are many (a value of any type); behind a class there are none. And it also builds
        # what a search would need, which starts anew wherever the class fits: nowhere, as it has marks only.
        index = Index(f"{_BEGIN}(?:{_without_marks(pattern)}){_END}", vocabulary)
    except (ValueError, OverflowError) as error:
        reason = " ".join(re.sub(r"[\ue000-\ue0ff]", "?", str(error)).split())[:200]
        raise OptionError(f"response_format: the pattern cannot be compiled: {reason}") from None
    transitions = index.get_transitions()
    first, skipped = index.get_initial_state(), set()
    for byte in _BEGIN[1].encode():
        skipped.add(first)
        first = transitions[first][byte]
    ids = {first: 0}
    for state, following in transitions.items():
        if state in skipped:
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
    return minimal(trimmed(*_without_private_use(table, final)))


def _without_marks(pattern: str) -> str:
    """The pattern with classes that hold no marks. One with flags stays as it is: they say what its signs mean."""
    if re.search(r"\(\?(?![:<P])", pattern):
        return pattern
    parts = []
    for token in _tokens(pattern):
        if token == ".":
            parts.append(f"[^\n{_MARKS}]")
        elif token[0] == "[" or re.match(r"\\[DWSpP]", token):
            parts.append(f"[{token}&&[^{_MARKS}]]")
        else:
            parts.append(token)
    return "".join(parts)


def _tokens(pattern: str) -> Iterator[str]:
    """Escapes, classes with the classes in them, and single characters."""
    place = 0
    while place < len(pattern):
        start, depth = place, 0
        while True:
            token = _TOKEN.match(pattern, place)
            assert token
            place = token.end()
            depth += (token[0][0] == "[") - (depth > 0 and token[0] == "]")
            if depth == 0 or place == len(pattern):
                break
        yield pattern[start:place]


def _named_marks(pattern: str) -> set[int]:
    """Symbols of the marks that a pattern has outside its classes.

    Raises:
        OptionError: it closes more parentheses than it opens, and so would escape from the group that it is put in.
    """
    depth, named = 0, set()
    for token in _tokens(pattern):
        depth += (token == "(") - (token == ")")
        if depth < 0:
            raise OptionError("response_format: the pattern closes a parenthesis that it did not open")
        if token[0] != "[":
            named |= {symbol for symbol in symbols(token) if symbol >= BYTES}
    return named


def _expanded(pattern: str) -> int:
    """Parts of a pattern with every count written out; a compiler that meets too many takes minutes and gigabytes."""
    sizes, last = [0], 0
    for token in _tokens(pattern):
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
