"""Where a canvas under an automaton may end, and whether it can."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from redraft.core.automaton import TokenAutomaton
from redraft.kernels import recursions


def ends(automaton: TokenAutomaton, remaining: int, length: int) -> tuple[int, NDArray[np.float64]]:
    """(positions that count, log weight [S] of the state behind them) of a canvas.

    Args:
        automaton: the constraint.
        remaining: tokens that the reply may still have, this canvas included.
        length: positions of the canvas.

    Where the budget ends within the canvas, only accepting states may stand at its end. Before that, those may from
    which the shortest completion fits into what is left.
    """
    used = min(length, remaining)
    allowed = automaton.accepting if used == remaining else automaton.shortest <= remaining - used
    return used, np.where(allowed, 0.0, recursions.LOG_ZERO)


def feasible(
    automaton: TokenAutomaton, state: int, pinned: Mapping[int, int], end: NDArray[np.float64], used: int
) -> bool:
    """Whether any sequence leads from `state` to an allowed end; `pinned` has the only token of some positions."""
    edges = automaton.edges
    possible = end > recursions.LOG_ZERO
    for place in range(used - 1, -1, -1):
        leads = possible[edges.target]
        if place in pinned:
            of_class = np.zeros(automaton.num_classes + 1, np.bool_)
            # A token of no class marks the last entry, which no set has.
            of_class[automaton.class_of[pinned[place]]] = True
            leads = leads & np.logical_or.reduceat(of_class[edges.member], edges.begins[:-1])[edges.kinds]
        possible = np.zeros(automaton.num_states, np.bool_)
        possible[edges.source[leads]] = True
    return bool(possible[state])
