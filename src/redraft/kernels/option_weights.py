"""What each of several options weighs over a whole canvas, by its own text, all its spellings in tokens summed.

Positions are independent in the model's eyes, so a sequence of tokens weighs the product of its probabilities, and an
option the sum over the sequences that spell it: a forward pass over the automaton that all options share. Of the
log-probabilities only what the automaton's classes weigh is kept, so that they may come in pieces.

Source: the forward recursion (Rabiner 1989).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from redraft.core.automaton import Edges
from redraft.core.reads import Texts
from redraft.kernels.class_masses import ClassMasses, runs
from redraft.kernels.recursions import LOG_ZERO

# L positions, S states, C classes, K sets of classes, X tokens of any class, O options, V vocabulary


class OptionWeights:
    """The options of one canvas, fed with its log-probabilities.

    Attributes:
        positions: how many of them, from the first on, are needed.
    """

    def __init__(self, texts: Texts, length: int) -> None:
        """Of a canvas of `length` positions."""
        self._texts, self._length = texts, length
        automaton = texts.automaton
        self._masses = ClassMasses(automaton.class_of, automaton.num_classes, length)
        self._end, self._fill = np.full((2, length), LOG_ZERO)
        self._seen = np.zeros(length, np.bool_)
        # Where anything may follow an option, what lies behind the longest of them says nothing.
        self.positions = length if texts.end_ids else _longest_path(texts, length)

    def add(self, first_row: int, log_probs: Float[Tensor, "R V"]) -> None:
        """Log-probabilities of some positions, from `first_row` on, over the whole vocabulary.

        Raises:
            ValueError: they are of another vocabulary, or lie outside the canvas.
        """
        (R, V), rows = log_probs.shape, slice(first_row, first_row + len(log_probs))
        if len(self._texts.automaton.class_of) != V:
            raise ValueError(f"{V} log-probabilities for options over {len(self._texts.automaton.class_of)} tokens")
        if not 0 <= first_row <= first_row + R <= self._length:
            raise ValueError(f"positions {first_row} to {first_row + R} of a canvas of {self._length}")
        self._masses.add(first_row, log_probs)
        for found, ids in ((self._end, self._texts.end_ids), (self._fill, self._texts.fill_ids)):
            if ids:
                found[rows] = np.logaddexp.reduce(log_probs[:, list(ids)].cpu().double().numpy(), axis=1)
        self._seen[rows] = True

    def result(self) -> tuple[tuple[float, ...], float]:
        """(log weight of each option in nats, log-probability at the first position of all that any begins with).

        Raises:
            ValueError: positions are missing.
        """
        if not self._seen[: self.positions].all():
            raise ValueError(f"{int((~self._seen[: self.positions]).sum())} positions of the canvas are missing")
        automaton = self._texts.automaton
        edges = automaton.edges
        weights = runs(self._masses.mass[:, edges.member], edges.begins[:-1])
        opening = np.logaddexp.reduce(weights[0, edges.kinds[edges.source == automaton.start]], initial=LOG_ZERO)
        reached = forward(weights, edges, automaton.start, automaton.num_states)
        tail = self._tail()[:, None]
        found = tuple(total(reached[:, list(states)] + tail) for states in self._texts.whole)
        return found, float(opening)

    def _tail(self) -> NDArray[np.float64]:
        """[L + 1] log weight of what may stand behind an option, from each position on."""
        if not self._texts.end_ids:
            return np.zeros(self._length + 1)
        filled = np.r_[np.cumsum(self._fill[::-1])[::-1], 0.0]
        return np.r_[self._end + filled[1:], 0.0]


def option_weights(log_probs: Float[Tensor, "L V"], texts: Texts) -> tuple[tuple[float, ...], float]:
    """The same of a whole canvas's log-probabilities at once; see `OptionWeights.result`."""
    weights = OptionWeights(texts, len(log_probs))
    weights.add(0, log_probs)
    return weights.result()


def _longest_path(texts: Texts, length: int) -> int:
    """Tokens of the longest way to write an option, and no more than a canvas has."""
    edges, reached = texts.automaton.edges, np.zeros(texts.automaton.num_states, np.bool_)
    reached[texts.automaton.start] = True
    for steps in range(length):
        behind = edges.target[reached[edges.source]]
        reached[:] = False
        reached[behind] = True
        reached[texts.automaton.done] = False
        if not reached.any():
            return steps
    return length


def forward(weights: NDArray[np.float64], edges: Edges, start: int, count: int) -> NDArray[np.float64]:
    """[L + 1, S] log weight of everything that leads from the start to each state before each position."""
    L = len(weights)
    order = np.argsort(edges.target, kind="stable")
    source, kinds, target = edges.source[order], edges.kinds[order], edges.target[order]
    found = np.full((L + 1, count), LOG_ZERO)
    found[0, start] = 0.0
    for i in range(L):
        # Few states are reached at a time: a text of n bytes is over after n tokens.
        live = np.flatnonzero(found[i, source] > LOG_ZERO)
        if not len(live):
            break
        behind = target[live]
        first = np.flatnonzero(np.r_[True, np.diff(behind) != 0])
        found[i + 1, behind[first]] = runs(found[i, source[live]] + weights[i, kinds[live]], first)
    return found


def total(values: NDArray[np.float64]) -> float:
    """log of the sum of all exponentials."""
    return float(np.logaddexp.reduce(values, axis=None, initial=LOG_ZERO))
