"""An automaton over tokens, as plain arrays: what `text/` builds of a constraint and `sampler/` runs a canvas under."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

DEAD = -1
# A vocabulary of so many tokens is looked at one by one; of a larger one, classes of at least so many tokens are summed
# as a whole: to look at these costs what it costs to sum a class.
EXPLICIT, BROAD_LEAST = 16_384, 4096
# Classes that can be summed, as bits of a word.
MAX_BROAD = 64
# Rows of a table that are kept at a time.
_KEPT_ROWS = 256

# S states, E edges, C classes of tokens, K sets of classes, V vocabulary


@dataclass(frozen=True, eq=False)
class TokenAutomaton:
    """Which token may follow in which state, and where it leads.

    Tokens that lead to the same state from every state are one class, so that a step needs one sum a class instead of
    one a token. There is no table of states by classes: a real vocabulary makes thousands of either.

    Attributes:
        class_of: [V] class of each token, `DEAD` for tokens that no state allows.
        num_classes: C.
        edges: from state to state.
        start: the state before the first token.
        accepting: [S] states in which the text may end.
        done: the state behind end-of-turn; it takes end-of-turn and padding, and stays.
        shortest: [S] the fewest tokens from here to an accepting state.
        fill: the token that stands behind the end.
    """

    class_of: NDArray[np.int32]
    num_classes: int
    edges: Edges
    start: int
    accepting: NDArray[np.bool_]
    done: int
    shortest: NDArray[np.int32]
    fill: int

    def __post_init__(self) -> None:
        """What reads these tables by number, in C++ too, relies on it.

        Raises:
            ValueError: they name something that is not there.
        """
        S, edges = self.num_states, self.edges
        named = (
            _within(self.class_of, DEAD, self.num_classes)
            and _within(edges.member, 0, self.num_classes)
            and _within(edges.source, 0, S)
            and _within(edges.target, 0, S)
            and _within(edges.kinds, 0, len(edges.begins) - 1)
            and 0 <= self.start < S
            and 0 <= self.done < S
            and len(self.shortest) == S
        )
        sets = len(edges.begins) and edges.begins[0] == 0 and edges.begins[-1] == len(edges.member)
        edges_agree = len(edges.source) == len(edges.target) == len(edges.kinds)
        if not (named and edges_agree and sets and bool((np.diff(edges.begins) > 0).all())):
            raise ValueError("the automaton's tables name classes or states that it has not")
        if bool((np.diff(edges.source) < 0).any()):
            raise ValueError("the automaton's edges are not sorted by their sources")
        arrays = (self.class_of, edges.source, edges.target, edges.kinds, edges.member, edges.begins)
        if not all(array.flags.c_contiguous for array in arrays) or self.class_of.dtype != np.int32:
            raise ValueError("the automaton's tables are not contiguous, or not of their types")

    @classmethod
    def of_table(
        cls,
        class_of: NDArray[np.int32],
        table: NDArray[np.int32],
        *,
        start: int,
        accepting: NDArray[np.bool_],
        done: int,
        shortest: NDArray[np.int32],
        fill: int,
    ) -> TokenAutomaton:
        """An automaton by its table [S, C]: the state that follows, `DEAD` where the class is not allowed."""
        return cls(
            class_of=class_of,
            num_classes=table.shape[1],
            edges=Edges.of_table(table),
            start=start,
            accepting=accepting,
            done=done,
            shortest=shortest,
            fill=fill,
        )

    @property
    def num_states(self) -> int:
        """S."""
        return len(self.accepting)

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """[S + 1] where the edges of each state begin."""
        return np.searchsorted(self.edges.source, np.arange(self.num_states + 1)).astype(np.int64)

    @cached_property
    def parts(self) -> Parts:
        """Which tokens are looked at one by one, and which classes are summed as a whole."""
        size = np.bincount(self.class_of[self.class_of >= 0], minlength=self.num_classes)
        # Tokens that end a turn may be barred at single positions.
        sets = np.unique(self.edges.kinds[self.edges.target == self.done])
        narrow = np.zeros(self.num_classes, np.bool_)
        for kind in sets:
            narrow[self.edges.classes(int(kind))] = True
        wide = (size >= BROAD_LEAST) & ~narrow & (len(self.class_of) > EXPLICIT)
        largest = np.argsort(-size * wide, kind="stable")[: min(MAX_BROAD, int(wide.sum()))]
        return Parts.of(self.class_of, np.sort(largest), self.num_classes)

    def following(self, state: int) -> NDArray[np.int32]:
        """[C] the state behind each class, `DEAD` where it is not allowed."""
        row = self._rows.get(state)
        if row is None:
            row = np.full(self.num_classes, DEAD, np.int32)
            for edge in range(int(self.offsets[state]), int(self.offsets[state + 1])):
                row[self.edges.classes(int(self.edges.kinds[edge]))] = self.edges.target[edge]
            if len(self._rows) >= _KEPT_ROWS:
                self._rows.clear()
            self._rows[state] = row
        return row

    def is_complete(self, state: int) -> bool:
        """Whether nothing but end-of-turn may follow."""
        targets = self.edges.target[self.offsets[state] : self.offsets[state + 1]]
        return bool(self.accepting[state]) and bool((targets == self.done).all())

    def advance(self, state: int, token_ids: list[int]) -> int:
        """The state after these tokens, `DEAD` once one is not allowed."""
        for token in token_ids:
            kind = self.class_of[token]
            state = DEAD if state == DEAD or kind == DEAD else int(self.following(state)[kind])
        return state

    @cached_property
    def _rows(self) -> dict[int, NDArray[np.int32]]:
        return {}


@dataclass(frozen=True, eq=False)
class Edges:
    """Edges from state to state, sorted by source; what each takes is a set of classes, shared where equal.

    Attributes:
        source, target, kinds: [E] states, and the number of the set of classes.
        member: classes of all sets, one set behind the other; no set is empty.
        begins: [K + 1] where each set begins in `member`, and the end of the last.
    """

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    kinds: NDArray[np.int64]
    member: NDArray[np.int64]
    begins: NDArray[np.int64]

    @classmethod
    def of_table(cls, table: NDArray[np.int32]) -> Edges:
        """A table's entries, those between the same two states as one edge."""
        source, kind = np.nonzero(table != DEAD)
        target = table[source, kind].astype(np.int64)
        order = np.lexsort((kind, target, source))
        source, kind, target = source[order], kind[order], target[order]
        starts = np.flatnonzero(np.r_[True, (np.diff(source) != 0) | (np.diff(target) != 0)][: len(source)])
        numbers: dict[bytes, int] = {}
        members: list[NDArray[np.int64]] = []
        kinds = np.empty(len(starts), np.int64)
        for edge, (begin, end) in enumerate(zip(starts, np.r_[starts[1:], len(kind)], strict=False)):
            classes = kind[begin:end]
            number = numbers.setdefault(classes.tobytes(), len(members))
            if number == len(members):
                members.append(classes)
            kinds[edge] = number
        begins = np.cumsum([0, *(len(classes) for classes in members)])
        member = np.concatenate(members) if members else np.empty(0, np.int64)
        return cls(source[starts], target[starts], kinds, member, begins)

    def classes(self, kind: int) -> NDArray[np.int64]:
        """The classes of one set."""
        return self.member[self.begins[kind] : self.begins[kind + 1]]

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """[S'] where the edges of each source that has any begin."""
        return np.flatnonzero(np.r_[True, np.diff(self.source) != 0][: len(self.source)])

    @property
    def sources(self) -> NDArray[np.int64]:
        """[S'] those sources."""
        return self.source[self.first]


