"""From what may be spelled to an automaton over tokens, with as much counted as is enabled."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from redraft.core.automaton import DEAD, Edges, TokenAutomaton
from redraft.core.errors import OptionError
from redraft.text.grammar.core import Core
from redraft.text.grammar.registers import Rule
from redraft.text.grammar.spelling import Spelling
from redraft.text.native import converted, library, pointer
from redraft.text.vocabulary import Vocabulary

# A step of a canvas takes a millisecond or so for ten thousand edges.
MOST_STATES, MOST_EDGES = 200_000, 6_000_000


def rule_table(rules: Iterable[Rule]) -> NDArray[np.int64]:
    """[n, 6] rules as C++ reads them."""
    rows = [(rule.kind, rule.place, rule.least, rule.most, rule.need, rule.clear) for rule in rules]
    return np.array(rows, np.int64).reshape(-1, 6)


def expanded(
    spelling: Spelling,
    core: Core,
    vocabulary: Vocabulary,
    enabled: NDArray[np.uint8],
    end_ids: list[int],
    pad_id: int | None,
    fill: int,
) -> TokenAutomaton:
    """The automaton over tokens, closed by end-of-turn.

    Args:
        spelling: of `core`.
        core: the language.
        vocabulary: of the model.
        enabled: [n] which rules are held.
        end_ids, pad_id, fill: see `token_automaton`.

    Raises:
        OptionError: no sequence of tokens spells a matching text, or there are too many states.
    """
    native = library("expand")
    assert native is not None, "the choice of form comes before"
    trees = vocabulary.trees
    orders = [tree.order for tree in trees]
    if len(orders) == 1:
        orders.append(np.empty(0, np.int32))
    final, table, ends = core.final, rule_table(core.rules), np.array(end_ids, np.int32)
    sizes = np.zeros(6, np.int64)
    handle = ctypes.c_void_p(
        native.expand_new(
            *map(converted, (spelling.core, spelling.begin, spelling.target, spelling.rules, spelling.set)),
            *map(converted, (spelling.set_begin, spelling.ranges, spelling.set_tree, final, table, enabled)),
            *map(converted, (spelling.step_begin, spelling.steps)),
            *map(converted, (orders[0], len(orders[0]), orders[1], len(orders[1]))),
            *map(converted, (ends, len(ends), DEAD if pad_id is None else pad_id, vocabulary.size)),
            *map(converted, (MOST_STATES, MOST_EDGES, sizes)),
        )
    )
    try:
        status, S, C, E, K, members = sizes.tolist()
        if status == 1:
            raise OptionError(f"response_format: it needs more than {MOST_STATES} states: lower its bounds")
        if status == 2:
            raise OptionError("response_format: this model's vocabulary cannot spell any text that matches")
        class_of, shortest = np.empty(vocabulary.size, np.int32), np.empty(S, np.int32)
        source, target, kinds = np.empty((3, E), np.int64)
        accepting, begin, member = np.empty(S, np.uint8), np.empty(K + 1, np.int64), np.empty(members, np.int64)
        source, target, kinds = (np.empty(E, np.int64) for _ in range(3))
        native.expand_take(handle, *map(pointer, (class_of, source, target, kinds, accepting, shortest, begin, member)))
    finally:
        native.expand_free(handle)
    return closed(class_of, C, (source, target, kinds, member, begin), accepting, shortest, fill)


def closed(
    class_of: NDArray[np.int32],
    num_classes: int,
    edges: tuple[NDArray[np.int64], ...],
    accepting: NDArray[np.uint8],
    shortest: NDArray[np.int32],
    fill: int,
) -> TokenAutomaton:
    """The arrays as an automaton, whose last state is the one behind the end."""
    source, target, kinds, member, begin = edges
    empty = np.diff(begin) == 0
    if empty.any():
        # All tokens of such a set end a turn, and so are no text.
        kept = ~empty[kinds]
        number = np.cumsum(~empty) - 1
        source, target, kinds = source[kept], target[kept], number[kinds[kept]]
        begin = begin[np.r_[~empty, True]]
    return TokenAutomaton(
        class_of=class_of,
        num_classes=num_classes,
        edges=Edges(source, target, kinds, member, begin),
        start=0,
        accepting=accepting.astype(np.bool_),
        done=len(accepting) - 1,
        shortest=shortest,
        fill=fill,
    )
