"""What each reading of a canvas under a constraint weighs: all that the canvas could become, by what that decides.

A text under the constraint passes one edge on which its reading is decided. So a reading weighs, summed over those
edges and positions, what leads there, the edge, and what the constraint lets follow: a forward pass up to where it is
decided, and one backward pass over the constraint that all fields share.

Source: the forward and backward recursions (Rabiner 1989).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from redraft.core.automaton import TokenAutomaton
from redraft.core.crossings import Crossings
from redraft.kernels.class_masses import runs
from redraft.kernels.option_weights import forward, total
from redraft.kernels.recursions import LOG_ZERO, backward

# L positions, S states, C classes of the constraint, R of the crossings


def what_follows(mass: NDArray[np.float64], automaton: TokenAutomaton, end: NDArray[np.float64]) -> NDArray[np.float64]:
    """[L + 1, S] log weight of all that may follow each state of a constraint.

    Args:
        mass: [L, C] log mass of its classes.
        automaton: the constraint.
        end: [S] log weight of each state behind the last position.
    """
    edges = automaton.edges
    return backward(runs(mass[:, edges.member], edges.begins[:-1]), edges, end)


def reading_weights(
    mass: NDArray[np.float64], crossings: Crossings, pair: int, follows: NDArray[np.float64], count: int
) -> tuple[float, ...]:
    """Log weights, up to a constant, of `count` readings.

    Args:
        mass: [L, R] log mass of the crossings' classes.
        crossings: where readings are decided.
        pair: of states before the first position.
        follows: see `what_follows`.
        count: of readings.
    """
    edges, across = crossings.edges, crossings.across
    weights = runs(mass[:, edges.member], edges.begins[:-1])
    reached = forward(weights, edges, pair, len(crossings.pairs))[:-1]
    values = reached[:, across.source] + weights[:, across.kinds] + follows[1:, across.target]
    found = [total(values[:, crossings.label == reading]) for reading in range(count)]
    return tuple(found) if values.size else (LOG_ZERO,) * count
