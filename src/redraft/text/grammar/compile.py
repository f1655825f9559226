"""From a tree to a deterministic automaton over bytes and marks."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Words

import numpy as np
from numpy.typing import NDArray

from redraft.core.automaton import DEAD
from redraft.core.errors import OptionError
from redraft.text.grammar.core import Core, full_table, product, trimmed
from redraft.text.grammar.determinise import AmbiguousError, determinise
from redraft.text.grammar.nfa import SYMBOLS, Builder, Other
from redraft.text.grammar.nodes import Both, Node, Without
from redraft.text.grammar.reference import counted_out
from redraft.text.grammar.registers import Kind
from redraft.text.grammar.words import matcher, others


def compiled(node: Node, once: Mapping[int, tuple[str, ...]] | None = None) -> Core:
    """The automaton of a tree.

    What is repeated is counted where its end is clear, and else written out.

    Args:
        node: the tree.
        once: items of each list without repeats, by the list's number, that may stand there once.

    Raises:
        OptionError: no text matches, or it becomes too large.
    """
    unrolled: set[int] = set()
    while True:
        builder = Builder(frozenset(unrolled), _embedded, once or {})
        builder.put(node, builder.nfa.start, builder.nfa.end)
        try:
            return determinise(builder.nfa)
        except AmbiguousError as error:
            counted = {builder.nfa.counted[rule] for rule in error.rules if rule in builder.nfa.counted}
            if counted <= unrolled:
                raise OptionError("response_format: fields in any order need keys that tell them apart") from None
            unrolled |= counted


def written_out(node: Node) -> Core:
    """The same, in which nothing is counted.

    Raises:
        OptionError: also where a list without repeats is among it, which is told by reading alone.
    """
    builder = Builder(None, _embedded, {})
    builder.put(node, builder.nfa.start, builder.nfa.end)
    core = determinise(builder.nfa)
    if not any(core.steps):
        return core
    if any(rule.kind is Kind.OPEN for rule in core.rules):
        raise OptionError("uniqueItems: such a list cannot be held to a second form: leave out one of the two")
    out = counted_out(core, np.ones(len(core.rules), np.uint8))
    # What is left has an edge for each symbol; those that all states take alike are one class.
    table, kind = np.unique(out.next, axis=1, return_inverse=True)
    final = np.where(out.final, 0, DEAD).astype(np.int32)
    table = np.ascontiguousarray(table.astype(np.int32))
    return trimmed(Core(table, np.zeros_like(table), kind.reshape(-1).astype(np.int32), out.start, final, ((),), ()))


def without(core: Core, words: Words[str]) -> Core:
    """The texts of an automaton in which none of these words is spelled."""
    return product(core, matcher(words))


class _Embedded:
    """An automaton as a part of another."""

    def __init__(self, core: Core) -> None:
        self.core = core

    def __call__(self, builder: Builder, source: int, target: int) -> None:
        core = self.core
        states = [builder.state() for _ in range(len(core.next))]
        numbers = [builder.rule(rule) for rule in core.rules]
        steps = [tuple(numbers[rule] for rule in rules) for rules in core.steps]
        builder.nfa.jumps.append((source, states[core.start], ()))
        for kind, first, last in _runs(core.kind):
            for state in np.flatnonzero(core.next[:, kind] != DEAD).tolist():
                following = states[core.next[state, kind]]
                builder.edge(states[state], first, last, following, steps[core.act[state, kind]])
        for state in np.flatnonzero(core.final != DEAD).tolist():
            builder.nfa.jumps.append((states[state], target, steps[core.final[state]]))


def _runs(kind: NDArray[np.int32]) -> list[tuple[int, int, int]]:
    """(class, first, last symbol) of symbols of one class side by side."""
    starts = np.flatnonzero(np.r_[True, np.diff(kind) != 0])
    ends = np.r_[starts[1:], SYMBOLS] - 1
    return [(int(kind[first]), int(first), int(last)) for first, last in zip(starts, ends, strict=True)]


def _embedded(node: Both | Without | Other) -> _Embedded:
    if isinstance(node, Without):
        return _Embedded(without(compiled(node.part), node.words))
    if isinstance(node, Other):
        return _Embedded(product(compiled(node.part), *others(node.texts)))
    other = written_out(node.other)
    return _Embedded(product(written_out(node.one), _from_zero(other), _ends_from_zero(other)))


def _from_zero(core: Core) -> NDArray[np.int32]:
    assert core.start == 0
    return full_table(core)


def _ends_from_zero(core: Core) -> NDArray[np.bool_]:
    return core.final != DEAD
