"""Measures: how often answers are right, and what their probabilities are worth."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redraft.core.decisions import Answer, Refusal

BINS = 10
GATES = (0.8, 0.9)
ERRORS = (0.05, 0.1)
_FLOOR = 1e-15


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """An answer's probabilities beside what was right.

    Attributes:
        state: number of the state; answers about one state are not independent.
        key, kind: of the question.
        probabilities: of its options; none where it was refused.
        shares: how right each option was; all 0 where none was.
    """

    state: int
    key: str
    kind: str
    probabilities: tuple[float, ...]
    shares: tuple[float, ...]

    @property
    def is_right(self) -> bool:
        """Whether the likeliest option was the right one; of options equally likely, the first counts."""
        if not self.probabilities or not any(self.shares):
            return False
        return _first_of_most(self.probabilities) == _first_of_most(self.shares)


def outcome(
    state: int, key: str, kind: str, answer: Answer | Refusal, shares: Sequence[float], *, raw: bool
) -> Outcome:
    """What came of a question; an answer that was withheld counts as it would have been.

    Args:
        state: number of the state.
        key: of the question.
        kind: of the question.
        answer: what was found out.
        shares: what was right.
        raw: whether the probabilities as they were read are meant, or calibrated ones.
    """
    found = answer.answer if isinstance(answer, Refusal) else answer
    probabilities = () if found is None else found.raw if raw else found.probabilities
    return Outcome(state=state, key=key, kind=kind, probabilities=tuple(probabilities), shares=tuple(shares))


@dataclass(frozen=True, kw_only=True, eq=False)
class Columns:
    """Outcomes as [N] columns.

    Attributes:
        state: numbers of the states.
        right: 1 or 0.
        confidence: of the likeliest option; 0 of a refused question, which counts as wrong.
        brier: sum over the options of (probability - share) squared; nan of a refused question.
        nll: nats; nan of a refused question, and where no option was right.
    """

    state: NDArray[np.int64]
    right: NDArray[np.float64]
    confidence: NDArray[np.float64]
    brier: NDArray[np.float64]
    nll: NDArray[np.float64]

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> Columns:
        """Outcomes' columns."""
        return cls(
            state=np.array([o.state for o in outcomes], dtype=np.int64),
            right=np.array([float(o.is_right) for o in outcomes]),
            confidence=np.array([max(o.probabilities, default=0.0) for o in outcomes]),
            brier=np.array([_brier(o) for o in outcomes]),
            nll=np.array([_nll(o) for o in outcomes]),
        )

    def __len__(self) -> int:
        return len(self.state)

    def take(self, places: NDArray[np.int64]) -> Columns:
        """Some of the rows, in this order."""
        return Columns(**{name: column[places] for name, column in vars(self).items()})


Measure = Callable[[Columns], float]


def accuracy(columns: Columns) -> float:
    """The share of right answers."""
    return float(columns.right.mean())


def brier(columns: Columns) -> float:
    """Mean squared distance from what was right, over all options: 0 to 2."""
    return _mean_of_numbers(columns.brier)


def nll(columns: Columns) -> float:
    """Mean negative log-likelihood in nats, probabilities below 1e-15 taken as that."""
    return _mean_of_numbers(columns.nll)


def ece(columns: Columns, bins: int = BINS) -> float:
    """Expected calibration error: over equal bins of confidence, how far accuracy is from the mean confidence there."""
    return float(_ece(columns.confidence, columns.right[None], bins)[0])


def ece_floor(columns: Columns, bins: int = BINS, *, resamples: int = 200, seed: int = 0) -> float:
    """What a perfectly calibrated model's ECE would be on as many rows of such confidence, in the mean."""
    drawn = np.random.default_rng(seed).random((resamples, len(columns))) < columns.confidence
    return float(_ece(columns.confidence, drawn.astype(np.float64), bins).mean())


