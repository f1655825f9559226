"""How sure a measure is: states are drawn again, with all their questions, because these are not independent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redraft.decide.measures import Columns, Measure, accuracy

RESAMPLES = 1000
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure and where it lies with 95 %."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Two ways of answering the same questions.

    Attributes:
        difference: of the measure, the first less the second.
        better, worse: states of which the first has more, and less, answers right than the second.
    """

    difference: Interval
    better: int
    worse: int


def interval(columns: Columns, measure: Measure, *, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """A measure's bootstrap interval (percentiles), states drawn again."""
    drawn = [measure(columns.take(places)) for places in _again(columns.state, resamples, seed)]
    return _between(measure(columns), drawn)


def paired(
    one: Columns, other: Columns, measure: Measure = accuracy, *, resamples: int = RESAMPLES, seed: int = 0
) -> Paired:
    """Two ways beside each other, on the same states in each resample.

    Args:
        one: outcomes of the first.
        other: of the second, the same questions in the same order.
        measure: what is compared.
        resamples: how often states are drawn again.
        seed: of those draws.
    """
    assert np.array_equal(one.state, other.state)
    again = _again(one.state, resamples, seed)
    drawn = [measure(one.take(places)) - measure(other.take(places)) for places in again]
    lead = [float((one.right - other.right)[one.state == state].sum()) for state in np.unique(one.state)]
    return Paired(
        difference=_between(measure(one) - measure(other), drawn),
        better=sum(each > 0 for each in lead),
        worse=sum(each < 0 for each in lead),
    )


def _again(state: NDArray[np.int64], resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """The rows of as many states as there are, drawn with replacement."""
    generator = np.random.default_rng(seed)
    order = np.argsort(state, kind="stable")
    rows = np.split(order, np.flatnonzero(np.diff(state[order])) + 1)
    for _ in range(resamples):
        yield np.concatenate([rows[n] for n in generator.integers(len(rows), size=len(rows))])


def _between(value: float, drawn: Sequence[float]) -> Interval:
    outside = (1 - LEVEL) / 2
    low, high = np.nanquantile(drawn, [outside, 1 - outside]) if not np.isnan(drawn).all() else (np.nan, np.nan)
    return Interval(value=value, low=float(low), high=float(high))
