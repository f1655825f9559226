"""An automaton over tokens by the tokens that lead from state to state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from redraft.core.automaton import DEAD, Edges, TokenAutomaton

# Tokens by (source, target).
Ways = Mapping[tuple[int, int], Sequence[int]]


def distances(ways: Iterable[tuple[int, int]], begin: Iterable[int], count: int) -> dict[int, int]:
    """The fewest tokens from any of these states to each that is reached, of `count` in all."""
    behind: list[list[int]] = [[] for _ in range(count)]
    for source, target in ways:
        behind[source].append(target)
    found = dict.fromkeys(begin, 0)
    queue = list(found)
    for state in queue:
        for target in behind[state]:
            if target not in found:
                found[target] = found[state] + 1
                queue.append(target)
    return found


def automaton_of(
    ways: Ways, accepting: Sequence[int], count: int, vocab_size: int, fill: int
) -> tuple[TokenAutomaton, dict[int, int]]:
    """The automaton of what leads to an accepting state, and its number of each state that is left.

    Args:
        ways: from state to state; 0 is the start.
        accepting: states in which a text may end.
        count: of states.
        vocab_size: of the model.
        fill: see `TokenAutomaton`.
    """
    left = distances(((target, source) for source, target in ways), accepting, count)
    kept = sorted(left)
    number = {state: place for place, state in enumerate(kept)}
    used = sorted((number[a], number[b], tokens) for (a, b), tokens in ways.items() if a in number and b in number)
    class_of, num_classes, sets = _classes([tokens for *_, tokens in used], vocab_size)
    kinds, members = _shared(sets)
    takes, ends = np.zeros(len(kept) + 1, np.bool_), np.zeros(len(kept) + 1, np.int32)
    takes[[number[state] for state in accepting]] = True
    ends[: len(kept)] = [left[state] for state in kept]
    edges = Edges(
        source=np.array([source for source, *_ in used], np.int64),
        target=np.array([target for _, target, _ in used], np.int64),
        kinds=kinds,
        member=np.concatenate(members),
        begins=np.cumsum([0, *map(len, members)]),
    )
    automaton = TokenAutomaton(
        class_of=class_of,
        num_classes=num_classes,
        edges=edges,
        start=number[0],
        accepting=takes,
        done=len(kept),
        shortest=ends,
        fill=fill,
    )
    return automaton, number


def _classes(sets: list[Sequence[int]], vocab_size: int) -> tuple[NDArray[np.int32], int, list[NDArray[np.int64]]]:
    """Tokens that are in the same sets are one class: ([V] class of each, how many, classes of each set)."""
    edge = np.repeat(np.arange(len(sets)), [len(tokens) for tokens in sets])
    token = np.concatenate([np.asarray(tokens, np.int64) for tokens in sets])
    order = np.lexsort((edge, token))
    edge, token = edge[order], token[order]
    first = np.flatnonzero(np.r_[True, np.diff(token) != 0])
    class_of = np.full(vocab_size, DEAD, np.int32)
    numbers: dict[bytes, int] = {}
    for begin, end in zip(first, np.r_[first[1:], len(token)], strict=True):
        class_of[token[begin]] = numbers.setdefault(edge[begin:end].tobytes(), len(numbers))
    named = class_of.tolist()
    return class_of, len(numbers), [np.array(sorted({named[t] for t in tokens}), np.int64) for tokens in sets]


def _shared(sets: list[NDArray[np.int64]]) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """Equal sets once: (number of each, the sets)."""
    numbers: dict[bytes, int] = {}
    kinds = np.array([numbers.setdefault(classes.tobytes(), len(numbers)) for classes in sets], np.int64)
    return kinds, [np.frombuffer(key, np.int64) for key in numbers]