def reliability(columns: Columns, bins: int = BINS) -> list[dict[str, float | int | None]]:
    """A reliability diagram's bins: from, to, count, and of those the mean confidence and accuracy."""
    places = _bins(columns.confidence, bins)
    found: list[dict[str, float | int | None]] = []
    for place in range(bins):
        inside = places == place
        count = int(inside.sum())
        means = [float(column[inside].mean()) if count else None for column in (columns.confidence, columns.right)]
        edges = {"from": place / bins, "to": (place + 1) / bins}
        found.append({**edges, "count": count, "confidence": means[0], "accuracy": means[1]})
    return found


def gate(columns: Columns, least: float) -> dict[str, float | int]:
    """What a gate lets through: the share of all rows, and how many of those are wrong."""
    through = columns.confidence >= least
    return {"gate": least, "coverage": float(through.mean()), "wrong": int((1 - columns.right[through]).sum())}


def coverage_at(columns: Columns, error: float) -> float:
    """The largest share of rows, the most confident first, of which no more than this share is wrong."""
    ends, wrong = _by_confidence(columns)
    fits = ends[wrong <= error * ends + 1e-12]
    return float(fits.max(initial=0) / len(columns))


def aurc(columns: Columns) -> float:
    """Area under risk over coverage: the mean error of the 1, 2, ..., N most confident rows.

    Rows of one confidence have no order; each of them counts as wrong as all of them are.
    """
    ends, wrong = _by_confidence(columns)
    cumulated = np.interp(np.arange(1, len(columns) + 1), [0, *ends], [0, *wrong])
    return float((cumulated / np.arange(1, len(columns) + 1)).mean())


def summary(columns: Columns, bins: int = BINS) -> dict[str, Any]:
    """All of it, as JSON has it; nan is null."""
    found = {
        "count": len(columns),
        "states": len(np.unique(columns.state)),
        "refused": int(np.isnan(columns.brier).sum()),
        "accuracy": accuracy(columns),
        "brier": brier(columns),
        "nll": nll(columns),
        "bins": bins,
        "ece": ece(columns, bins),
        "ece_floor": ece_floor(columns, bins),
        "aurc": aurc(columns),
        "gates": [gate(columns, least) for least in GATES],
        "coverage_at": [{"error": error, "coverage": coverage_at(columns, error)} for error in ERRORS],
        "reliability": reliability(columns, bins),
    }
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in found.items()}


def _by_confidence(columns: Columns) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The most confident first: where each run of equal confidence ends, and how many are wrong up to there."""
    order = np.argsort(-columns.confidence, kind="stable")
    confidence = columns.confidence[order]
    wrong = np.cumsum(1 - columns.right[order])
    ends = np.flatnonzero(np.append(confidence[1:] != confidence[:-1], True)) + 1
    return ends, wrong[ends - 1]


def _bins(confidence: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """Which bin each falls into; a bin holds its lower edge, the last one both."""
    return np.minimum((confidence * bins).astype(np.int64), bins - 1)


def _ece(confidence: NDArray[np.float64], right: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """Of each row of `right`, [R, N]."""
    places = _bins(confidence, bins)
    gaps = [np.abs((right - confidence)[:, places == place].sum(axis=1)) for place in range(bins)]
    return np.sum(gaps, axis=0) / len(confidence)


def _brier(found: Outcome) -> float:
    if not found.probabilities:
        return math.nan
    return math.fsum((p - share) ** 2 for p, share in zip(found.probabilities, found.shares, strict=True))


def _nll(found: Outcome) -> float:
    if not found.probabilities or not any(found.shares):
        return math.nan
    return -math.fsum(s * math.log(max(p, _FLOOR)) for p, s in zip(found.probabilities, found.shares, strict=True) if s)


def _mean_of_numbers(column: NDArray[np.float64]) -> float:
    numbers = column[~np.isnan(column)]
    return float(numbers.mean()) if len(numbers) else math.nan


def _first_of_most(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)
