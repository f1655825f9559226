"""Text that spells no call: what a reply is held to where it may make none."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from redraft.core.automaton import DEAD
from redraft.text.grammar.nfa import BYTES, SYMBOLS

_WORD = b"call"
_SPACES = b" \t\n\r\v\f"
# What a call has so far; behind a mark, what stands there is a call or within one.
_NOTHING, _BEGUN, _PARTED, _NAMED, _BEHIND, _MARKED = range(6)


class _State(NamedTuple):
    """`spelled`: letters of "call" that a word has begun with, -1 in others; `found`: what a call has so far."""

    spelled: int = 0
    found: int = _NOTHING


@functools.cache
def spelling_no_call() -> NDArray[np.int32]:
    """[M, 512] from state 0, where a text dies that holds `call:NAME`, or `call: NAME{` or `call: NAME(`: readers take
    them for calls, or for the beginning of one. Behind the first mark it may hold anything."""
    states = {_State(): 0}
    rows = []
    for state in (queue := [_State()]):
        row = np.empty(SYMBOLS, np.int32)
        for symbol in range(SYMBOLS):
            after = _follow(state, symbol)
            if after is not None and after not in states:
                states[after] = len(states)
                queue.append(after)
            row[symbol] = DEAD if after is None else states[after]
        rows.append(row)
    return np.stack(rows)


def _follow(state: _State, symbol: int) -> _State | None:
    if symbol >= BYTES or state.found == _MARKED:
        return _State(-1, _MARKED)
    if symbol == ord(":") and state.spelled == len(_WORD):
        return _State(0, _BEGUN)
    # Bytes of longer characters count as letters, as most of them are.
    if symbol >= 0x80 or chr(symbol).isalnum() or symbol in b"_.-":
        if state.found == _BEGUN:
            return None
        on = 0 <= state.spelled < len(_WORD) and symbol == _WORD[state.spelled]
        return _State(state.spelled + 1 if on else -1, _NAMED if state.found in (_PARTED, _NAMED) else _NOTHING)
    if symbol in {_NAMED: b"{(", _BEHIND: b"{"}.get(state.found, b""):
        return None
    if symbol in _SPACES and state.found != _NOTHING:
        return _State(0, _PARTED if state.found in (_BEGUN, _PARTED) else _BEHIND)
    return _State()
