"""Looks: one read of one prompt, and what it says of the questions in it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from redraft.core.errors import GenerationError
from redraft.core.reads import CanvasRead, DrawReading, Read, Reading

ReaderName = Literal["canvas", "causal"]


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What one draw says of a question.

    Attributes:
        probabilities: of each option, in the question's own order; they sum to 1.
        mass: what the options' labels hold of the whole vocabulary.
    """

    probabilities: tuple[float, ...]
    mass: float


@dataclass(frozen=True, kw_only=True)
class Look:
    """A read, and the numbers of the questions that it is about, in the order of its slots."""

    read: Read
    asked: tuple[int, ...]

    @property
    def reader(self) -> ReaderName:
        """Who looks."""
        return "canvas" if isinstance(self.read, CanvasRead) else "causal"

    def found(self, reading: Reading) -> Iterator[tuple[int, list[Draw]]]:
        """What each of the draws says, question by question.

        Raises:
            GenerationError: it is no number.
        """
        for place, number in enumerate(self.asked):
            yield number, [_drawn(draw, place) for draw in reading.draws]


def softmax(weights: Sequence[float]) -> tuple[float, ...]:
    """Of weights in nats; where all are minus infinity, none is likelier than another."""
    if any(math.isnan(weight) or weight == math.inf for weight in weights):
        raise GenerationError("the model's probabilities are no numbers: its weights or its arithmetic are broken")
    most = max(weights)
    if most == -math.inf:
        return (1 / len(weights),) * len(weights)
    shares = [math.exp(weight - most) for weight in weights]
    total = math.fsum(shares)
    return tuple(share / total for share in shares)


def _drawn(draw: DrawReading, place: int) -> Draw:
    if not draw.log_weights:
        return Draw(probabilities=softmax(draw.slots[place].log_probs), mass=_mass(draw.slots[place].log_probs))
    # By their own text: a canvas sums up what any option may begin with, the causal mode lists it.
    opening = draw.slots[0].log_probs if draw.opening_nats is None else (draw.opening_nats,)
    return Draw(probabilities=softmax(draw.log_weights), mass=_mass(opening))


def _mass(log_probs: Sequence[float]) -> float:
    """What tokens hold together; not more than all, but for a last digit."""
    return min(math.fsum(map(math.exp, log_probs)), 1.0)
