"""What each of several options weighs over a whole canvas, by its own text, all its spellings in tokens summed.

Positions are independent in the model's eyes, so a sequence of tokens weighs the product of its probabilities, and an
option the sum over the sequences that spell it: a forward pass over the automaton that all options share. Of the
log-probabilities only what the automaton's classes weigh is kept, so that they may come in pieces.

Source: the forward recursion (Rabiner 1989).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from redraft.core.automaton import Edges
from redraft.core.reads import Texts
from redraft.kernels.recursions import LOG_ZERO, log_sum

# L positions, S states, C classes, K sets of classes, X tokens of any class, O options, V vocabulary


class OptionWeights:
    """The options of one canvas, fed with its log-probabilities.

    Attributes:
        positions: how many of them, from the first on, are needed.
    """

    def __init__(
        self, texts: Texts, length: int, *, start: int | None = None, cut: Sequence[Sequence[int]] | None = None
    ) -> None:
        """Of a canvas of `length` positions.

        Args:
            texts: the options.
            length: positions.
            start: the state before the first of them; None: where the texts begin.
            cut: of each option, states in which the canvas's end may cut it off; None: none.
        """
        self._texts, self._length = texts, length
        self._start = texts.automaton.start if start is None else start
        self._cut = [()] * len(texts.whole) if cut is None else cut
        parts = texts.automaton.parts
        order = np.argsort(parts.kinds, kind="stable")
        kinds = parts.kinds[order]
        self._first = np.flatnonzero(np.r_[True, np.diff(kinds) != 0][: len(kinds)])
        self._kinds = kinds[self._first]
        # Behind the tokens of the classes, those that end a reply and those that fill its canvas.
        self._ids = torch.from_numpy(np.r_[parts.ids[order], texts.end_ids, texts.fill_ids].astype(np.int64))
        self._broad = [torch.from_numpy(np.flatnonzero(parts.broad_of == g)) for g in range(len(parts.broad))]
        self._weights = np.full((length, len(texts.automaton.edges.begins) - 1), LOG_ZERO)
        self._end, self._fill = np.full((2, length), LOG_ZERO)
        self._seen = np.zeros(length, np.bool_)
        # Where anything may follow an option, what lies behind the longest of them says nothing.
        self.positions = length if texts.end_ids else _longest_path(texts, length)

    def add(self, first_row: int, log_probs: Float[Tensor, "R V"]) -> None:
        """Log-probabilities of some positions, from `first_row` on, over the whole vocabulary.

        Raises:
            ValueError: they are of another vocabulary, or lie outside the canvas.
        """
        R, V = log_probs.shape
        automaton, count = self._texts.automaton, len(self._texts.end_ids)
        if len(automaton.class_of) != V:
            raise ValueError(f"{V} log-probabilities for options over {len(automaton.class_of)} tokens")
        if not 0 <= first_row <= first_row + R <= self._length:
            raise ValueError(f"positions {first_row} to {first_row + R} of a canvas of {self._length}")
        rows, explicit = slice(first_row, first_row + R), len(automaton.parts.ids)
        scores = log_probs[:, self._ids.to(log_probs.device)].cpu().double().numpy()
        mass = np.full((R, automaton.num_classes), LOG_ZERO)
        if explicit:
            mass[:, self._kinds] = _runs(scores[:, :explicit], self._first)
        for kind, tokens in zip(automaton.parts.broad, self._broad, strict=True):
            of_class = log_probs.index_select(1, tokens.to(log_probs.device)).cpu().double()
            mass[:, kind] = torch.logsumexp(of_class, -1).numpy()
        self._weights[rows] = _runs(mass[:, automaton.edges.member], automaton.edges.begins[:-1])
        ends, fills = np.split(scores[:, explicit:], [count], axis=1)
        if count:
            self._end[rows] = np.logaddexp.reduce(ends, axis=1)
            self._fill[rows] = np.logaddexp.reduce(fills, axis=1)
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
        opening = np.logaddexp.reduce(self._weights[0, edges.kinds[edges.source == self._start]], initial=LOG_ZERO)
        reached = _forward(self._weights, edges, self._start, automaton.num_states)
        tail = self._tail()[:, None]
        whole = [_total(reached[:, list(states)] + tail) for states in self._texts.whole]
        cut = [_total(reached[-1, list(states)]) for states in self._cut]
        return tuple(np.logaddexp(whole, cut).tolist()), float(opening)

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


def _forward(weights: NDArray[np.float64], edges: Edges, start: int, count: int) -> NDArray[np.float64]:
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
        found[i + 1, behind[first]] = _runs(found[i, source[live]] + weights[i, kinds[live]], first)
    return found


def _runs(values: NDArray[np.float64], first: NDArray[np.int64]) -> NDArray[np.float64]:
    return log_sum(values, first, np.diff(np.r_[first, values.shape[-1]]))


def _total(values: NDArray[np.float64]) -> float:
    return float(np.logaddexp.reduce(values, axis=None, initial=LOG_ZERO))
