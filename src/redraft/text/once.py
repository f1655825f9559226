"""Rules on the arguments of a call: each stands there once at most, and required ones do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redraft.core.automaton import DEAD
from redraft.text.byte_automaton import SYMBOLS, ByteAutomaton, Matcher, Symbols, product, symbols

# Deeper values are refused.
DEEPEST = 12
_OPENING, _CLOSING = symbols("{["), symbols("}]")


@dataclass(frozen=True)
class Once:
    """A part that a text may hold once at most between an opening and a closing, or exactly once.

    What stands in strings, or in brackets inside the opening's own, does not count.

    Attributes:
        opening, closing: where counting begins and ends; the opening's last character is a bracket.
        items: the spellings of the part.
        quote: what strings stand between, one symbol.
        required: whether it must be there at the closing.
    """

    opening: str
    items: tuple[str, ...]
    closing: str
    quote: str
    required: bool


@dataclass(frozen=True)
class _State:
    """Where the text stands: `depth` 0 is outside, 1 among the parts; `begun` is the matcher's state."""

    begun: Symbols = ()
    depth: int = 0
    quoted: bool = False
    holding: bool = False


def restricted(automaton: ByteAutomaton, rule: Once) -> ByteAutomaton:
    """The texts of an automaton that keep a rule."""
    return product(automaton, _counter(rule))


def _counter(rule: Once) -> NDArray[np.int32]:
    """[M, 512] an automaton, from state 0, that dies where a text breaks the rule."""
    opening, closing, quote = symbols(rule.opening), symbols(rule.closing), symbols(rule.quote)
    items = [symbols(item) for item in rule.items]
    matcher = Matcher([opening, closing, *items])
    known = sorted({*opening, *closing, *quote, *_OPENING, *_CLOSING}.union(*items))
    other = next(symbol for symbol in range(SYMBOLS) if symbol not in known)

    def follow(state: _State, symbol: int) -> _State | None:
        begun, ended = matcher.step(state.begun, symbol)
        if state.depth == 0:
            return _State(begun, 1) if opening in ended else _State(begun)
        if closing in ended:
            return None if rule.required and not state.holding else _State(begun)
        quoted = state.quoted != (symbol in quote)
        depth = state.depth
        if not quoted:
            depth += (symbol in _OPENING) - (symbol in _CLOSING)
        if depth > DEEPEST:
            return None
        found = state.depth == 1 and not quoted and any(item in ended for item in items)
        if found and state.holding:
            return None
        return _State(begun if depth <= 1 else (), max(1, depth), quoted, state.holding or found)

    states = {_State(): 0}
    rows = []
    for state in (queue := [_State()]):
        row = np.empty(SYMBOLS, np.int32)
        for symbol in (other, *known):
            after = follow(state, symbol)
            if after is not None and after not in states:
                states[after] = len(states)
                queue.append(after)
            place = slice(None) if symbol == other else symbol
            row[place] = DEAD if after is None else states[after]
        rows.append(row)
    return np.stack(rows)


def parts(text: str, quote: str) -> str:
    """What counts of a call's text from its bracket on: without the strings that are values, and what is nested."""
    kept: list[str] = []
    depth, quoted, is_key = 0, False, False
    for character in text:
        if character == quote:
            is_key = not quoted and "".join(kept[-1:]) in ("{", ",")
            quoted = not quoted
        elif not quoted:
            depth += (character in "{[") - (character in "}]")
        if depth == 1 and (not quoted or is_key or character == quote):
            kept.append(character)
    return "".join(kept)
