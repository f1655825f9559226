"""Deterministic automata over symbols, whose edges may also count."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redraft.core.automaton import DEAD
from redraft.core.errors import OptionError
from redraft.text.grammar.nfa import SYMBOLS, Rules
from redraft.text.grammar.registers import Rule

MOST_STATES = 300_000

# S states, C classes of symbols


@dataclass(frozen=True, eq=False)
class Core:
    """An automaton over bytes and marks. Every state can still end, as far as what is counted allows.

    Attributes:
        next: [S, C] the state that follows, `DEAD` where none does.
        act: [S, C] what an edge does first, a place in `steps`.
        kind: [512] the class of each symbol.
        start: the state before the first symbol.
        final: [S] what the end of the text does in each state, a place in `steps`; -1 where it may not end.
        steps: rules, by number, one behind the other; the first is none at all.
        rules: what the numbers mean.
    """

    next: NDArray[np.int32]
    act: NDArray[np.int32]
    kind: NDArray[np.int32]
    start: int
    final: NDArray[np.int32]
    steps: tuple[Rules, ...]
    rules: tuple[Rule, ...]

    def packed_steps(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """(where each of `steps` begins, and the end of the last; all of them, one behind the other)."""
        flat = np.array([rule for rules in self.steps for rule in rules], np.int32)
        return np.cumsum([0, *map(len, self.steps)], dtype=np.int64), flat

    def takes(self, symbols: Iterable[int]) -> bool:
        """Whether a text is one of its own, whatever is counted."""
        state = self.start
        for symbol in symbols:
            state = int(self.next[state, self.kind[symbol]])
            if state == DEAD:
                return False
        return bool(self.final[state] != DEAD)


def distances(table: NDArray[np.int32], ends: NDArray[np.bool_]) -> NDArray[np.int32]:
    """[S] edges from each state of a table [S, C] to the nearest end; the largest int32 where there is none."""
    far = np.iinfo(np.int32).max
    source, column = np.nonzero(table != DEAD)
    target = table[source, column]
    distance = np.where(ends, 0, far).astype(np.int32)
    steps = 0
    while True:
        near = source[distance[target] == steps]
        near = near[distance[near] == far]
        if not len(near):
            return distance
        steps += 1
        distance[near] = steps


def product(core: Core, table: NDArray[np.int32], final: NDArray[np.bool_] | None = None) -> Core:
    """The texts of an automaton on which a second one never dies. See `paired`."""
    return paired(core, table, final)[0]


def paired(
    core: Core, table: NDArray[np.int32], final: NDArray[np.bool_] | None = None
) -> tuple[Core, NDArray[np.int64]]:
    """(the texts of an automaton on which a second one never dies, the second one's state in each of its states).

    Only pairs that are reached are states.

    Args:
        core: it may count.
        table: [M, 512] of the second, whose start is 0.
        final: [M] where the second may end; None is everywhere.

    Raises:
        OptionError: there are too many pairs, or no text is left.
    """
    M = len(table)
    # Symbols that both take alike are one class.
    _, first, kind = np.unique(
        np.vstack([core.kind[None].astype(np.int64), table]), axis=1, return_index=True, return_inverse=True
    )
    left, act = core.next[:, core.kind[first]].astype(np.int64), core.act[:, core.kind[first]]
    right = table[:, first].astype(np.int64)
    number = np.full(len(left) * M, DEAD, np.int64)
    frontier = np.array([core.start * M])
    number[frontier], pairs, rows, acts, count = 0, [frontier], [], [], 1
    while len(frontier):
        one, other = left[frontier // M], right[frontier % M]
        rows.append(np.where((one == DEAD) | (other == DEAD), DEAD, one * M + other))
        acts.append(act[frontier // M])
        reached = np.unique(rows[-1])
        frontier = reached[(reached != DEAD) & (number[reached] == DEAD)]
        number[frontier] = count + np.arange(len(frontier))
        count += len(frontier)
        pairs.append(frontier)
        if count > MOST_STATES:
            raise OptionError(f"response_format: it needs more than {MOST_STATES} states: simplify it")
    pair, both = np.concatenate(rows), np.concatenate(pairs)
    ends = core.final[both // M]
    if final is not None:
        ends = np.where(final[both % M], ends, DEAD)
    numbered = np.where(pair == DEAD, DEAD, number[pair]).astype(np.int32)
    classes = kind.reshape(-1).astype(np.int32)
    found = Core(numbered, np.concatenate(acts), classes, 0, ends.astype(np.int32), core.steps, core.rules)
    return trimmed(found), both % M


def trimmed(core: Core) -> Core:
    """Without the edges to states that cannot end.

    Raises:
        OptionError: nothing is left.
    """
    source, column = np.nonzero(core.next != DEAD)
    target = core.next[source, column]
    useful = core.final != DEAD
    while True:
        found = source[useful[target] & ~useful[source]]
        if not len(found):
            break
        useful[found] = True
    if not useful[core.start]:
        raise OptionError("response_format: no text can match it")
    kept = np.where((core.next != DEAD) & useful[core.next], core.next, DEAD).astype(np.int32)
    return Core(kept, core.act, core.kind, core.start, core.final, core.steps, core.rules)


def full_table(core: Core) -> NDArray[np.int32]:
    """[S, 512] the states that follow, a column for each symbol."""
    assert len(core.kind) == SYMBOLS
    return core.next[:, core.kind]
