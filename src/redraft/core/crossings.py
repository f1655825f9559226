"""Where the texts of an automaton decide between several readings: it beside another that tells these apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redraft.core.automaton import DEAD, Edges, TokenAutomaton

# P pairs of states, E edges, R classes, O readings, V vocabulary


@dataclass(frozen=True, eq=False)
class Crossings:
    """Pairs of states in which nothing is decided yet, and the edges on which something is.

    Attributes:
        pairs: number of each pair (state of the one, state of the other).
        class_of: [V] class of each token, `DEAD` for those that no pair takes.
        num_classes: R.
        edges: from pair to pair.
        across: from a pair to where the one automaton stands behind the decision; numbers of `kinds` are `edges`' own.
        label: [E] what each of those decides.
    """

    pairs: dict[tuple[int, int], int]
    class_of: NDArray[np.int32]
    num_classes: int
    edges: Edges
    across: Edges
    label: NDArray[np.int64]

    @classmethod
    def of(cls, automaton: TokenAutomaton, readings: TokenAutomaton, label: NDArray[np.int64]) -> Crossings:
        """Of an automaton and one that takes all its texts up to where they are decided.

        Args:
            automaton: whose texts they are.
            readings: what tells them apart.
            label: [S] what each of its states has decided on, negative where nothing is.
        """
        both = (automaton.class_of >= 0) & (readings.class_of >= 0)
        C = readings.num_classes
        joined = np.where(both, automaton.class_of.astype(np.int64) * C + readings.class_of, DEAD)
        known = np.unique(joined[both])
        class_of = np.where(both, np.searchsorted(known, joined), DEAD).astype(np.int32)
        one, other = known // C, known % C
        pairs = {(automaton.start, readings.start): 0}
        queue = list(pairs)
        inner: list[tuple[int, int, int]] = []
        outer: list[tuple[int, int, int, int]] = []
        numbers: dict[bytes, int] = {}
        for source, (a, t) in enumerate(queue):
            behind, told = automaton.following(a)[one], readings.following(t)[other]
            taken = np.flatnonzero((behind >= 0) & (told >= 0))
            way = behind[taken].astype(np.int64) * readings.num_states + told[taken]
            for place in np.unique(way).tolist():
                members = taken[way == place]
                kind = numbers.setdefault(members.astype(np.int64).tobytes(), len(numbers))
                target = divmod(place, readings.num_states)
                if label[target[1]] >= 0:
                    outer.append((source, target[0], kind, int(label[target[1]])))
                    continue
                if target not in pairs:
                    pairs[target] = len(pairs)
                    queue.append(target)
                inner.append((source, pairs[target], kind))
        sets = [np.frombuffer(members, np.int64) for members in numbers]
        member = np.concatenate(sets) if sets else np.empty(0, np.int64)
        begins = np.cumsum([0, *map(len, sets)])
        inside, across = np.array(inner, np.int64).reshape(-1, 3).T, np.array(outer, np.int64).reshape(-1, 4).T
        return cls(
            pairs,
            class_of,
            len(known),
            Edges(inside[0], inside[1], inside[2], member, begins),
            Edges(across[0], across[1], across[2], member, begins),
            across[3],
        )