@dataclass(frozen=True, eq=False)
class Parts:
    """A vocabulary in two: tokens whose scores are looked at one by one, and classes that are summed as a whole.

    Plain text inside a string is one class of nearly all tokens, and most classes are a few tokens each.

    Attributes:
        broad: [G] the classes that are summed, ascending.
        broad_of: [V] number in `broad` of each token's class, -1 for every other token.
        ids: [X] the explicit tokens, ascending: those of all other classes.
        kinds: [X] their classes.
        num_classes: C.
    """

    broad: NDArray[np.int64]
    broad_of: NDArray[np.int32]
    ids: NDArray[np.int64]
    kinds: NDArray[np.int32]
    num_classes: int

    @classmethod
    def of(cls, class_of: NDArray[np.int32], broad: NDArray[np.int64], num_classes: int) -> Parts:
        """By the classes that are to be broad."""
        number = np.full(num_classes + 1, -1, np.int32)
        number[broad] = np.arange(len(broad))
        # A token that no state takes has class -1, the last entry.
        broad_of = number[class_of]
        ids = np.flatnonzero((class_of >= 0) & (broad_of < 0))
        return cls(broad, broad_of, ids, np.ascontiguousarray(class_of[ids]), num_classes)

    def explicit(self, token_ids: list[int]) -> NDArray[np.int64]:
        """Places in `ids` of those of these tokens that are explicit."""
        places = np.searchsorted(self.ids, token_ids)
        return places[(places < len(self.ids)) & (np.append(self.ids, -1)[places] == token_ids)]


def _within(values: NDArray[np.int32] | NDArray[np.int64], least: int, count: int) -> bool:
    return int(values.min(initial=max(least, 0))) >= least and int(values.max(initial=least)) < count
