"""From an automaton over bytes to one over tokens: every token is walked through it from every state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redraft.core.automaton import DEAD, TokenAutomaton
from redraft.core.errors import OptionError
from redraft.text.bytes_of_tokens import TokenBytes
from redraft.text.grammar.core import distances
from redraft.text.grammar.nfa import BYTES
from redraft.text.grammar.nodes import FIRST_MARK

# Tokens that are walked, of all states together: some ten seconds.
MAX_WORK = 100_000_000
_FIRST_HASH, _HASH = np.uint64(0xCBF29CE484222325), np.uint64(0x9E3779B97F4A7C15)

# V vocabulary, S states, C classes


@dataclass(frozen=True, eq=False)
class ByteAutomaton:
    """An automaton over bytes and marks, in which nothing is counted.

    Attributes:
        next: [S, 512] the state that follows each byte, and each mark, `DEAD` where none does.
        start: the state before the first byte.
        final: [S] states in which a text may end.
    """

    next: NDArray[np.int32]
    start: int
    final: NDArray[np.bool_]


def token_automaton(
    automaton: ByteAutomaton, tokens: TokenBytes, end_ids: Iterable[int], pad_id: int | None, fill: int
) -> TokenAutomaton:
    """The texts of a byte automaton, written in tokens and closed by end-of-turn.

    Args:
        automaton: over bytes.
        tokens: what each token adds to a text.
        end_ids: tokens that end the turn; from an accepting state they lead to `done`, which takes them again.
        pad_id: taken behind the end too.
        fill: see `TokenAutomaton`.

    Raises:
        OptionError: no sequence of tokens spells a matching text, or there are too many states.
    """
    walker = _Walker(automaton, tokens)
    V = len(tokens.opens)
    states = {(automaton.start, True): 0}
    queue = [(automaton.start, True)]
    marks = np.full(V, _FIRST_HASH)
    rows: list[NDArray[np.int32]] = []
    for state, at_start in queue:
        target = walker.walk(state, at_start)
        # Two words for each byte state: which context follows is a property of the token.
        pairs = np.where(target == DEAD, DEAD, target * 2 + tokens.opens).astype(np.int64)
        for pair in np.unique(pairs[pairs != DEAD]):
            found = (int(pair) // 2, bool(pair % 2))
            if found not in states:
                states[found] = len(states)
                queue.append(found)
        marks = (marks ^ (pairs + 1).astype(np.uint64)) * _HASH
        marks ^= marks >> np.uint64(29)
        if len(states) * V > MAX_WORK:
            raise OptionError(
                f"response_format: without a C++ compiler, at most {MAX_WORK // V} states can be held at this "
                f"vocabulary of {V}: install g++, or simplify it"
            )
    # Equal marks: the tokens agree in every state. What no state allows has the mark of a token dead everywhere.
    _, representative, class_of = np.unique(marks, return_index=True, return_inverse=True)
    number = np.full((len(automaton.next), 2), DEAD, np.int32)
    for (state, at_start), place in states.items():
        number[state, int(at_start)] = place
    for state, at_start in queue:
        target = walker.walk(state, at_start, representative)
        opens = tokens.opens[representative].astype(np.int64)
        rows.append(np.where(target == DEAD, DEAD, number[target, opens]).astype(np.int32))
    accepting = np.array([automaton.final[state] for state, _ in queue])
    return _closed(np.stack(rows), class_of.astype(np.int32), accepting, list(end_ids), pad_id, fill)


def _closed(
    table: NDArray[np.int32],
    class_of: NDArray[np.int32],
    accepting: NDArray[np.bool_],
    end_ids: list[int],
    pad_id: int | None,
    fill: int,
) -> TokenAutomaton:
    """Adds `done`, gives end-of-turn and padding classes of their own, and drops what leads nowhere."""
    S, C = table.shape
    done = S
    table = np.vstack([table, np.full((1, C), DEAD, np.int32)])
    end = np.where(np.append(accepting, True), done, DEAD).astype(np.int32)
    behind = np.full(S + 1, DEAD, np.int32)
    behind[done] = done
    table = np.column_stack([table, end, behind])
    class_of = class_of.copy()
    if pad_id is not None:
        class_of[pad_id] = C + 1
    class_of[end_ids] = C
    accepting = np.append(accepting, True)
    shortest = distances(table, accepting)
    if shortest[0] == np.iinfo(np.int32).max:
        raise OptionError("response_format: this model's vocabulary cannot spell any text that matches")
    # States from which no token sequence ends are as good as dead.
    hopeless = shortest == np.iinfo(np.int32).max
    table[hopeless] = DEAD
    table[np.isin(table, np.flatnonzero(hopeless))] = DEAD
    used = (table != DEAD).any(0)
    renumber = np.where(used, np.cumsum(used) - 1, DEAD).astype(np.int32)
    return TokenAutomaton.of_table(
        renumber[class_of],
        table[:, used],
        start=0,
        accepting=accepting,
        done=done,
        shortest=shortest,
        fill=fill,
    )


class _Walker:
    """All tokens through a byte automaton, symbol by symbol, those that have died left out."""

    def __init__(self, automaton: ByteAutomaton, tokens: TokenBytes) -> None:
        self.automaton = automaton
        marked = {token: BYTES + ord(mark) - FIRST_MARK for token, mark in tokens.marked.items()}
        self.symbols = [_padded(tokens.inside, marked), _padded(tokens.at_start, marked)]

    def walk(self, state: int, at_start: bool, only: NDArray[np.int64] | None = None) -> NDArray[np.int32]:
        """[V] the byte state behind each token read from `state`, or behind each of `only`."""
        table, lengths = self.symbols[int(at_start)]
        if only is not None:
            table, lengths = table[only], lengths[only]
        reached = np.full(len(lengths), DEAD, np.int32)
        reached[lengths == 0] = state
        alive = np.flatnonzero(lengths > 0)
        current = np.full(len(alive), state, np.int32)
        for place in range(table.shape[1]):
            current = self.automaton.next[current, table[alive, place]]
            living = current != DEAD
            alive, current = alive[living], current[living]
            ending = lengths[alive] == place + 1
            reached[alive[ending]] = current[ending]
            alive, current = alive[~ending], current[~ending]
            if not len(alive):
                break
        return reached


def _padded(texts: list[bytes | None], marked: Mapping[int, int]) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    """([V, longest] symbols, [V] lengths); tokens that may not be written have length -1."""
    lengths = np.array([-1 if text is None else len(text) for text in texts])
    table = np.zeros((len(texts), max(1, int(lengths.max(initial=0)))), np.int16)
    for token, text in enumerate(texts):
        if text:
            table[token, : len(text)] = np.frombuffer(text, np.uint8)
    for token, symbol in marked.items():
        table[token, 0], lengths[token] = symbol, 1
    return table, lengths
