"""An automaton over tokens, as plain arrays: what `text/` builds of a constraint and `sampler/` runs a canvas under."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

DEAD = -1

# S states, C classes of tokens, V vocabulary


@dataclass(frozen=True, eq=False)
class TokenAutomaton:
    """Which token may follow in which state, and where it leads.

    Tokens that lead to the same state from every state are one class, so that a step needs one sum a class instead of
    one a token: a schema tells a few hundred classes apart, whatever the vocabulary.

    Attributes:
        class_of: [V] class of each token, `DEAD` for tokens that no state allows.
        next: [S, C] the state that follows, `DEAD` where the class is not allowed.
        start: the state before the first token.
        accepting: [S] states in which the text may end.
        done: the state behind end-of-turn; it takes end-of-turn and padding, and stays.
        shortest: [S] the fewest tokens from here to an accepting state.
        fill: the token that stands behind the end.
    """

    class_of: NDArray[np.int32]
    next: NDArray[np.int32]
    start: int
    accepting: NDArray[np.bool_]
    done: int
    shortest: NDArray[np.int32]
    fill: int

    def __post_init__(self) -> None:
        """What reads these tables by number, in C++ too, relies on it."""
        S, C = self.next.shape
        classes = (self.class_of.min(initial=DEAD), self.class_of.max(initial=DEAD))
        states = (self.next.min(initial=DEAD), self.next.max(initial=DEAD))
        if min(classes[0], states[0]) < DEAD or classes[1] >= C or states[1] >= S or not 0 <= self.start < S:
            raise ValueError("the automaton's tables name classes or states that it has not")

    @property
    def num_states(self) -> int:
        """S."""
        return len(self.next)

    @property
    def num_classes(self) -> int:
        """C."""
        return self.next.shape[1]

    @cached_property
    def edges(self) -> Edges:
        """The table's entries, those between the same two states as one edge."""
        return _edges(self.next)

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """[S + 1] where the edges of each state begin."""
        return np.searchsorted(self.edges.source, np.arange(self.num_states + 1))

    def is_complete(self, state: int) -> bool:
        """Whether nothing but end-of-turn may follow."""
        following = self.next[state]
        return bool(self.accepting[state]) and bool(((following == DEAD) | (following == self.done)).all())

    def advance(self, state: int, token_ids: list[int]) -> int:
        """The state after these tokens, `DEAD` once one is not allowed."""
        for token in token_ids:
            kind = self.class_of[token]
            state = DEAD if state == DEAD or kind == DEAD else int(self.next[state, kind])
        return state


@dataclass(frozen=True, eq=False)
class Edges:
    """Edges from state to state, sorted by source; what each takes is a set of classes, shared where equal.

    Attributes:
        source, target, kinds: [E] states, and the number of the set of classes.
        first: [S'] where the edges of each source that has any begin.
        sources: [S'] those sources.
        member: classes of all sets, one set behind the other.
        begin: where each set begins in `member`.
    """

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    kinds: NDArray[np.int64]
    first: NDArray[np.int64]
    sources: NDArray[np.int64]
    member: NDArray[np.int64]
    begin: NDArray[np.int64]

    @cached_property
    def begins(self) -> NDArray[np.int64]:
        """[K + 1] the same, and the end of the last."""
        return np.r_[self.begin, len(self.member)]


def _edges(table: NDArray[np.int32]) -> Edges:
    source, kind = np.nonzero(table != DEAD)
    target = table[source, kind].astype(np.int64)
    order = np.lexsort((kind, target, source))
    source, kind, target = source[order], kind[order], target[order]
    starts = np.flatnonzero(np.r_[True, (np.diff(source) != 0) | (np.diff(target) != 0)])
    numbers: dict[bytes, int] = {}
    members: list[NDArray[np.int64]] = []
    kinds = np.empty(len(starts), np.int64)
    for edge, (begin, end) in enumerate(zip(starts, np.r_[starts[1:], len(kind)], strict=True)):
        classes = kind[begin:end]
        number = numbers.setdefault(classes.tobytes(), len(members))
        if number == len(members):
            members.append(classes)
        kinds[edge] = number
    edge_source = source[starts]
    first = np.flatnonzero(np.r_[True, np.diff(edge_source) != 0])
    begin = np.cumsum([0, *(len(classes) for classes in members[:-1])])
    return Edges(edge_source, target[starts], kinds, first, edge_source[first], np.concatenate(members), begin)
