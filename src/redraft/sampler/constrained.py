"""Where a canvas under an automaton may end, and whether it can."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from redraft.core.automaton import TokenAutomaton
from redraft.kernels import recursions
from redraft.kernels.constrained import largest_of_classes


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
    automaton: TokenAutomaton, state: int, allowed: Float[Tensor, "L V"] | None, end: NDArray[np.float64], used: int
) -> bool:
    """Whether any sequence leads from `state` to an allowed end; `allowed` is 0 or -inf for each token (pins)."""
    edges = automaton.edges
    if allowed is None:
        weights = np.zeros((used, len(edges.begin)))
    else:
        weights = recursions.best_of_sets(largest_of_classes(allowed[:used], automaton), edges)
    return bool(np.isfinite(recursions.best_backward(weights, edges, end)[0][state]))
