"""What each class of tokens weighs at each position, of log-probabilities or logits that come in pieces."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from redraft.core.automaton import BROAD_LEAST, EXPLICIT, Parts
from redraft.kernels.recursions import LOG_ZERO, log_sum

# L positions, C classes, V vocabulary


class ClassMasses:
    """Log masses of classes, filled row by row.

    Attributes:
        mass: [L, C]; -inf where nothing has come yet.
    """

    def __init__(self, class_of: NDArray[np.int32], num_classes: int, length: int) -> None:
        """Of `length` positions; `class_of` [V] is negative for tokens that count nowhere."""
        size = np.bincount(class_of[class_of >= 0], minlength=num_classes)
        broad = np.flatnonzero(size >= BROAD_LEAST) if len(class_of) > EXPLICIT else np.empty(0, np.int64)
        parts = Parts.of(class_of, broad, num_classes)
        order = np.argsort(parts.kinds, kind="stable")
        kinds = parts.kinds[order]
        self._first = np.flatnonzero(np.r_[True, np.diff(kinds) != 0][: len(kinds)])
        self._kinds, self._broad = kinds[self._first], broad
        self._ids = torch.from_numpy(parts.ids[order])
        self._tokens = [torch.from_numpy(np.flatnonzero(parts.broad_of == g)) for g in range(len(broad))]
        self.mass = np.full((length, num_classes), LOG_ZERO)

    def add(self, first_row: int, scores: Float[Tensor, "R V"]) -> None:
        """The rows from `first_row` on."""
        device, rows = scores.device, slice(first_row, first_row + len(scores))
        if len(self._ids):
            explicit = scores.index_select(1, self._ids.to(device)).cpu().double().numpy()
            self.mass[rows, self._kinds] = runs(explicit, self._first)
        for kind, tokens in zip(self._broad, self._tokens, strict=True):
            of_class = scores.index_select(1, tokens.to(device)).cpu().double()
            self.mass[rows, kind] = torch.logsumexp(of_class, -1).numpy()


def runs(values: NDArray[np.float64], first: NDArray[np.int64]) -> NDArray[np.float64]:
    """log of the sum of exponentials over runs along the last axis, by where each begins."""
    return log_sum(values, first, np.diff(np.r_[first, values.shape[-1]]))
