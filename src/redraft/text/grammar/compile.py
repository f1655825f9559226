"""From a tree to a deterministic automaton over bytes and marks."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Words

import numpy as np
from numpy.typing import NDArray

from redraft.core.automaton import DEAD
from redraft.core.errors import OptionError
from redraft.text.grammar.core import Core, full_table, paired, product, trimmed
from redraft.text.grammar.determinise import AmbiguousError, determinise
from redraft.text.grammar.nfa import SYMBOLS, Builder, Other
from redraft.text.grammar.nodes import Both, Node, Without
from redraft.text.grammar.reference import counted_out
from redraft.text.grammar.registers import Kind
from redraft.text.grammar.words import matcher, spelling_one_of


def compiled(node: Node, once: Mapping[int, tuple[str, ...]] | None = None) -> Core:
    """The automaton of a tree.

    What is repeated is counted where its end is clear, and else written out.

    Args:
        node: the tree.
        once: items of each list without repeats, by the list's number, that may stand there once.

    Raises:
        OptionError: no text matches, or it becomes too large.
    """
    return _made(node, Builder(None, embedded, once or {}), 0, 0)


def _made(node: Node, around: Builder, depth: int, bits: int) -> Core:
    """The automaton of a part, with fields and bits of its own; `around` counts its lists and groups."""
    unrolled: set[int] = set()
    while True:
        builder = Builder(frozenset(unrolled), embedded, around.once)
        builder.groups, builder.lists = around.groups, around.lists
        builder.put(node, builder.nfa.start, builder.nfa.end, depth, bits)
        try:
            core = determinise(builder.nfa)
        except AmbiguousError as error:
            counted = {builder.nfa.counted[rule] for rule in error.rules if rule in builder.nfa.counted}
            if counted <= unrolled:
                raise _unclear() from None
            unrolled |= counted
        else:
            around.groups, around.lists = builder.groups, builder.lists
            return core


def _unclear() -> OptionError:
    return OptionError(
        "response_format: two ways to read a text have different fields or items: give fields in any order names of "
        "their own, and lists without repeats items that end clearly"
    )


def written_out(node: Node) -> Core:
    """The same, in which nothing is counted.

    Raises:
        OptionError: also where a list without repeats is among it, which is told by reading alone.
    """
    builder = Builder(None, embedded, {})
    builder.put(node, builder.nfa.start, builder.nfa.end)
    try:
        core = determinise(builder.nfa)
    except AmbiguousError:
        raise _unclear() from None
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


def embedded(builder: Builder, node: Both | Without | Other, source: int, target: int, depth: int, bits: int) -> None:
    """Puts a part that is made by itself into an automaton."""
    behind: list[tuple[int, ...]] | None = None
    if isinstance(node, Without):
        core = without(_made(node.part, builder, depth, bits), node.words)
    elif isinstance(node, Other):
        table, word_of = spelling_one_of(node.texts)
        left_out = np.isin(word_of, np.arange(len(node.counted), len(node.texts)))
        core, other_state = paired(_made(node.part, builder, depth, bits), table, ~left_out)
        behind = [() if word < 0 else node.counted[word : word + 1] for word in word_of[other_state].tolist()]
    else:
        other = written_out(node.other)
        core = product(written_out(node.one), _from_zero(other), _ends_from_zero(other))
    states = [builder.state() for _ in range(len(core.next))]
    numbers = [builder.rule(rule) for rule in core.rules]
    steps = [tuple(numbers[rule] for rule in rules) for rules in core.steps]
    builder.nfa.jumps.append((source, states[core.start], ()))
    for kind, first, last in _runs(core.kind):
        for state in np.flatnonzero(core.next[:, kind] != DEAD).tolist():
            following = states[core.next[state, kind]]
            builder.edge(states[state], first, last, following, steps[core.act[state, kind]])
    for state in np.flatnonzero(core.final != DEAD).tolist():
        rules = steps[core.final[state]] + (() if behind is None else behind[state])
        builder.nfa.jumps.append((states[state], target, rules))


def _runs(kind: NDArray[np.int32]) -> list[tuple[int, int, int]]:
    """(class, first, last symbol) of symbols of one class side by side."""
    starts = np.flatnonzero(np.r_[True, np.diff(kind) != 0])
    ends = np.r_[starts[1:], SYMBOLS] - 1
    return [(int(kind[first]), int(first), int(last)) for first, last in zip(starts, ends, strict=True)]


def _from_zero(core: Core) -> NDArray[np.int32]:
    assert core.start == 0
    return full_table(core)


def _ends_from_zero(core: Core) -> NDArray[np.bool_]:
    return core.final != DEAD
