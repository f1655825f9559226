"""What tells two sets of answers apart: how many flip, and how well a figure parts two kinds of states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from redraft.decide.measures import Outcome


@dataclass(frozen=True, kw_only=True)
class Flips:
    """The same questions answered twice, in other orders or from other noise.

    Attributes:
        count: of questions that were answered both times.
        flipped: those of them whose likeliest option changed.
        mean_change, largest_change: of the probability of an option that changed most, question by question.
    """

    count: int
    flipped: int
    mean_change: float
    largest_change: float


def flips(one: Sequence[Outcome], other: Sequence[Outcome]) -> Flips:
    """How far two ways of answering the same questions, in the same order, are apart."""
    pairs = [(a.probabilities, b.probabilities) for a, b in zip(one, other, strict=True)]
    both = [(np.array(a), np.array(b)) for a, b in pairs if a and b]
    changes = [float(np.abs(a - b).max()) for a, b in both]
    return Flips(
        count=len(both),
        flipped=sum(int(a.argmax() != b.argmax()) for a, b in both),
        mean_change=float(np.mean(changes)) if changes else 0.0,
        largest_change=max(changes, default=0.0),
    )


def auroc(inside: Sequence[float], outside: Sequence[float]) -> float:
    """The share of pairs in which a figure is higher inside than outside, ties counted half; nan where one is empty.

    So label masses of states that the questions are about are told from those of others: 1 is perfect, .5 is none.
    """
    if not inside or not outside:
        return float("nan")
    ranked = np.sort(np.asarray(outside, dtype=np.float64))
    below = np.searchsorted(ranked, inside, side="left")
    up_to = np.searchsorted(ranked, inside, side="right")
    return float((below + up_to).sum() / (2 * len(inside) * len(outside)))
