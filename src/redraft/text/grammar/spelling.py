"""Which tokens may stand in which state of an automaton over bytes: every spelling is walked from every state."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redraft.core.errors import OptionError
from redraft.text.grammar.core import Core
from redraft.text.native import converted, library, pointer
from redraft.text.vocabulary import Tree, Vocabulary

MOST_STATES, MOST_EDGES = 300_000, 8_000_000
# Nodes of the vocabulary's tree that are looked at before it is given up: some ten seconds.
MOST_WORK = 2_000_000_000

# S' states, each with a context; E edges


@dataclass(frozen=True, eq=False)
class Spelling:
    """An automaton whose edges are sets of tokens; they may count as those over bytes do.

    Attributes:
        core: [S'] the state of the automaton over bytes.
        begin: [S' + 1] where the edges of each state begin.
        target, rules, set: [E] where an edge leads, what it does, a place in `steps`, and which tokens it takes.
        set_begin: where the ranges of each set begin in `ranges`.
        ranges: (first rank, behind the last) of tokens, one range behind the other.
        set_tree: the tree whose ranks those are.
        step_begin, steps: sequences of rules, by number.
    """

    core: NDArray[np.int32]
    begin: NDArray[np.int64]
    target: NDArray[np.int32]
    rules: NDArray[np.int32]
    set: NDArray[np.int32]
    set_begin: NDArray[np.int64]
    ranges: NDArray[np.int32]
    set_tree: NDArray[np.int32]
    step_begin: NDArray[np.int64]
    steps: NDArray[np.int32]


def spelled(core: Core, vocabulary: Vocabulary) -> Spelling:
    """The tokens of every state that tokens reach.

    Raises:
        OptionError: it becomes too large.
    """
    native = library("spell")
    assert native is not None, "the choice of form comes before"
    trees = vocabulary.trees
    step_begin, flat = core.packed_steps()
    opened = [np.r_[0, np.cumsum(vocabulary.opens[tree.order])].astype(np.int32) for tree in trees]
    counts = np.array([len(tree.symbol) for tree in trees], np.int64)
    sizes = np.zeros(7, np.int64)
    handle = ctypes.c_void_p(
        native.spell_new(
            *map(converted, (core.next, core.act, core.kind, *core.next.shape, core.start)),
            *map(converted, (step_begin, len(core.steps), flat, len(trees) - 1, counts)),
            *(_pointers([_part(tree, name) for tree in trees]) for name in ("symbol", "depth", "end", "rank")),
            _pointers(opened),
            *(_pointers([_part(tree, name) for tree in trees]) for name in ("mask", "masks")),
            *map(converted, (MOST_STATES, MOST_EDGES, MOST_WORK, sizes)),
        )
    )
    try:
        status, S, E, sets, ranges, sequences, length = sizes.tolist()
        if status:
            raise OptionError("response_format: it needs too much to compile over this vocabulary: simplify it")
        found = Spelling(
            core=np.empty(S, np.int32),
            begin=np.empty(S + 1, np.int64),
            target=np.empty(E, np.int32),
            rules=np.empty(E, np.int32),
            set=np.empty(E, np.int32),
            set_begin=np.empty(sets + 1, np.int64),
            ranges=np.empty(ranges, np.int32),
            set_tree=np.empty(sets, np.int32),
            step_begin=np.empty(sequences + 1, np.int64),
            steps=np.empty(length, np.int32),
        )
        native.spell_take(handle, *map(pointer, vars(found).values()))
    finally:
        native.spell_free(handle)
    return found


def _part(tree: Tree, name: str) -> NDArray:
    return getattr(tree, name)


def _pointers(arrays: list[NDArray]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
